"""Resizing by a product with a fixed matrix along each axis: exact for every mode that weighs neighbours.

A resize is linear and works on each axis alone, so what it does to an axis of ``L_in`` values is a matrix
``[L_out, L_in]``: found by resizing the unit vectors with torch itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from edgekit.converters.rewrites.rewrite import Rewrite

__all__ = ["REWRITES"]

_LARGEST = 1 << 22
"""Numbers in one matrix: 2048 pixels to 2048."""


def _resizer(name: str) -> Any:
    """``build`` of a rewrite for one operator of torch."""

    def resize(values: torch.Tensor, *arguments: Any) -> torch.Tensor:
        operator = getattr(torch.ops.aten, name)
        before = [int(size) for size in values.shape[2:]]
        after = [int(size) for size in operator(torch.empty(values.shape, device="meta"), *arguments).shape[2:]]
        for axis, (length, wanted) in enumerate(zip(before, after, strict=True)):
            if length == wanted and not _shifts(arguments):
                continue
            matrix = _matrix(operator, arguments, before, axis)
            moved = values.movedim(axis + 2, -1)
            values = torch.matmul(moved, matrix.t().contiguous()).movedim(-1, axis + 2)
        return values

    return resize


def _shifts(arguments: Sequence[Any]) -> bool:
    """Whether a scale factor is given: even where the size stays, the positions then may not."""
    return any(isinstance(argument, list | tuple) and any(isinstance(x, float) for x in argument) for argument in arguments)


def _matrix(operator: Any, arguments: Sequence[Any], sizes: Sequence[int], axis: int) -> torch.Tensor:
    """What the resize does to one axis, ``[L_out, L_in]``; the other axes are constant, and stay so."""
    length = sizes[axis]
    shape = [length, 1, *(1 for _ in sizes)]
    shape[axis + 2] = length
    units = torch.eye(length).reshape(shape).expand(length, 1, *sizes)
    resized = operator(units.contiguous(), *arguments)[:, 0]
    for other in reversed(range(len(sizes))):
        resized = resized if other == axis else resized.select(other + 1, 0)
    matrix: torch.Tensor = resized.t()
    return matrix


def _fits(node: torch.fx.Node) -> bool:
    source: Any = node.args[0]
    before, after = source.meta["val"].shape[2:], node.meta["val"].shape[2:]
    return all(int(a) * int(b) <= _LARGEST for a, b in zip(before, after, strict=True))


def _is_fractional(node: torch.fx.Node) -> bool:
    """Whether a scale factor without a size is given that coremltools does not take."""
    factors: Any = node.args[-1]
    return _fits(node) and isinstance(factors, list | tuple) and any(float(f) != int(f) for f in factors)


REWRITES = (
    *(
        Rewrite(
            name=f"{words}-resize-to-matrices",
            targets=("coreml",),
            because=because,
            operators=(f"aten.{name}.vec", f"aten.{name}.default"),
            build=_resizer(name),
            applies=_fits,
        )
        for words, name, because in (
            ("bicubic", "upsample_bicubic2d", "coremltools 9 has no function for it"),
            ("trilinear", "upsample_trilinear3d", "coremltools 9 has no function for it"),
            ("antialiased-bilinear", "_upsample_bilinear2d_aa", "coremltools 9 resizes without antialiasing, without a word"),
            ("antialiased-bicubic", "_upsample_bicubic2d_aa", "coremltools 9 has no function for it"),
        )
    ),
    Rewrite(
        name="fractional-bilinear-resize-to-matrices",
        targets=("coreml",),
        because="coremltools 9 refuses scale factors that are no whole numbers",
        operators=("aten.upsample_bilinear2d.vec",),
        build=_resizer("upsample_bilinear2d"),
        applies=_is_fractional,
    ),
)
