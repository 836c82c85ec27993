"""Operators of one int8 value as tables of 256 entries: what executors round, and how near a tie they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from torch.fx import Node

    from edgekit.compression.quantize.grid import Grid
    from edgekit.core.tensors import Array

__all__ = ["CLEARANCE_STEPS", "table", "tie_distance"]

CLEARANCE_STEPS = 1e-3
"""How far an entry must stay from a tie: float32 functions of different libraries differ by far less."""


def table(node: Node, source: Grid, output: Grid) -> Array:
    """Unrounded output integers for every input integer: ``[256]``, float64.

    Args:
        node: A call of one tensor, with its other arguments.
        source: Grid of the tensor.
        output: Grid of the result.
    """
    integers = torch.arange(source.minimum, source.maximum + 1, dtype=torch.float64)
    reals = source.scale * (integers - source.zero_point)
    function: Any = node.target
    results = function(reals, *node.args[1:], **node.kwargs)
    found: Array = (results / output.scale + output.zero_point).numpy()
    return found


def tie_distance(node: Node, source: Grid, output: Grid) -> float:
    """Distance of the nearest table entry from a tie, in output steps; entries that saturate on both sides of it do not count."""
    entries = table(node, source, output)
    inside = entries[(entries > output.minimum - 0.5 - CLEARANCE_STEPS) & (entries < output.maximum + 0.5 + CLEARANCE_STEPS)]
    inside = inside[(np.floor(inside) >= output.minimum) & (np.floor(inside) < output.maximum)]
    return float(np.abs(inside - np.floor(inside) - 0.5).min(initial=0.5))
