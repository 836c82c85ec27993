"""Picking, placing and ordering values by index."""

from __future__ import annotations

import torch
from torch import Tensor

from edgekit.core.errors import UnsupportedOpError
from edgekit.runtimes.coreml.ops.table import Call, Kernel, register

__all__: list[str] = []

_MODES = {"update": False, "add": True}
_REDUCTIONS = {"mul": "prod", "max": "amax", "min": "amin"}


def _positive(indices: Tensor, size: int) -> Tensor:
    """Indices as int64, negative ones counted from the end (allowed up to iOS 16)."""
    wide = indices.long()
    return torch.where(wide < 0, wide + size, wide)


@register("gather")
def gather(call: Call) -> Kernel:
    """Slices of ``x`` along ``axis``: shape ``x[:axis] + indices[batch_dims:] + x[axis + 1:]``."""
    rank, batch = len(call.shape("x")), call.integer("batch_dims", 0)
    axis = call.integer("axis", 0) % rank
    if batch:
        return Kernel(lambda x, indices: _gather_batched(x, indices, axis, batch), "x", "indices")

    def run(x: Tensor, indices: Tensor) -> Tensor:
        picked = torch.index_select(x, axis, _positive(indices, x.shape[axis]).reshape(-1))
        return picked.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])

    return Kernel(run, "x", "indices")


def _gather_batched(x: Tensor, indices: Tensor, axis: int, batch: int) -> Tensor:
    lead = x.shape[:batch]
    flat_x, flat_indices = x.reshape(-1, *x.shape[batch:]), indices.reshape(-1, *indices.shape[batch:])
    inner = axis - batch
    rows = [
        torch.index_select(row, inner, _positive(index, row.shape[inner]).reshape(-1)).reshape(
            row.shape[:inner] + index.shape + row.shape[inner + 1 :]
        )
        for row, index in zip(flat_x, flat_indices, strict=True)
    ]
    joined = torch.stack(rows)
    return joined.reshape(lead + joined.shape[1:])


@register("gather_along_axis")
def gather_along_axis(call: Call) -> Kernel:
    """The value at ``indices`` along ``axis``, position by position."""
    axis = call.integer("axis", 0)
    return Kernel(lambda x, indices: torch.take_along_dim(x, _positive(indices, x.shape[axis]), axis), "x", "indices")


@register("gather_nd")
def gather_nd(call: Call) -> Kernel:
    """Slices of ``x`` at the coordinates in the last axis of ``indices``."""
    if call.integer("batch_dims", 0):
        raise UnsupportedOpError(f"{call}: batch_dims is not supported by the Core ML reference executor.")
    return Kernel(lambda x, indices: x[_coordinates(x, indices)], "x", "indices")


def _coordinates(x: Tensor, indices: Tensor) -> tuple[Tensor, ...]:
    return tuple(_positive(column, x.shape[axis]) for axis, column in enumerate(indices.unbind(-1)))


def _mode(call: Call, axis_only: bool = False) -> str:
    mode = call.text("mode", "add")
    known = (*_MODES, *_REDUCTIONS) if axis_only else _MODES
    if mode not in known:
        raise UnsupportedOpError(f"{call}: mode '{mode}' has no reference kernel; supported: {', '.join(known)}.")
    return mode


@register("scatter_nd")
def scatter_nd(call: Call) -> Kernel:
    """A copy of ``data`` with ``updates`` put in, or added, at the coordinates in ``indices``."""
    accumulate = _MODES[_mode(call)]

    def run(data: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        return data.index_put(_coordinates(data, indices), updates, accumulate)

    return Kernel(run, "data", "indices", "updates")


@register("scatter_along_axis")
def scatter_along_axis(call: Call) -> Kernel:
    """A copy of ``data`` with ``updates`` put in, or combined with what is there, at ``indices`` along ``axis``."""
    mode, axis = _mode(call, axis_only=True), call.integer("axis", 0)

    def run(data: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        where = _positive(indices, data.shape[axis])
        if mode == "update":
            return data.scatter(axis, where, updates)
        return data.scatter_reduce(axis, where, updates, _REDUCTIONS.get(mode, "sum"))

    return Kernel(run, "data", "indices", "updates")


@register("scatter")
def scatter(call: Call) -> Kernel:
    """A copy of ``data`` with slices along ``axis`` replaced by, or combined with, ``updates``."""
    mode, axis = _mode(call, axis_only=True), call.integer("axis", 0)

    def run(data: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        where = _positive(indices, data.shape[axis]).reshape(-1)
        if mode in _MODES:
            return data.index_add(axis, where, updates) if _MODES[mode] else data.index_copy(axis, where, updates)
        return data.index_reduce(axis, where, updates, _REDUCTIONS[mode])

    return Kernel(run, "data", "indices", "updates")


@register("topk")
def topk(call: Call) -> Kernel:
    """The largest (or smallest) ``k`` values along ``axis`` and their indices, equal values in their own order."""
    axis, ascending, count = call.integer("axis", -1), call.flag("ascending"), len(call.outputs)
    k = call.integer("k", 1)
    k = call.shape("x")[axis] if k < 0 else k

    def run(x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        values, indices = torch.sort(x, dim=axis, descending=not ascending, stable=True)
        values = values.narrow(axis, 0, k)
        return values if count == 1 else (values, indices.narrow(axis, 0, k).to(torch.int32))

    return Kernel(run, "x")


@register("argsort")
def argsort(call: Call) -> Kernel:
    """Indices that sort ``x`` along ``axis``, largest first unless ``ascending``."""
    axis, ascending = call.integer("axis", -1), call.flag("ascending")
    return Kernel(lambda x: torch.argsort(x, dim=axis, descending=not ascending, stable=True).to(torch.int32), "x")


@register("non_zero")
def non_zero(call: Call) -> Kernel:  # noqa: ARG001
    """Coordinates of the values that are not zero, ``[count, rank]``."""
    return Kernel(lambda x: torch.nonzero(x).to(torch.int32), "x")
