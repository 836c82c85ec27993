"""Convolutions of integers: sums exact, then the rule's rounding.

Data is ``[N, *spatial, C]``, weights ``[O, *kernel, C / groups]``, bias int32 on the grid ``s_in * s_w``.
All are steps from their zero point, so that padding with 0 stands for the real 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.runtimes.exact.products import matmul, patches

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["convolve", "convolve_transposed"]


def convolve(data: Array, weights: Array, bias: Array | None, options: Mapping[str, Any]) -> Array:
    """Sums of a convolution.

    Args:
        data: Steps from the zero point, ``[N, *spatial, C]``.
        weights: Steps from the zero point, ``[O, *kernel, C / groups]``.
        bias: ``[O]`` or None.
        options: ``strides``, ``dilations``, ``pads`` (low and high of each spatial axis), ``groups``.

    Returns:
        int64 ``[N, *outputs, O]``.
    """
    padded = np.pad(data, [(0, 0), *options["pads"], (0, 0)])
    kernel, groups = weights.shape[1:-1], int(options["groups"])
    windows = patches(padded, kernel=kernel, strides=options["strides"], dilations=options["dilations"])
    is_depthwise = groups == data.shape[-1] and weights.shape[-1] == 1
    sums = _depthwise(windows, weights, len(kernel)) if is_depthwise else _grouped(windows, weights, len(kernel), groups)
    return sums if bias is None else sums + bias.astype(np.int64)


def _grouped(windows: Array, weights: Array, rank: int, groups: int) -> Array:
    """``[N, *outputs, C, *kernel]`` with ``[O, *kernel, C / groups]``."""
    axes = (*range(1 + rank), *range(2 + rank, 2 + 2 * rank), 1 + rank)
    columns = windows.transpose(axes)  # [N, *outputs, *kernel, C]
    outputs, width = columns.shape[: 1 + rank], weights.shape[-1]
    made = weights.shape[0] // groups
    parts = []
    for group in range(groups):
        chosen = columns[..., group * width : (group + 1) * width].reshape(math.prod(outputs), -1)
        own = weights[group * made : (group + 1) * made].reshape(made, -1)
        parts.append(matmul(chosen, own.T).reshape(*outputs, made))
    return np.concatenate(parts, axis=-1)


def _depthwise(windows: Array, weights: Array, rank: int) -> Array:
    """One filter, or several, for each channel: outputs of one channel lie side by side."""
    channels = windows.shape[1 + rank]
    filters = weights.reshape(channels, weights.shape[0] // channels, -1)
    outputs = windows.shape[: 1 + rank]
    sums = np.zeros((*outputs, channels, filters.shape[1]), np.int64)
    for at, place in enumerate(np.ndindex(*weights.shape[1 : 1 + rank])):
        sums += windows[(..., *place)][..., None].astype(np.int64) * filters[:, :, at]
    return sums.reshape(*outputs, -1)


def convolve_transposed(data: Array, weights: Array, bias: Array | None, options: Mapping[str, Any]) -> Array:
    """Sums of a transposed convolution, ``[N, *outputs, O]``.

    Args:
        data: Steps from the zero point, ``[N, *spatial, C]``.
        weights: Steps from the zero point, ``[O, *kernel, C]``.
        bias: ``[O]`` or None.
        options: ``strides``, ``pads``, and ``sizes``, the spatial sizes of the result, or ``more``, what it has beyond the last
            product of each axis.
    """
    strides, kernel = options["strides"], weights.shape[1:-1]
    whole = [(size - 1) * stride + span for size, stride, span in zip(data.shape[1:-1], strides, kernel, strict=True)]
    sizes = options.get("sizes") or [
        size - low - high + more for size, (low, high), more in zip(whole, options["pads"], options["more"], strict=True)
    ]
    sums = np.zeros((data.shape[0], *whole, weights.shape[0]), np.int64)
    for place in np.ndindex(*kernel):
        spots = _spots(place, data.shape[1:-1], strides)
        sums[(slice(None), *spots)] += matmul(data, weights[(slice(None), *place)].T)
    picks = tuple(slice(low, low + size) for (low, _), size in zip(options["pads"], sizes, strict=True))
    short = [max(0, pick.stop - size) for pick, size in zip(picks, whole, strict=True)]
    sums = np.pad(sums, [(0, 0), *((0, amount) for amount in short), (0, 0)])[(slice(None), *picks)]
    return sums if bias is None else sums + bias.astype(np.int64)


def _spots(place: Sequence[int], sizes: Sequence[int], strides: Sequence[int]) -> list[slice]:
    """Where one weight's products fall."""
    return [slice(at, at + (size - 1) * stride + 1, stride) for at, size, stride in zip(place, sizes, strides, strict=True)]
