"""Exact sums of integer products, by float64 matrix products.

A float64 holds every integer below 2^53, so a product of 8-bit operands is summed without rounding in any order while
``length * 255 * 255 < 2^53``; BLAS may then be used, whatever it does with order and fused multiply-add.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgekit.core.errors import DataError

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["matmul", "patches"]

_EXACT = 2.0**53
_ACCUMULATOR = 2**31


def matmul(left: Array, right: Array) -> Array:
    """``left @ right`` of integers, ``[..., M, K] @ [..., K, N]`` -> int64, exact.

    Raises:
        DataError: A sum could reach 2^53.

    >>> matmul(np.array([[127, -128]]), np.array([[127], [127]]))
    array([[-127]])
    """
    largest = float(np.abs(left).max(initial=0)) * float(np.abs(right).max(initial=0)) * left.shape[-1]
    if largest >= _EXACT:
        raise DataError(f"A sum of {left.shape[-1]} products may reach {largest:.3g}; exact sums end at 2^53.")
    sums: Array = np.matmul(left.astype(np.float64), right.astype(np.float64)).astype(np.int64)
    return sums


def check_accumulators(sums: Array) -> Array:
    """The sums themselves.

    Raises:
        DataError: One leaves the 32 bits that every runtime accumulates in.
    """
    largest = int(np.abs(sums).max(initial=0))
    if largest >= _ACCUMULATOR:
        raise DataError(f"A sum is {largest}, more than the 32 bits runtimes accumulate in: they would wrap or saturate.")
    return sums


def patches(values: Array, *, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Array:
    """Windows of padded data, ``[N, *spatial, C]`` -> a view ``[N, *outputs, C, *kernel]``."""
    spans = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    axes = tuple(range(1, 1 + len(spans)))
    windows = np.lib.stride_tricks.sliding_window_view(values, spans, axis=axes)
    picks = [slice(None), *(slice(None, None, stride) for stride in strides), slice(None)]
    picks += [slice(None, None, dilation) for dilation in dilations]
    view: Array = windows[tuple(picks)]
    return view
