"""Writing at computed places as a comparison of places and a sum, where a target cannot write there.

A place is hit where an index equals it: ``hit[l, k] = index[k] == l``. What is written is then a product with that matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from edgekit.converters.rewrites.rewrite import Rewrite

__all__ = ["REWRITES"]

_BECAUSE = "litert-torch 0.10 writes STABLEHLO_SCATTER in a form that LiteRT 2.3 refuses, or computes wrongly"
_MOST_COMPARISONS = 1 << 26
"""Of indices with places; beyond that the file would need too much memory to run."""
_START = {"sum": 0.0, "mean": 0.0, "prod": 1.0, "amax": float(torch.finfo(torch.float32).min), "amin": 3.4e38}


def _hits(index: torch.Tensor, length: int) -> torch.Tensor:
    """Which place each index names: ``[..., K] -> [..., length, K]``; negative ones count from the end."""
    places = torch.arange(length, dtype=index.dtype)[:, None]
    wrapped = torch.where(index < 0, index + length, index)
    return wrapped[..., None, :] == places


def _index_add(values: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor, *, alpha: float = 1) -> torch.Tensor:
    moved, added = values.movedim(dim, 0), source.movedim(dim, 0)
    hit = _hits(index, int(moved.shape[0])).to(values.dtype)
    total = (hit @ added.reshape(added.shape[0], -1)).reshape(moved.shape)
    return (moved + (total if alpha == 1 else alpha * total)).movedim(0, dim)


def _index_copy(values: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    moved, put = values.movedim(dim, 0), source.movedim(dim, 0)
    hit = _hits(index, int(moved.shape[0]))
    written = (hit.to(values.dtype) @ put.reshape(put.shape[0], -1)).reshape(moved.shape)
    taken = hit.any(-1).reshape(-1, *[1] * (moved.ndim - 1))
    return torch.where(taken, written, moved).movedim(0, dim)


def _index_fill(values: torch.Tensor, dim: int, index: torch.Tensor, value: Any) -> torch.Tensor:
    taken = _hits(index, int(values.shape[dim])).any(-1)
    shape = [1] * values.ndim
    shape[dim] = -1
    filled = value if isinstance(value, torch.Tensor) else torch.full((), value, dtype=values.dtype)
    return torch.where(taken.reshape(shape), filled, values)


def _is_one_index(index: torch.Tensor, dim: int) -> bool:
    """Whether all rows have the same indices: an index expanded along every other axis."""
    sizes = zip(index.shape, index.stride(), strict=True)
    return all(size == 1 or stride == 0 for axis, (size, stride) in enumerate(sizes) if axis != dim % index.ndim)


def _scatter_add(values: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    if values.ndim and _is_one_index(index, dim) and _has_full_rows(values, index, dim):
        row = index
        for axis in range(index.ndim):
            row = row if axis == dim % index.ndim else row.narrow(axis, 0, 1)
        cut = source
        for axis, size in enumerate(index.shape):
            cut = cut.narrow(axis, 0, size)
        return _index_add(values, dim, row.reshape(-1), cut)
    return _scatter_reduce(values, dim, index, source, "sum")


def _has_full_rows(values: torch.Tensor, index: torch.Tensor, dim: int) -> bool:
    axes = [axis for axis in range(index.ndim) if axis != dim % index.ndim]
    return all(index.shape[axis] == values.shape[axis] for axis in axes)


def _with_rows(
    values: torch.Tensor, dim: int, index: torch.Tensor, write: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Change the part of ``values`` that has an index for its row; ``write(rows, hits)`` has the axis last."""
    part = values
    for axis in range(values.ndim):
        if axis != dim % values.ndim:
            part = part.narrow(axis, 0, int(index.shape[axis]))
    rows = part.movedim(dim, -1)
    made = write(rows, _hits(index.movedim(dim, -1), int(rows.shape[-1]))).movedim(-1, dim)
    for axis in range(values.ndim):
        rest = int(values.shape[axis]) - int(made.shape[axis])
        if rest:
            beside = values
            for other in range(values.ndim):
                size = int(made.shape[other])
                beside = beside.narrow(other, size, rest) if other == axis else beside.narrow(other, 0, size)
            made = torch.cat([made, beside], axis)
    return made


def _cut(source: torch.Tensor, index: torch.Tensor, dim: int) -> torch.Tensor:
    """The values that are written, the axis last, ``[..., 1, K]``."""
    for axis, size in enumerate(index.shape):
        source = source.narrow(axis, 0, int(size))
    return source.movedim(dim, -1)[..., None, :]


def _scatter_value(values: torch.Tensor, dim: int, index: torch.Tensor, value: Any) -> torch.Tensor:
    filled = value if isinstance(value, torch.Tensor) else torch.full((), value, dtype=values.dtype)
    return _with_rows(values, dim, index, lambda rows, hits: torch.where(hits.any(-1), filled, rows))


def _scatter_source(values: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Of several values for one place the last one stays, as in torch on one thread."""
    cut = _cut(source, index, dim)
    order = torch.arange(1, int(cut.shape[-1]) + 1, dtype=torch.float32)

    def write(rows: torch.Tensor, hits: torch.Tensor) -> torch.Tensor:
        ranks = hits.float() * order
        last = ranks.amax(-1, keepdim=True)
        chosen = (ranks == last) & hits
        return torch.where(hits.any(-1), torch.where(chosen, cut, torch.zeros((), dtype=cut.dtype)).sum(-1), rows)

    return _with_rows(values, dim, index, write)


def _scatter_reduce(
    values: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor, reduce: str, *, include_self: bool = True
) -> torch.Tensor:
    cut = _cut(source, index, dim)
    start = torch.full((), _START[reduce], dtype=values.dtype)

    def write(rows: torch.Tensor, hits: torch.Tensor) -> torch.Tensor:
        taken = torch.where(hits, cut, start)
        if reduce in {"amax", "amin"}:
            found = taken.amax(-1) if reduce == "amax" else taken.amin(-1)
            other = torch.maximum if reduce == "amax" else torch.minimum
            return torch.where(hits.any(-1), other(found, rows) if include_self else found, rows)
        if reduce == "prod":
            found = taken.prod(-1)
            return torch.where(hits.any(-1), found * rows if include_self else found, rows)
        total, count = taken.sum(-1), hits.to(values.dtype).sum(-1)
        total = total + rows if include_self else torch.where(count > 0, total, rows)
        if reduce == "sum":
            return total
        return total / (count + 1) if include_self else total / count.clamp(min=1)

    return _with_rows(values, dim, index, write)


def _fits(node: torch.fx.Node) -> bool:
    """Whether values are float, and comparisons are few enough."""
    values, index, dim = (_value(node.args[0]), _value(node.args[2]), node.args[1])
    if values is None or index is None or not values.is_floating_point() or not values.ndim:
        return False
    return int(index.numel()) * int(values.shape[int(dim)]) <= _MOST_COMPARISONS  # type: ignore[arg-type]


def _value(node: Any) -> torch.Tensor | None:
    value = node.meta.get("val") if isinstance(node, torch.fx.Node) else None
    return value if isinstance(value, torch.Tensor) else None


REWRITES = tuple(
    Rewrite(
        name=name,
        targets=("tflite",),
        because=_BECAUSE,
        operators=operators,
        build=build,
        applies=_fits,
    )
    for name, operators, build in (
        ("index-add-to-matmul", ("aten.index_add.default",), _index_add),
        ("index-copy-to-matmul", ("aten.index_copy.default",), _index_copy),
        ("index-fill-to-where", ("aten.index_fill.int_Scalar", "aten.index_fill.int_Tensor"), _index_fill),
        ("scatter-add-to-sums", ("aten.scatter_add.default",), _scatter_add),
        ("scatter-value-to-where", ("aten.scatter.value",), _scatter_value),
        ("scatter-to-where", ("aten.scatter.src",), _scatter_source),
        ("scatter-reduce-to-reductions", ("aten.scatter_reduce.two",), _scatter_reduce),
    )
)
