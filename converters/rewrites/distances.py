"""Distances between two sets of points, where a target knows differences, powers and sums only."""

from __future__ import annotations

import torch

from edgekit.converters.rewrites.rewrite import Rewrite

__all__ = ["REWRITES"]


def _cdist(left: torch.Tensor, right: torch.Tensor, p: float = 2.0, compute_mode: int | None = None) -> torch.Tensor:
    """``[..., P, C]`` and ``[..., R, C]`` -> ``[..., P, R]``: the ``p``-norm of every difference.

    Differences are taken before squares: ``|a|² + |b|² - 2ab``, which torch uses for large sets, loses half of the digits.
    """
    del compute_mode
    apart = left.unsqueeze(-2) - right.unsqueeze(-3)
    if p == 0:
        return (apart != 0).to(left.dtype).sum(-1)
    if p == 1:
        return apart.abs().sum(-1)
    if p == 2:
        return (apart * apart).sum(-1).sqrt()
    if p == float("inf"):
        return apart.abs().amax(-1)
    return apart.abs().pow(p).sum(-1).pow(1.0 / p)


REWRITES = (
    Rewrite(
        name="cdist-to-differences",
        targets=("onnx", "coreml"),
        because="torch.onnx (torch 2.13) and coremltools 9 have no pairwise distance",
        operators=("aten.cdist.default",),
        build=_cdist,
    ),
)
