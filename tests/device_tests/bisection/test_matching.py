"""A value is found by its numbers, in whatever order its axes lie."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.core.provenance import TracedFile, TracedOperation
from edgekit.device_tests.bisection.matching import Tensors, arranged, axis_orders

RNG = np.random.default_rng(0)
VALUE = RNG.normal(size=(2, 1, 4, 3, 5)).astype(np.float32)


def traced(**values: np.ndarray) -> Tensors:
    operations = tuple(TracedOperation("", "OP", ("x",), (name,)) for name in values)
    everything = {"x": np.zeros((2, 1), np.float32), **values}
    return Tensors(TracedFile(operations, everything, {}, {"x": "x"}, {}, "a test"))


@pytest.mark.parametrize("axes", [(0, 2, 3, 1), (0, 3, 1, 2), (0, 1, 3, 2)])
def test_any_order_of_axes_is_found_and_turned_back(axes: tuple[int, ...]) -> None:
    stored = VALUE.transpose(0, *(axis + 1 for axis in axes))
    tensors = traced(other=RNG.normal(size=stored.shape).astype(np.float32), held=stored)
    [found] = tensors.equal(VALUE, 1e-6)
    assert found.tensor == "held"
    assert np.array_equal(arranged(tensors.real["held"], VALUE.shape[1:], found.axes), VALUE)


def test_another_shape_holds_the_same_value() -> None:
    [found] = traced(flat=VALUE.reshape(2, 1, 60)).equal(VALUE, 1e-6)
    assert found.axes == ()


def test_a_difference_beyond_the_tolerance_is_no_match() -> None:
    off = VALUE.copy()
    off[1, 0, 3, 2, 4] += 0.01
    assert traced(off=off).equal(VALUE, 1e-3) == []
    assert [found.tensor for found in traced(off=off).equal(VALUE, 0.02)] == ["off"]


def test_what_depends_on_no_input_holds_no_value() -> None:
    operations = (TracedOperation("", "OP", ("weights",), ("made",)),)
    file = TracedFile(operations, {"x": VALUE, "made": VALUE}, {}, {"x": "x"}, {}, "a test")
    assert [found.tensor for found in Tensors(file).equal(VALUE, 0.0)] == ["x"]


def test_likeness_finds_the_order_of_an_altered_tensor() -> None:
    altered = np.maximum(VALUE, 0).transpose(0, 1, 3, 4, 2)
    found = traced(altered=altered).alike(VALUE, "altered")
    assert found is not None
    assert found.axes == (0, 2, 3, 1)
    assert found.likeness > 0.7
    assert found.error == pytest.approx(float(-VALUE.min()))


def test_sizes_that_do_not_fit_have_no_order() -> None:
    assert list(axis_orders((1, 4, 3), (1, 4, 4))) == []
