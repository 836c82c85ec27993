"""Arguments and shapes that are only known at run time, against the same arguments written into the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.converters.coreml import quiet_coremltools
from edgekit.core.errors import DataError, IntegrityError
from edgekit.runtimes.coreml.late import LateKernel
from edgekit.runtimes.coreml.ops.library import builder
from edgekit.runtimes.coreml.ops.table import Call, Kernel
from edgekit.runtimes.coreml.program import Operation, Variable
from edgekit.runtimes.coreml.reference import RUNTIME

with quiet_coremltools():
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb

Operate = Callable[..., Any]
INT32 = ct.converters.mil.mil.types.int32


def whole(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


X = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5) - 30


@pytest.mark.parametrize(
    ("kind", "given", "computed"),
    [
        ("reshape", {"x": X}, {"shape": [5, -1, 3]}),
        ("transpose", {"x": X}, {"perm": [2, 0, 1]}),
        ("expand_dims", {"x": X}, {"axes": [0, -1]}),
        ("tile", {"x": X}, {"reps": [1, 2, 3]}),
        ("slice_by_index", {"x": X}, {"begin": [1, 0, -3], "end": [3, 2, 5]}),
        ("slice_by_size", {"x": X}, {"begin": [1, -2, 0], "size": [2, -1, 3]}),
        ("slice_update", {"x": X, "update": torch.ones(1, 2, 5)}, {"begin": [1, 2, 0], "end": [2, 4, 5]}),
        ("concat", {"values": [X, X]}, {"axis": 1}),
        ("split", {"x": X}, {"split_sizes": [1, 3], "axis": 1}),
        ("pad", {"x": X}, {"pad": [1, 0, 0, 2]}),
        ("gather", {"x": X, "indices": whole(2, 0)}, {"axis": 1}),
        ("cumsum", {"x": X}, {"axis": -1}),
        ("topk", {"x": X}, {"k": 2, "axis": 1}),
        ("reduce_sum", {"x": X}, {"axes": [0, 2]}),
        ("clip", {"x": X}, {"alpha": -4.5, "beta": 7.25}),
        ("softmax", {"x": X}, {"axis": 1}),
        ("reverse", {"x": X}, {"axes": [1]}),
        ("one_hot", {"indices": whole(2, 0)}, {"one_hot_vector_size": 4}),
        ("resize_bilinear", {"x": X[None]}, {"target_size_height": 7, "target_size_width": 3}),
        ("crop", {"x": X[None]}, {"crop_height": [1, 0], "crop_width": [0, 2]}),
    ],
)  # fmt: skip
def test_a_computed_argument_is_as_good_as_a_constant(
    operate: Operate, kind: str, given: dict[str, Any], computed: dict[str, Any]
) -> None:
    outputs = [Variable(f"out{at}", "float32", ()) for at in range(2 if kind in {"split", "topk"} else 1)]
    expected = operate(kind, **given, **computed, outputs=outputs)
    late = {
        name: torch.tensor(value, dtype=torch.float32 if isinstance(value, float) else torch.int32)
        for name, value in computed.items()
    }
    found = operate(kind, **given, **late, outputs=outputs)
    for one, other in zip(*(([part] if isinstance(part, torch.Tensor) else part) for part in (found, expected)), strict=True):
        assert torch.equal(one, other)


def make_late(kind: str, built: list[Any]) -> LateKernel:
    """``kind`` with ``x`` of unknown sizes and a computed ``axis``; what was built is noted."""
    variables = {"x": Variable("x", "float32", (None, None)), "axis": Variable("axis", "int32", ())}
    operation = Operation(kind, "under_test", {"x": ("x",), "axis": ("axis",)}, (Variable("out", "float32", (None, None)),))

    def build(call: Call) -> Kernel:
        built.append(call)
        return builder(operation)(call)

    return LateKernel(Call(operation, {}, variables), build, lambda argument, bound: pytest.fail("nothing here is constant"))


def test_built_again_only_where_something_it_looked_at_has_changed() -> None:
    built: list[Any] = []
    late = make_late("softmax", built)
    assert late.variables == ("x", "axis")
    for shape, axis in (((2, 3), 0), ((2, 3), 0), ((4, 5), 0), ((2, 3), 1), ((2, 3), 0)):
        x = torch.randn(*shape)
        assert torch.equal(late(x, torch.tensor(axis)), torch.softmax(x, axis))
    assert len(built) == 2  # one for each axis: softmax does not look at the shape


def test_what_a_builder_looks_at_may_depend_on_what_it_saw() -> None:
    """The shape matters where the first value is 1 only: an answer kept from before must not be used for another shape."""
    operation = Operation("own", "own", {"x": ("x",), "way": ("way",)}, (Variable("out", "float32", ()),))
    variables = {"x": Variable("x", "float32", (None,)), "way": Variable("way", "int32", ())}

    def build(call: Call) -> Kernel:
        size = call.shape("x")[0] if call.integer("way") == 1 else 0
        return Kernel(lambda x: x.sum() + 100 * size, "x")

    late = LateKernel(Call(operation, {}, variables), build, lambda argument, bound: torch.zeros(()))
    ways = [(0, 2), (1, 2), (1, 3), (0, 3), (0, 2), (1, 2)]
    assert [int(late(torch.ones(size), torch.tensor(way))) for way, size in ways] == [2, 202, 303, 3, 2, 202]


def test_shapes_that_come_from_data(save_program: Callable[..., Path]) -> None:
    """Count what is positive, then build everything else from that count."""

    @mb.program(input_specs=[mb.TensorSpec((8,))], opset_version=ct.target.iOS17)
    def program(x):
        places = mb.non_zero(x=mb.cast(x=mb.greater(x=x, y=0.0), dtype="int32"))
        positive = mb.gather_nd(x=x, indices=places)
        count = mb.slice_by_index(x=mb.shape(x=places), begin=[0], end=[1])
        number = mb.squeeze(x=count, axes=[0])
        steps = mb.range_1d(start=0, end=number, step=1)
        grid = mb.fill(shape=mb.concat(values=[count, np.int32([2])], axis=0), value=0.5)
        head = mb.slice_by_index(x=x, begin=[0], end=count)
        table = mb.reshape(x=mb.tile(x=head, reps=[2]), shape=mb.concat(values=[np.int32([2]), count], axis=0))
        return mb.identity(x=positive, name="positive"), steps, grid, table

    session = RUNTIME.load(save_program(program))
    names = [spec.name for spec in session.outputs]
    for x in (np.float32([1, -1, 2, -2, 3, -3, 4, 5]), np.float32([-1, -1, -1, 7, -1, -1, -1, -1])):
        found = session.run({"x": x})
        count = int((x > 0).sum())
        expected = (x[x > 0], np.arange(count), np.full((count, 2), 0.5), np.tile(x[:count], 2).reshape(2, count))
        for name, wanted in zip(names, expected, strict=True):
            np.testing.assert_array_equal(found[name], wanted)


def test_values_that_do_not_fit_are_named_at_run_time(operate: Operate) -> None:
    with pytest.raises(IntegrityError, match=r"'under_test' \(reshape\) cannot run: shape '\[7, 9\]' is invalid"):
        operate("reshape", x=X, shape=whole(7, 9))
    with pytest.raises(DataError, match=r"'under_test' \(softmax\) cannot run: Dimension out of range"):
        operate("softmax", x=X, axis=torch.tensor(7, dtype=torch.int32))


def test_a_text_is_no_value_to_compute(operate: Operate) -> None:
    with pytest.raises(IntegrityError, match="is the text 'abc'; expected numbers"):
        operate("add", x=X, y="abc")
