"""Picking, placing and ordering values by index."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from edgekit.core.errors import DataError, IntegrityError
from edgekit.runtimes.coreml.ops.table import Call, Kernel, register

__all__: list[str] = []


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
    """Slices of ``x`` at the coordinates in the last axis of ``indices``, for each position of the first ``batch_dims`` axes."""
    batch = call.integer("batch_dims", 0)
    if not batch:
        return Kernel(lambda x, indices: x[_coordinates(x, indices)], "x", "indices")

    def run(x: Tensor, indices: Tensor) -> Tensor:
        rows = zip(x.flatten(0, batch - 1), indices.flatten(0, batch - 1), strict=True)
        picked = torch.stack([row[_coordinates(row, where)] for row, where in rows])
        return picked.reshape(x.shape[:batch] + picked.shape[1:])

    return Kernel(run, "x", "indices")


def _coordinates(x: Tensor, indices: Tensor) -> tuple[Tensor, ...]:
    return tuple(_positive(column, x.shape[axis]) for axis, column in enumerate(indices.unbind(-1)))


def _checked(call: Call, indices: Tensor, sizes: Sequence[int]) -> Tensor:
    """Indices as given, or refused where the operation asks for that: from iOS 17 on negative ones are outside, too."""
    if call.flag("validate_indices"):
        limits = torch.tensor(sizes)
        if bool(((indices < 0) | (indices >= limits)).any()):
            raise DataError(f"{call}: indices must lie from 0 to {list(sizes)} (not included); found {indices.tolist()}.")
    return indices


@register("scatter_nd")
def scatter_nd(call: Call) -> Kernel:
    """A copy of ``data`` with ``updates`` put in, or combined with what is there, at the coordinates in ``indices``."""
    combine = _combination(call)

    def run(data: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        depth = indices.shape[-1]
        lead, rest = data.shape[:depth], data.shape[depth:]
        columns = _coordinates(data, _checked(call, indices, lead))
        where = torch.zeros_like(columns[0])
        for column, size in zip(columns, lead, strict=True):
            where = where * size + column
        flat = data.reshape(lead.numel(), -1)
        spread = where.reshape(-1, 1).expand(-1, flat.shape[1])
        return combine(flat, 0, spread, updates.reshape(spread.shape)).reshape(lead + rest)

    return Kernel(run, "data", "indices", "updates")


@register("scatter_along_axis")
def scatter_along_axis(call: Call) -> Kernel:
    """A copy of ``data`` with ``updates`` put in, or combined with what is there, at ``indices`` along ``axis``."""
    combine, axis = _combination(call), call.integer("axis", 0)

    def run(data: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        where = _positive(_checked(call, indices, data.shape[axis : axis + 1 or None]), data.shape[axis])
        return combine(data, axis, where, updates)

    return Kernel(run, "data", "indices", "updates")


@register("scatter")
def scatter(call: Call) -> Kernel:
    """A copy of ``data`` with slices along ``axis`` replaced by, or combined with, ``updates``; indices of any shape."""
    combine, axis = _combination(call), call.integer("axis", 0)

    def run(data: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        where = _positive(_checked(call, indices, data.shape[axis : axis + 1 or None]), data.shape[axis]).reshape(-1)
        place = axis % data.dim()
        rows = updates.reshape(*data.shape[:place], where.numel(), *data.shape[place + 1 :])
        shape = [1] * data.dim()
        shape[place] = -1
        return combine(data, place, where.reshape(shape).expand_as(rows), rows)

    return Kernel(run, "data", "indices", "updates")


_Combination = Callable[[Tensor, int, Tensor, Tensor], Tensor]
"""``data``, an axis, an index along it for each update, the updates -> the combined copy."""


def _divided(data: Tensor, axis: int, where: Tensor, updates: Tensor) -> Tensor:
    divisor = torch.ones_like(data).scatter_reduce(axis, where, updates, "prod")
    return torch.div(data, divisor, rounding_mode=None if data.is_floating_point() else "trunc")


_COMBINATIONS: dict[str, _Combination] = {
    "update": lambda data, axis, where, updates: data.scatter(axis, where, updates),
    "add": lambda data, axis, where, updates: data.scatter_add(axis, where, updates),
    "sub": lambda data, axis, where, updates: data.scatter_add(axis, where, -updates),
    "mul": lambda data, axis, where, updates: data.scatter_reduce(axis, where, updates, "prod"),
    "div": _divided,
    "max": lambda data, axis, where, updates: data.scatter_reduce(axis, where, updates, "amax"),
    "min": lambda data, axis, where, updates: data.scatter_reduce(axis, where, updates, "amin"),
}


def _combination(call: Call) -> _Combination:
    mode = call.text("mode", "add")
    if mode not in _COMBINATIONS:
        raise IntegrityError(f"{call}: unknown mode '{mode}'; known: {', '.join(_COMBINATIONS)}.")
    return _COMBINATIONS[mode]


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
