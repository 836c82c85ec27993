"""Bags of embeddings as look-ups and sums."""

from __future__ import annotations

import torch

from edgekit.converters.rewrites.rewrite import Rewrite

__all__ = ["REWRITES"]

_SUM, _MEAN, _MAXIMUM = 0, 1, 2
_LOWEST = float(torch.finfo(torch.float32).min)


def _embedding_bag(
    weight: torch.Tensor,
    indices: torch.Tensor,
    offsets: torch.Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = _SUM,
    sparse: bool = False,
    per_sample_weights: torch.Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = -1,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Bag ``b`` holds the places from ``offsets[b]`` to the next offset: a matrix of zeros and ones times the looked-up rows."""
    del scale_grad_by_freq, sparse
    if include_last_offset:
        offsets = offsets[:-1]
    places = torch.arange(int(indices.shape[0]), dtype=offsets.dtype)
    begun = (places >= offsets[:, None]).float().sum(0)  # how many bags have begun at each place: its bag's number plus one
    inside = begun == torch.arange(1, int(offsets.shape[0]) + 1, dtype=begun.dtype)[:, None]
    if padding_idx is not None and padding_idx >= 0:
        inside = inside & (indices != padding_idx)
    rows = torch.nn.functional.embedding(indices, weight)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights[:, None]
    member = inside.to(rows.dtype)
    if mode == _MAXIMUM:
        found = torch.where(inside[..., None], rows, torch.full((), _LOWEST, dtype=rows.dtype)).amax(1)
        bags = torch.where(inside.any(1)[:, None], found, torch.zeros((), dtype=rows.dtype))
    else:
        bags = member @ rows
        if mode == _MEAN:
            bags = bags / member.sum(1, keepdim=True).clamp(min=1)
    nothing = torch.zeros(0, dtype=indices.dtype)
    return bags, nothing, nothing, nothing


def _only_bags_are_read(node: torch.fx.Node) -> bool:
    return all(user.args[1] == 0 for user in node.users)


REWRITES = (
    Rewrite(
        name="embedding-bag-to-matmul",
        targets=("tflite", "coreml"),
        because="litert-torch 0.10 and coremltools 9 have no bags of embeddings",
        operators=("aten._embedding_bag.default", "aten.embedding_bag.padding_idx", "aten.embedding_bag.default"),
        build=_embedding_bag,
        applies=_only_bags_are_read,
    ),
)
