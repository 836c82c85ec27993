"""Adaptive pooling as windows that are cut out, where a target knows fixed windows only."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from edgekit.converters.rewrites.rewrite import Rewrite

__all__ = ["REWRITES"]


def _adaptive_max_pool2d(values: torch.Tensor, size: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Window ``i`` of ``n`` over ``L`` values reaches from ``floor(i L / n)`` to ``ceil((i + 1) L / n)``, as torch defines it."""
    height, width = (int(count) for count in values.shape[-2:])
    rows = [values[..., top:bottom, :].amax(-2) for top, bottom in _windows(height, size[0])]
    tall = torch.stack(rows, -2)
    columns = [tall[..., left:right].amax(-1) for left, right in _windows(width, size[1])]
    pooled = torch.stack(columns, -1)
    return pooled, torch.zeros_like(pooled, dtype=torch.int64)


def _adaptive_max_pool1d(values: torch.Tensor, size: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    parts = [values[..., left:right].amax(-1) for left, right in _windows(int(values.shape[-1]), size[0])]
    pooled = torch.stack(parts, -1)
    return pooled, torch.zeros_like(pooled, dtype=torch.int64)


def _is_uneven(node: torch.fx.Node) -> bool:
    """Windows of unequal size: equal ones are an ordinary pool."""
    before, after = node.args[0].meta["val"].shape[-1], node.meta["val"][0].shape[-1]  # type: ignore[union-attr]
    return bool(before % after) and _only_values_are_read(node)


def _windows(length: int, count: int) -> list[tuple[int, int]]:
    return [(index * length // count, -(-(index + 1) * length // count)) for index in range(count)]


def _only_values_are_read(node: torch.fx.Node) -> bool:
    return all(user.args[1] == 0 for user in node.users)


REWRITES = (
    Rewrite(
        name="adaptive-max-pool-to-slices",
        targets=("onnx", "tflite", "coreml"),
        because="torch.onnx, litert-torch 0.10 and coremltools 9 have no adaptive maximum",
        operators=("aten.adaptive_max_pool2d.default",),
        build=_adaptive_max_pool2d,
        applies=_only_values_are_read,
    ),
    Rewrite(
        name="adaptive-max-pool-1d-to-slices",
        targets=("tflite",),
        because="litert-torch 0.10 has no adaptive maximum",
        operators=("aten.adaptive_max_pool1d.default",),
        build=_adaptive_max_pool1d,
        applies=_is_uneven,
    ),
)
