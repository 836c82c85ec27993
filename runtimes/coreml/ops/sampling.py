"""Sampling a picture at given positions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edgekit.core.errors import IntegrityError
from edgekit.runtimes.coreml.ops.table import Call, Kernel, register

__all__ = ["sample"]


@register("resample")
def resample(call: Call) -> Kernel:
    """``x [B, C, H, W]`` at ``coordinates [B, H_out, W_out, 2]``, given as (x, y).

    Raises:
        IntegrityError: A mode is unknown.
    """
    mode, unit = call.text("sampling_mode", "bilinear"), call.text("coordinates_mode", "unnormalized")
    border, aligned = call.text("padding_mode", "constant"), call.flag("align_corners")
    fill = call.number("padding_value", 0.0)
    if mode not in {"bilinear", "nearest"} or border not in _BORDERS or unit not in _UNITS:
        raise IntegrityError(f"{call}: unknown sampling, padding or coordinates mode ('{mode}', '{border}', '{unit}').")

    def run(x: Tensor, coordinates: Tensor) -> Tensor:
        columns, rows = coordinates.to(torch.float32).unbind(-1)
        height, width = x.shape[-2:]
        where = (_UNITS[unit](axis, size, aligned) for axis, size in ((rows, height), (columns, width)))
        return sample(x, *where, border=border, fill=fill, nearest=mode == "nearest")

    return Kernel(run, "x", "coordinates")


def sample(x: Tensor, rows: Tensor, columns: Tensor, *, border: str, fill: float, nearest: bool = False) -> Tensor:
    """Values of a picture between and beyond its pixels.

    Args:
        x: ``[B, C, H, W]``.
        rows: Fractional rows ``[B, *D]``; pixel centres are whole numbers.
        columns: Fractional columns ``[B, *D]``.
        border: What lies outside: ``"constant"``, ``"border"``, ``"reflection"`` or ``"symmetric"``.
        fill: Value outside for ``"constant"``.
        nearest: Take the nearest pixel (the even one of two) instead of weighting four; a position outside is mirrored or
            limited first, as coremltools' own tests have it.

    Returns:
        ``[B, C, *D]``.
    """
    if nearest:
        height, width = x.shape[-2:]
        places = (_folded(rows, height, border).round().long(), _folded(columns, width, border).round().long())
        return _pixels(x, *places, border, fill)
    top, left = rows.floor(), columns.floor()
    down, right = (rows - top).unsqueeze(1), (columns - left).unsqueeze(1)
    first_row, first_column = top.long(), left.long()
    upper, lower = (
        _pixels(x, row, first_column, border, fill) * (1 - right) + _pixels(x, row, first_column + 1, border, fill) * right
        for row in (first_row, first_row + 1)
    )
    return upper * (1 - down) + lower * down


def _pixels(x: Tensor, rows: Tensor, columns: Tensor, border: str, fill: float) -> Tensor:
    """Pixels at whole positions ``[B, *D]``, which may lie outside: ``[B, C, *D]``."""
    height, width = x.shape[-2:]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    fold = _BORDERS[border]
    flat = (fold(rows, height) * width + fold(columns, width)).flatten(1)
    picked = torch.gather(x.flatten(2), 2, flat.unsqueeze(1).expand(-1, x.shape[1], -1)).reshape(*x.shape[:2], *rows.shape[1:])
    return picked if border != "constant" else torch.where(inside.unsqueeze(1), picked, fill)


def _folded(at: Tensor, size: int, border: str) -> Tensor:
    """A fractional position brought inside as the border says; one in a constant border stays outside."""
    if border == "constant":
        return at
    if border == "symmetric":  # mirrored at the edges, half a pixel beyond the centres
        turned = torch.remainder(at + 0.5, 2 * size)
        at = torch.minimum(turned, 2 * size - turned) - 0.5
    elif border == "reflection":
        turned = torch.remainder(at, max(1, 2 * (size - 1)))
        at = torch.minimum(turned, 2 * (size - 1) - turned)
    return at.clamp(0, size - 1)


def _clamp(at: Tensor, size: int) -> Tensor:
    return at.clamp(0, size - 1)


def _reflect(at: Tensor, size: int) -> Tensor:
    """Mirrored at the centres of the outermost pixels: 1 0 | 0 1 2 stands beside itself as 2 1 | 0 1 2 | 1 0."""
    period = max(1, 2 * (size - 1))
    folded = torch.remainder(at, period)
    return torch.minimum(folded, period - folded).clamp(max=size - 1)


def _mirror(at: Tensor, size: int) -> Tensor:
    """Mirrored at the edges of the outermost pixels, which are repeated."""
    folded = torch.remainder(at, 2 * size)
    return torch.minimum(folded, 2 * size - 1 - folded)


_BORDERS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "constant": _clamp, "border": _clamp, "reflection": _reflect, "symmetric": _mirror,
}  # fmt: skip


def _unit_interval(share: Tensor, size: int, aligned: bool) -> Tensor:
    """0 and 1 are the centres of the corner pixels if aligned, else their outer edges."""
    return share * (size - 1) if aligned else share * size - 0.5


_UNITS: dict[str, Callable[[Tensor, int, bool], Tensor]] = {
    "unnormalized": lambda at, _size, _aligned: at,
    "normalized_zero_to_one": _unit_interval,
    "normalized_minus_one_to_one": lambda at, size, aligned: _unit_interval((at + 1) / 2, size, aligned),
}
"""Coordinates mode -> positions in pixels."""
