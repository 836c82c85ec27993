"""Exact sums against int64 and torch's float64 convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.errors import DataError
from edgekit.runtimes.exact.convolution import convolve, convolve_transposed
from edgekit.runtimes.exact.products import check_accumulators, matmul

RANDOM = np.random.default_rng(0)


def integers(*shape: int) -> np.ndarray:
    return RANDOM.integers(-255, 256, shape)


def by_torch(operator: Any, data: np.ndarray, weights: np.ndarray, **options: Any) -> np.ndarray:
    moved = torch.from_numpy(np.moveaxis(data, -1, 1).astype(np.float64))
    made = operator(moved, torch.from_numpy(np.moveaxis(weights, -1, 1).astype(np.float64)), **options)
    moved_back: np.ndarray = np.moveaxis(made.numpy(), 1, -1).astype(np.int64)
    return moved_back


@given(st.integers(1, 5), st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_matrix_products_are_those_of_int64(rows: int, length: int, columns: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    left, right = (random.integers(-(2**15), 2**15, shape) for shape in ((rows, length), (length, columns)))
    assert np.array_equal(matmul(left, right), left @ right)


def test_sums_that_float64_cannot_hold_are_refused() -> None:
    with pytest.raises(DataError, match="2\\^53"):
        matmul(np.full((1, 8), 2**26), np.full((8, 1), 2**26))
    with pytest.raises(DataError, match="32 bits"):
        check_accumulators(np.array([2**31]))
    assert check_accumulators(np.array([2**31 - 1, -(2**31) + 1])).size == 2


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize(("channels", "made", "groups"), [(4, 6, 1), (4, 6, 2), (6, 6, 6), (3, 6, 3)])
def test_convolutions_of_two_axes(stride: int, dilation: int, channels: int, made: int, groups: int) -> None:
    data, weights, bias = integers(2, 9, 8, channels), integers(made, 3, 2, channels // groups), integers(made)
    options = {"strides": (stride, 1), "dilations": (dilation, 1), "pads": ((1, 1), (0, 0)), "groups": groups}
    expected = by_torch(
        torch.nn.functional.conv2d, data, weights, stride=(stride, 1), dilation=(dilation, 1), padding=(1, 0), groups=groups
    )
    assert np.array_equal(convolve(data, weights, bias, options), expected + bias)


def test_convolutions_of_one_axis_with_uneven_padding() -> None:
    data, weights = integers(1, 7, 5), integers(4, 3, 5)
    found = convolve(data, weights, None, {"strides": (2,), "dilations": (1,), "pads": ((0, 1),), "groups": 1})
    padded = np.pad(data, [(0, 0), (0, 1), (0, 0)])
    assert np.array_equal(found, by_torch(torch.nn.functional.conv1d, padded, weights, stride=2))


@pytest.mark.parametrize(("stride", "padding", "more"), [(1, 0, 0), (2, 1, 1), (3, 1, 2)])
def test_transposed_convolutions(stride: int, padding: int, more: int) -> None:
    data, weights = integers(1, 4, 3, 5), integers(2, 3, 3, 5)
    options = {"strides": (stride, stride), "pads": ((padding, padding),) * 2, "more": (more, more)}
    moved = torch.from_numpy(np.moveaxis(data, -1, 1).astype(np.float64))
    kernel = torch.from_numpy(weights.transpose(3, 0, 1, 2).astype(np.float64))
    expected = torch.nn.functional.conv_transpose2d(moved, kernel, stride=stride, padding=padding, output_padding=more)
    found = convolve_transposed(data, weights, None, options)
    assert np.array_equal(found, np.moveaxis(expected.numpy(), 1, -1).astype(np.int64))
    sizes = {**options, "sizes": found.shape[1:-1]}
    assert np.array_equal(convolve_transposed(data, weights, None, sizes), found)
