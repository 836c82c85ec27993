"""Resizing that LiteRT computes wrongly or not at all: nearest neighbours by index, smoothed resizing by matrices."""

from __future__ import annotations

from typing import Any

import torch

from edgekit.converters.rewrites.rewrite import Rewrite

__all__ = ["REWRITES"]


def _nearest(values: torch.Tensor, output_size: Any = None, *scales: Any) -> torch.Tensor:
    """Output place ``i`` reads input place ``floor(i * step)``, in float32 as torch computes it."""
    lengths = [int(length) for length in values.shape[2:]]
    given: Any = scales[0] if len(scales) == 1 and isinstance(scales[0], list | tuple) else scales
    factors: list[Any] = list(given) if any(given) else [None] * len(lengths)
    sizes = output_size or [int(length * factor) for length, factor in zip(lengths, factors, strict=True)]
    for axis, (length, size, factor) in enumerate(zip(lengths, sizes, factors, strict=True), start=2):
        if int(size) != length:
            values = values.index_select(axis, _places(length, int(size), factor))
    return values


def _places(length: int, size: int, factor: float | None) -> torch.Tensor:
    import numpy as np

    step = np.float32(1 / factor) if factor else np.float32(length) / np.float32(size)
    found = np.minimum(np.floor(np.arange(size, dtype=np.float32) * step).astype(np.int64), length - 1)
    return torch.from_numpy(found)


def _is_fractional(node: torch.fx.Node) -> bool:
    before: Any = node.args[0]
    sizes = zip(before.meta["val"].shape[2:], node.meta["val"].shape[2:], strict=True)
    return any(int(after) % int(before) for before, after in sizes)


def _smoothed(mode: str) -> Any:
    """Both axes are linear maps, so each is a matrix: what the operator makes of the unit matrix."""

    def build(values: torch.Tensor, output_size: Any, align_corners: bool, *scales: Any) -> torch.Tensor:
        lengths = [int(length) for length in values.shape[2:]]
        sizes = output_size or [int(length * factor) for length, factor in zip(lengths, scales[0], strict=True)]
        rows, columns = (_matrix(length, int(size), mode, align_corners) for length, size in zip(lengths, sizes, strict=True))
        return rows @ (values @ columns.T.contiguous())

    return build


def _matrix(length: int, size: int, mode: str, align_corners: bool) -> torch.Tensor:
    from torch.utils._python_dispatch import _disable_current_modes

    with _disable_current_modes():
        unit = torch.eye(length)[None, None]
        corners = align_corners or None
        made = torch.nn.functional.interpolate(unit, (size, length), mode=mode, antialias=True, align_corners=corners)
        return torch.from_numpy(made[0, 0].numpy().copy())


REWRITES = (
    Rewrite(
        name="fractional-nearest-to-index",
        targets=("tflite",),
        because="litert-torch 0.10 resizes by other neighbours than torch, without a word",
        operators=(
            "aten.upsample_nearest1d.vec",
            "aten.upsample_nearest2d.vec",
            "aten.upsample_nearest1d.default",
            "aten.upsample_nearest2d.default",
        ),
        build=_nearest,
        applies=_is_fractional,
    ),
    *(
        Rewrite(
            name=f"smoothed-{mode}-to-matrices",
            targets=("tflite",),
            because="litert-torch 0.10 has no antialiased resizing",
            operators=(f"aten._upsample_{mode}2d_aa.vec", f"aten._upsample_{mode}2d_aa.default"),
            build=_smoothed(mode),
        )
        for mode in ("bilinear", "bicubic")
    ),
)
