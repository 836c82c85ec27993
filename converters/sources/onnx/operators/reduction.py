"""One number of many, along axes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from edgekit.converters.sources.onnx.call import Call
from edgekit.converters.sources.onnx.operators.table import operator

__all__: list[str] = []


@operator(
    "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp",
    "ReduceSumSquare",
)  # fmt: skip
def reduce(call: Call) -> torch.Tensor:
    """Along some axes or all; ``noop_with_empty_axes``: along none."""
    axes, keep, rank = call.listed("axes", 1), bool(call.attribute("keepdims", 1)), len(call.shape(0))
    values = call.tensor(0)
    if not axes:
        axes = () if call.attribute("noop_with_empty_axes", 0) else tuple(range(rank))
    if not axes:
        return _each(call.operator, values)
    if rank == 0:
        return _each(call.operator, values)
    return _reduced(call.operator, values, [axis % rank for axis in axes], keep)


def _each(name: str, values: torch.Tensor) -> torch.Tensor:
    """What a reduction along no axis does to each element."""
    if name in {"ReduceL1", "ReduceL2"}:
        return values.abs()
    if name == "ReduceSumSquare":
        return values * values
    return torch.log(values) if name == "ReduceLogSum" else values


def _reduced(name: str, values: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    if name in {"ReduceMax", "ReduceMin"}:
        return _extreme(name, values, axes, keep)
    if name == "ReduceMean":
        if values.dtype.is_floating_point:
            return values.mean(axes, keepdim=keep)
        return torch.div(values.sum(axes, keepdim=keep), _count(values, axes), rounding_mode="trunc").to(values.dtype)
    if name == "ReduceProd":
        for axis in sorted(axes, reverse=True):
            values = values.prod(axis, keepdim=keep)
        return values
    if name == "ReduceLogSumExp":
        return torch.logsumexp(values, axes, keepdim=keep)
    if name == "ReduceL1":
        values = values.abs()
    if name in {"ReduceL2", "ReduceSumSquare"}:
        values = values * values
    total = values.sum(axes, keepdim=keep).to(values.dtype)
    if name == "ReduceL2":
        return total.float().sqrt().to(total.dtype) if not total.dtype.is_floating_point else total.sqrt()
    return torch.log(total) if name == "ReduceLogSum" else total


def _extreme(name: str, values: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    if values.dtype == torch.bool:
        return _extreme(name, values.to(torch.uint8), axes, keep).to(torch.bool)
    if values.numel() == 0:  # of nothing: the smallest or the largest number there is
        limits = torch.finfo(values.dtype) if values.dtype.is_floating_point else torch.iinfo(values.dtype)
        infinite = values.dtype.is_floating_point
        worst = (float("-inf") if infinite else limits.min) if name == "ReduceMax" else (float("inf") if infinite else limits.max)
        sizes = [1 if at in axes else int(size) for at, size in enumerate(values.shape) if keep or at not in axes]
        return torch.full(sizes, worst, dtype=values.dtype)
    return torch.amax(values, axes, keepdim=keep) if name == "ReduceMax" else torch.amin(values, axes, keepdim=keep)


def _count(values: torch.Tensor, axes: Sequence[int]) -> int:
    count = 1
    for axis in axes:
        count *= int(values.shape[axis])
    return count


@operator("ArgMax", "ArgMin")
def position(call: Call) -> torch.Tensor:
    """Where the largest or smallest stands; of equals the first, or with ``select_last_index`` the last."""
    values, rank = call.tensor(0), len(call.shape(0))
    axis, keep = call.attribute("axis", 0) % rank, bool(call.attribute("keepdims", 1))
    find = torch.argmax if call.operator == "ArgMax" else torch.argmin
    if call.attribute("select_last_index", 0):
        return call.shape(0)[axis] - 1 - find(values.flip(axis), axis, keepdim=keep)
    return find(values, axis, keepdim=keep)


@operator("CumSum", "CumProd")
def running(call: Call) -> torch.Tensor:
    """Sums (or products) up to each element; ``exclusive`` leaves the element itself out, ``reverse`` starts at the end."""
    values, axis = call.tensor(0), int(call.scalar(1, 0))
    axis = axis % len(call.shape(0))
    product = call.operator == "CumProd"
    if call.attribute("reverse", 0):
        values = values.flip(axis)
    if call.attribute("exclusive", 0):
        length = call.shape(0)[axis]
        start = torch.full_like(values.narrow(axis, 0, 1), 1 if product else 0)
        values = torch.cat([start, values.narrow(axis, 0, length - 1)], axis)
    values = (torch.cumprod if product else torch.cumsum)(values, axis, dtype=values.dtype)
    return values.flip(axis) if call.attribute("reverse", 0) else values
