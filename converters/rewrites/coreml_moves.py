"""Moving values about, in forms coremltools has no function for: diagonals, windows, rolls, writes along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from edgekit.converters.rewrites.rewrite import Rewrite

__all__ = ["REWRITES"]


def _roll_flat(values: torch.Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> torch.Tensor:
    """Without axes, the flat tensor is rolled."""
    del dims
    return torch.roll(values.reshape(-1), tuple(shifts), (0,)).reshape(values.shape)


def _has_no_axes(node: torch.fx.Node) -> bool:
    return len(node.args) < len("xsd") or not node.args[2]


def _diagonal(values: torch.Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> torch.Tensor:
    """Picked from the last two axes, made flat."""
    moved = values.movedim((dim1, dim2), (-2, -1))
    rows, columns = (int(size) for size in moved.shape[-2:])
    row, column = max(0, -offset), max(0, offset)
    count = max(0, min(rows - row, columns - column))
    places = (torch.arange(count) + row) * columns + torch.arange(count) + column
    return moved.reshape(*moved.shape[:-2], rows * columns).index_select(-1, places)


def _diag(values: torch.Tensor, diagonal: int = 0) -> torch.Tensor:
    return _diagonal(values, diagonal)


def _is_matrix(node: torch.fx.Node) -> bool:
    source: Any = node.args[0]
    return bool(source.meta["val"].dim() == len("rc"))


def _strided(values: torch.Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None) -> torch.Tensor:
    """Values picked from the flat tensor."""
    places = torch.full((), storage_offset or 0, dtype=torch.int64)
    for axis, (length, step) in enumerate(zip(size, stride, strict=True)):
        places = places + (torch.arange(length) * step).reshape((-1, *(1 for _ in size[axis + 1 :])))
    return values.reshape(-1).index_select(0, places.reshape(-1)).reshape(tuple(size))


def _is_contiguous(node: torch.fx.Node) -> bool:
    source: Any = node.args[0]
    return bool(source.meta["val"].is_contiguous())


def _windows(values: torch.Tensor, dimension: int, size: int, step: int) -> torch.Tensor:
    """``[.., L, ..]`` to ``[.., windows, .., size]``."""
    axis = dimension % max(1, values.dim())
    count = (int(values.shape[axis]) - size) // step + 1
    places = (torch.arange(count)[:, None] * step + torch.arange(size)[None]).reshape(-1)
    picked = values.index_select(axis, places)
    shape = (*values.shape[:axis], count, size, *values.shape[axis + 1 :])
    return picked.reshape(shape).movedim(axis + 1, -1)


def _fold(
    values: torch.Tensor,
    output_size: Sequence[int],
    kernel: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> torch.Tensor:
    """Adding overlapping windows up is a transposed convolution with one 1 in each kernel."""
    places = kernel[0] * kernel[1]
    channels = int(values.shape[1]) // places
    sizes = zip(output_size, kernel, dilation, padding, stride, strict=True)
    rows, columns = ((length + 2 * p - d * (k - 1) - 1) // s + 1 for length, k, d, p, s in sizes)
    weight = torch.eye(places).reshape(places, 1, *kernel).repeat(channels, 1, 1, 1)
    windows = values.reshape(values.shape[0], channels * places, rows, columns)
    whole = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip((rows, columns), stride, dilation, kernel, strict=True)]
    added = functional.conv_transpose2d(windows, weight, stride=tuple(stride), groups=channels, dilation=tuple(dilation))
    short = [max(0, p + length - w) for w, p, length in zip(whole, padding, output_size, strict=True)]
    added = functional.pad(added, (0, short[1], 0, short[0])) if any(short) else added
    return added.narrow(2, padding[0], output_size[0]).narrow(3, padding[1], output_size[1])


def _overlaps(node: torch.fx.Node) -> bool:
    kernel: Any = node.args[2]
    stride: Any = node.args[5]
    source: Any = node.args[0]
    return any(s < k for s, k in zip(stride, kernel, strict=True)) and source.meta["val"].dim() == len("NCL")


def _along(index: torch.Tensor, axis: int, shape: Sequence[int]) -> torch.Tensor:
    """The index of whole slices as one index for each value of the slices."""
    places = [1] * len(shape)
    places[axis] = int(index.numel())
    return index.reshape(places).expand(tuple(shape))


def _index_add(values: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor, *, alpha: float = 1) -> torch.Tensor:
    source = source if alpha == 1 else source * alpha
    return values.scatter_add(dim, _along(index, dim % values.dim(), source.shape), source)


def _index_copy(values: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    return values.scatter(dim, _along(index, dim % values.dim(), source.shape), source)


def _index_fill(values: torch.Tensor, dim: int, index: torch.Tensor, value: float) -> torch.Tensor:
    shape = list(values.shape)
    shape[dim] = int(index.numel())
    return values.scatter(dim, _along(index, dim % values.dim(), shape), torch.full(shape, value, dtype=values.dtype))


def _affine_grid(theta: torch.Tensor, size: Sequence[int], align_corners: bool) -> torch.Tensor:
    """Positions of the output's pixels, moved by ``theta [N, 2, 3]``."""
    height, width = int(size[2]), int(size[3])
    share = [1.0 if align_corners else (length - 1) / length for length in (width, height)]
    across, down = (
        torch.linspace(-reach, reach, length) if length > 1 else torch.zeros(1)
        for reach, length in zip(share, (width, height), strict=True)
    )
    base = torch.stack(
        [across[None, :].expand(height, width), down[:, None].expand(height, width), torch.ones(height, width)], -1
    )
    grid = torch.matmul(base.reshape(1, height * width, 3), theta.transpose(1, 2))
    return grid.reshape(theta.shape[0], height, width, 2)


def _is_plane(node: torch.fx.Node) -> bool:
    size: Any = node.args[1]
    return len(size) == len("NCHW")


def _stack(values: Sequence[torch.Tensor], dim: int = 0) -> torch.Tensor:
    """A concatenation, which coremltools brings to one type."""
    return torch.cat([value.unsqueeze(dim) for value in values], dim)


def _holds_integers(node: torch.fx.Node) -> bool:
    return not node.meta["val"].is_floating_point()


_MISSING = "coremltools 9 has no function for it"

REWRITES = (
    Rewrite(
        name="roll-of-flat-tensor",
        targets=("coreml",),
        because="coremltools 9 refuses roll without axes",
        operators=("aten.roll.default",),
        build=_roll_flat,
        applies=_has_no_axes,
    ),
    Rewrite(
        name="diagonal-to-index",
        targets=("coreml",),
        because="coremltools 9 knows the main diagonal of the first two axes only",
        operators=("aten.diagonal.default", "aten.diagonal_copy.default"),
        build=_diagonal,
    ),
    Rewrite(
        name="diag-to-index",
        targets=("coreml",),
        because="coremltools 9 makes a matrix of a matrix's diagonal, without a word",
        operators=("aten.diag.default",),
        build=_diag,
        applies=_is_matrix,
    ),
    Rewrite(
        name="strides-to-index",
        targets=("coreml",),
        because=f"aten.as_strided: {_MISSING}",
        operators=("aten.as_strided.default", "aten.as_strided_copy.default"),
        build=_strided,
        applies=_is_contiguous,
    ),
    Rewrite(
        name="sliding-windows-to-index",
        targets=("coreml",),
        because=f"aten.unfold: {_MISSING}",
        operators=("aten.unfold.default", "aten.unfold_copy.default"),
        build=_windows,
    ),
    Rewrite(
        name="fold-to-transposed-convolution",
        targets=("coreml",),
        because="coremltools 9 refuses fold where windows overlap",
        operators=("aten.col2im.default", "aten.im2col_backward.default"),
        build=_fold,
        applies=_overlaps,
    ),
    Rewrite(
        name="index-add-to-scatter",
        targets=("coreml",),
        because=f"aten.index_add: {_MISSING}",
        operators=("aten.index_add.default",),
        build=_index_add,
    ),
    Rewrite(
        name="index-copy-to-scatter",
        targets=("coreml",),
        because=f"aten.index_copy: {_MISSING}",
        operators=("aten.index_copy.default",),
        build=_index_copy,
    ),
    Rewrite(
        name="index-fill-to-scatter",
        targets=("coreml",),
        because=f"aten.index_fill: {_MISSING}",
        operators=("aten.index_fill.int_Scalar",),
        build=_index_fill,
    ),
    Rewrite(
        name="affine-grid-to-matmul",
        targets=("coreml",),
        because="coremltools 9 takes affine_grid only where grid_sample alone reads it, from traced programs",
        operators=("aten.affine_grid_generator.default",),
        build=_affine_grid,
        applies=_is_plane,
    ),
    Rewrite(
        name="stack-of-integers-to-concatenation",
        targets=("coreml",),
        because="coremltools 9 refuses to stack integers it holds as different types, like quotient and rest of indices",
        operators=("aten.stack.default",),
        build=_stack,
        applies=_holds_integers,
    ),
)
