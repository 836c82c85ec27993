"""Pooling."""

from __future__ import annotations

import functools
import operator as python_operator
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812

from edgekit.converters.sources.onnx.call import Call
from edgekit.converters.sources.onnx.operators.table import operator
from edgekit.converters.sources.onnx.operators.windows import Windows, pad_space, windows_of

__all__ = ["average"]

_MAXIMA: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGES: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_CONVOLUTIONS: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def _windows(call: Call) -> Windows:
    sizes = call.shape(0)[2:]
    if len(sizes) not in _MAXIMA:
        raise call.unsupported(f"slides over {len(sizes)} axes; torch has it for 1 to 3", "Write it as several of fewer axes.")
    return windows_of(call, sizes, call.sizes("kernel_shape"))


@operator("MaxPool")
def max_pool(call: Call) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """Largest of each window; the second output says where it stands in the whole tensor."""
    windows, kept = _windows(call), call.dtype(0)
    values = call.tensor(0)
    if not kept.is_floating_point:
        values = values.to(torch.float32)
    apply, rank = _MAXIMA[len(windows.kernel)], len(windows.kernel)
    direct = windows.symmetric and all(2 * pad <= size for pad, size in zip(windows.before, windows.kernel, strict=True))
    pads = windows.before if direct else (0,) * rank
    if not direct:
        values = pad_space(values, windows.before, windows.reach, float("-inf"))
    if not call.wants(1):
        return _as(apply(values, windows.kernel, windows.strides, pads, windows.dilations), kept)
    largest, where = apply(values, windows.kernel, windows.strides, pads, windows.dilations, return_indices=True)
    padded = call.shape(0)[2:] if direct else tuple(int(size) for size in values.shape[2:])
    return _as(largest, kept), _whole_positions(call, where, padded, (0,) * rank if direct else windows.before)


def _as(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return values if values.dtype == dtype else values.to(dtype)


def _whole_positions(call: Call, where: torch.Tensor, padded: tuple[int, ...], before: tuple[int, ...]) -> torch.Tensor:
    """Positions in a padded plane as positions in the whole tensor."""
    batch, channels, *sizes = call.shape(0)
    coordinates = []
    for size, pad in zip(reversed(padded), reversed(before), strict=True):
        coordinates.append(where % size - pad)
        where = torch.div(where, size, rounding_mode="floor")
    if call.attribute("storage_order", 0):  # column-major: the first axis varies fastest
        coordinates.reverse()
        sizes.reverse()
    strides = [functools.reduce(python_operator.mul, sizes[len(sizes) - at :], 1) for at in range(len(sizes))]
    plane = functools.reduce(torch.add, (position * stride for position, stride in zip(coordinates, strides, strict=True)))
    count = functools.reduce(python_operator.mul, sizes, 1)
    first = torch.arange(batch * channels).reshape(batch, channels, *[1] * len(sizes)) * count
    return plane + first


@operator("AveragePool")
def average_pool(call: Call) -> torch.Tensor:
    """Mean of each window, pads counted or not."""
    return average(call, call.tensor(0), _windows(call))


def average(call: Call, values: torch.Tensor, windows: Windows) -> torch.Tensor:
    """Mean of each window of ``values`` ``[N, C, …]``."""
    counted, rank = bool(call.attribute("count_include_pad", 0)), len(windows.kernel)
    fits = all(2 * pad <= size for pad, size in zip(windows.before, windows.kernel, strict=True))
    if windows.symmetric and fits and set(windows.dilations) == {1}:
        result: torch.Tensor = _AVERAGES[rank](
            values, windows.kernel, windows.strides, windows.before, ceil_mode=False, count_include_pad=counted
        )
        return result
    share = call.computed("share", lambda: 1.0 / _counts(windows, [int(size) for size in values.shape[2:]], counted))
    return _sums(values, windows) * share.to(values.dtype)


def _sums(values: torch.Tensor, windows: Windows) -> torch.Tensor:
    """Sum of each window."""
    rank = len(windows.kernel)
    values = pad_space(values, windows.before, windows.reach)
    if set(windows.dilations) == {1}:
        size = functools.reduce(python_operator.mul, windows.kernel, 1)
        total: torch.Tensor = _AVERAGES[rank](values, windows.kernel, windows.strides) * size
        return total
    channels = int(values.shape[1])
    ones = torch.ones((channels, 1, *windows.kernel), dtype=values.dtype)
    summed: torch.Tensor = _CONVOLUTIONS[rank](values, ones, None, windows.strides, 0, windows.dilations, channels)
    return summed


def _counts(windows: Windows, sizes: list[int], counted: bool) -> torch.Tensor:
    """How many elements each window's mean is over."""
    total = torch.ones(())
    for at, size in enumerate(sizes):
        low, high = (-windows.before[at], size + windows.after[at]) if counted else (0, size)
        starts = torch.arange(windows.counts[at])[:, None] * windows.strides[at] - windows.before[at]
        taps = starts + torch.arange(windows.kernel[at])[None, :] * windows.dilations[at]
        total = total.unsqueeze(-1) * ((taps >= low) & (taps < high)).sum(1)
    return total.to(torch.float32)


@operator("LpPool")
def lp_pool(call: Call) -> torch.Tensor:
    """``(sum |x|^p)^(1/p)`` of each window."""
    power = call.attribute("p", 2)
    sums = _sums(call.tensor(0).abs().pow(power), _windows(call))
    return sums.pow(1.0 / power)


@operator("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(call: Call) -> torch.Tensor:
    """One number of each channel; the axes of space stay, of size 1."""
    values, rank = call.tensor(0), len(call.shape(0))
    axes = list(range(2, rank))
    if call.operator == "GlobalMaxPool":
        return torch.amax(values, axes, keepdim=True)
    if call.operator == "GlobalLpPool":
        power = call.attribute("p", 2)
        return values.abs().pow(power).sum(axes, keepdim=True).pow(1.0 / power)
    return F.adaptive_avg_pool2d(values, 1) if rank == 4 else values.mean(axes, keepdim=True)


@operator("MaxUnpool")
def max_unpool(call: Call) -> torch.Tensor:
    """Values put back where a pooling took them from; zero elsewhere."""
    sizes = call.shape(0)
    if call.has(2):
        shape = call.ints(2)
    else:
        kernel = call.sizes("kernel_shape")
        strides, pads = (
            call.sizes("strides", (1,) * len(kernel)),
            call.sizes("pads", (0,) * (2 * len(kernel))),
        )
        space = [
            (size - 1) * stride + length - pads[at] - pads[at + len(kernel)]
            for at, (size, stride, length) in enumerate(zip(sizes[2:], strides, kernel, strict=True))
        ]
        shape = (*sizes[:2], *space)
    where, values = call.tensor(1).to(torch.int64).reshape(-1), call.tensor(0).reshape(-1)
    if call.has(2):  # positions are those of the smallest picture the pooling can have come from
        return _into_larger(call, where, values, tuple(shape))
    flat = torch.zeros(functools.reduce(python_operator.mul, shape, 1), dtype=values.dtype)
    return torch.scatter(flat, 0, where, values).reshape(tuple(shape))


def _into_larger(call: Call, where: torch.Tensor, values: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    kernel = call.sizes("kernel_shape")
    strides = call.sizes("strides", (1,) * len(kernel))
    small = [*call.shape(0)[:2]]
    small += [(size - 1) * stride + length for size, stride, length in zip(call.shape(0)[2:], strides, kernel, strict=True)]
    flat = torch.zeros(functools.reduce(python_operator.mul, small, 1), dtype=values.dtype)
    made = torch.scatter(flat, 0, where, values).reshape(small)
    return pad_space(made, [0] * len(kernel), [large - less for large, less in zip(shape[2:], small[2:], strict=True)])
