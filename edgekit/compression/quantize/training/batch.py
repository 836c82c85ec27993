"""Let a graph that was traced for one batch size take any: training on one sample a step would take days.

A traced graph holds the batch in the shapes given to reshape and its kin. Here the first of them becomes "whatever is left";
whether that gave the same function is then tried out on data, not assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

__all__ = ["call_in_batches", "free_batch"]

_RESHAPES = {"aten.view.default", "aten.reshape.default", "aten._unsafe_view.default"}
_EXPANDS = {"aten.expand.default"}
_TRIED_BATCHES = 3


def free_batch(module: GraphModule, arguments: Sequence[torch.Tensor], *, batch_size: int) -> bool:
    """Rewrite ``module`` to take any batch size, and say whether it does.

    Args:
        module: Traced graph; changed in place only in ways that keep its function at ``batch_size``.
        arguments: Samples to try with, each ``[N, ...]`` with ``N`` a multiple of ``batch_size``.
        batch_size: What it was traced for.
    """
    for node in module.graph.nodes:
        if str(node.target) in _RESHAPES | _EXPANDS:
            _free_sizes(node, batch_size)
    module.recompile()
    tried = [argument[: _TRIED_BATCHES * batch_size] for argument in arguments]
    with torch.no_grad():
        expected = call_in_batches(module, tried, batch_size=batch_size)
        try:
            found = _flat(module(*tried))
        except (RuntimeError, IndexError, ValueError):  # a shape that still holds the batch
            return False
    return all(
        a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-3, atol=1e-4 * float(b.abs().max()))
        for a, b in zip(found, expected, strict=True)
    )


def call_in_batches(module: GraphModule, arguments: Sequence[torch.Tensor], *, batch_size: int) -> tuple[torch.Tensor, ...]:
    """Outputs ``[N, ...]`` of calls with ``batch_size`` samples each; a short last call is filled by repetition."""
    total = arguments[0].shape[0]
    parts = []
    for start in range(0, total, batch_size):
        rows = torch.arange(start, start + batch_size).clamp_max(total - 1)
        parts.append(_flat(module(*(argument[rows] for argument in arguments))))
    return tuple(torch.cat(outputs)[:total] for outputs in zip(*parts, strict=True))


def _flat(result: Any) -> tuple[torch.Tensor, ...]:
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def _free_sizes(node: Node, batch_size: int) -> None:
    """``view(x, [B, -1])`` -> ``view(x, [-1, 96])``: the traced shape gives every size but the first."""
    sizes: Any = node.args[1]
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or not value.ndim or not all(isinstance(size, int) for size in sizes):
        return
    if str(node.target) in _EXPANDS:
        if sizes[0] == batch_size:
            node.update_arg(1, [-1, *sizes[1:]])
        return
    if value.shape[0] % batch_size == 0:
        node.update_arg(1, [-1, *(int(size) for size in value.shape[1:])])
