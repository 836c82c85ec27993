"""Padding, pooling and normalization in forms that coremltools has no function for, or computes wrongly."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from edgekit.converters.rewrites.pooling import _windows as windows
from edgekit.converters.rewrites.rewrite import Rewrite

__all__ = ["REWRITES"]


def _pad_or_cut(values: torch.Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> torch.Tensor:
    """Negative padding cuts; the pairs in ``pad`` begin with the last axis."""
    for position, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        axis = values.dim() - 1 - position
        length = values.shape[axis] - max(0, -before) - max(0, -after)
        if length != values.shape[axis]:
            values = values.narrow(axis, max(0, -before), length)
    rest = [max(0, amount) for amount in pad]
    return functional.pad(values, rest, mode, value) if any(rest) else values


def _cuts(node: torch.fx.Node) -> bool:
    amounts: Any = node.args[1]
    return any(amount < 0 for amount in amounts)


def _pad_around(values: torch.Tensor, pad: Sequence[int], mode: str = "circular", value: float | None = None) -> torch.Tensor:
    """Circular padding: the end of an axis before its beginning, and the other way round."""
    del mode, value
    for position, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        axis = values.dim() - 1 - position
        length = values.shape[axis]
        parts = [values.narrow(axis, length - before, before)] if before else []
        parts += [values, *([values.narrow(axis, 0, after)] if after else [])]
        values = torch.cat(parts, axis) if len(parts) > 1 else values
    return values


def _is_circular(node: torch.fx.Node) -> bool:
    return "circular" in node.args


def _max_pool_dilated(
    values: torch.Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> torch.Tensor:
    """The largest of the values that each place of the window sees."""
    del ceil_mode
    count = values.dim() - 2
    kernel, padding, dilation = (_spread(sizes, count) for sizes in (kernel, padding, dilation))
    stride = _spread(stride, count) if stride else kernel
    flat = [amount for size in reversed(padding) for amount in (size, size)]
    padded = functional.pad(values, flat, value=-math.inf) if any(flat) else values
    sizes = padded.shape[2:]
    lengths = [(size - d * (k - 1) - 1) // s + 1 for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True)]
    largest = None
    for place in itertools.product(*(range(size) for size in kernel)):
        seen = padded
        for axis, (at, length, s, d) in enumerate(zip(place, lengths, stride, dilation, strict=True), start=2):
            seen = torch.ops.aten.slice.Tensor(seen, axis, at * d, at * d + (length - 1) * s + 1, s)
        largest = seen if largest is None else torch.maximum(largest, seen)
    return values if largest is None else largest


def _spread(sizes: Sequence[int], count: int) -> list[int]:
    return list(sizes) * count if len(sizes) == 1 else list(sizes)


def _is_dilated(node: torch.fx.Node) -> bool:
    """Whether the window is dilated; a size rounded up would need windows that hang over the edge."""
    arguments = list(node.args)
    dilation: Any = arguments[4] if len(arguments) > len("xksp") else (1,)
    ceil_mode = len(arguments) > len("xkspd") and arguments[5]
    return any(step > 1 for step in dilation) and not ceil_mode


def _average_of(values: torch.Tensor, kernel: Sequence[int], *rest: Any) -> torch.Tensor:
    """Mean of each window, scaled to the divisor that is wanted."""
    stride, padding = (rest[0] or kernel) if rest else kernel, rest[1] if len(rest) > 1 else (0,)
    mean = functional.avg_pool2d(values, tuple(kernel), tuple(stride), tuple(padding))
    factor: float = math.prod(_spread(kernel, 2)) / rest[-1]
    return mean * factor


def _has_divisor(node: torch.fx.Node) -> bool:
    return len(node.args) > len("xkspci") and node.args[6] is not None and not node.args[4]


def _adaptive_average_3d(values: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    for axis, count in zip(range(values.dim() - 3, values.dim()), size, strict=True):
        bounds = windows(int(values.shape[axis]), count)
        values = torch.cat([values.narrow(axis, first, last - first).mean(axis, keepdim=True) for first, last in bounds], axis)
    return values


def _adaptive_max_3d(values: torch.Tensor, size: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    for axis, count in zip(range(values.dim() - 3, values.dim()), size, strict=True):
        bounds = windows(int(values.shape[axis]), count)
        values = torch.cat([values.narrow(axis, first, last - first).amax(axis, keepdim=True) for first, last in bounds], axis)
    return values, torch.zeros_like(values, dtype=torch.int64)


def _only_values_are_read(node: torch.fx.Node) -> bool:
    return all(user.args[1] == 0 for user in node.users)


def _normalize_by_statistics(
    values: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor,
    variance: torch.Tensor,
    use_input_stats: bool,
    momentum: float,
    epsilon: float,
    cudnn: bool,
) -> torch.Tensor:
    del use_input_stats, cudnn
    return functional.batch_norm(values, mean, variance, weight, bias, False, momentum, epsilon)


def _uses_statistics(node: torch.fx.Node) -> bool:
    return node.args[5] is False and node.args[3] is not None


def _group_norm(
    values: torch.Tensor,
    groups: int,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    epsilon: float = 1e-5,
    cudnn: bool = True,
) -> torch.Tensor:
    """Over a flat view of each group, so that no tensor has more axes than the input."""
    del cudnn
    flat = values.reshape(values.shape[0], groups, -1)
    flat = functional.layer_norm(flat, (int(flat.shape[-1]),), eps=epsilon)
    normalized = flat.reshape(values.shape)
    shape = (1, -1, *(1 for _ in values.shape[2:]))
    normalized = normalized if weight is None else normalized * weight.reshape(shape)
    return normalized if bias is None else normalized + bias.reshape(shape)


def _has_five_axes(node: torch.fx.Node) -> bool:
    return bool(node.meta["val"].dim() >= len("NCDHW"))


REWRITES = (
    Rewrite(
        name="negative-pad-to-slice",
        targets=("coreml",),
        because="coremltools 9 refuses negative padding",
        operators=("aten.pad.default", "aten.constant_pad_nd.default"),
        build=_pad_or_cut,
        applies=_cuts,
    ),
    Rewrite(
        name="circular-pad-to-concatenation",
        targets=("coreml",),
        because="MIL has no circular padding",
        operators=("aten.pad.default",),
        build=_pad_around,
        applies=_is_circular,
    ),
    Rewrite(
        name="dilated-max-pool-to-slices",
        targets=("coreml",),
        because="MIL's max_pool has no dilation",
        operators=("aten.max_pool1d.default", "aten.max_pool2d.default", "aten.max_pool3d.default"),
        build=_max_pool_dilated,
        applies=_is_dilated,
    ),
    Rewrite(
        name="average-with-divisor",
        targets=("coreml",),
        because="coremltools 9 refuses divisor_override",
        operators=("aten.avg_pool2d.default",),
        build=_average_of,
        applies=_has_divisor,
    ),
    Rewrite(
        name="adaptive-average-3d-to-slices",
        targets=("coreml", "tflite"),
        because="coremltools 9 has no function for adaptive_avg_pool3d",
        operators=("aten.adaptive_avg_pool3d.default", "aten._adaptive_avg_pool3d.default"),
        build=_adaptive_average_3d,
    ),
    Rewrite(
        name="adaptive-max-3d-to-slices",
        targets=("coreml", "tflite"),
        because="coremltools 9 has no function for adaptive_max_pool3d",
        operators=("aten.adaptive_max_pool3d.default",),
        build=_adaptive_max_3d,
        applies=_only_values_are_read,
    ),
    Rewrite(
        name="instance-norm-by-its-statistics",
        targets=("coreml",),
        because="coremltools 9 overlooks use_input_stats=False and normalizes by the input instead, without a word",
        operators=("aten.instance_norm.default",),
        build=_normalize_by_statistics,
        applies=_uses_statistics,
    ),
    Rewrite(
        name="group-norm-of-five-axes",
        targets=("coreml",),
        because="coremltools 9 makes a tensor of six axes, one more than Core ML has",
        operators=("aten.group_norm.default",),
        build=_group_norm,
        applies=_has_five_axes,
    ),
)
