"""Average pooling as a depthwise convolution: the form that can be exact.

A mean of four integers lies half-way between two of them every fourth time, and executors break such ties in different ways
(TFLite's AVERAGE_POOL_2D away from zero, ONNX Runtime to even). A depthwise convolution with equal weights computes the same
mean on a grid of its own, whose scale can be chosen so that no tie exists.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgekit.compression.quantize.canonical.form import put_constant

__all__ = ["pools_as_convolutions"]

_CONVOLUTIONS = {
    "aten.avg_pool1d.default": torch.ops.aten.conv1d.default,
    "aten.avg_pool2d.default": torch.ops.aten.conv2d.default,
}


def pools_as_convolutions(module: GraphModule) -> int:
    """Rewrite the average poolings of a canonical graph that have a divisor of their own; returns how many.

    One that counts only the values inside its input at the edges, or rounds its size up, stays as it is.
    """
    count = 0
    for node in list(module.graph.nodes):
        if str(node.target) in _CONVOLUTIONS and _has_one_divisor(node):
            _rewrite(module, node)
            count += 1
    module.graph.lint()
    module.recompile()
    return count


def _has_one_divisor(node: Node) -> bool:
    _, _, padding, ceil_mode, counts_padding = _settings(node)
    divisor = node.args[6] if len(node.args) > 6 else None
    return not ceil_mode and divisor is None and (counts_padding or not any(padding))


def _settings(node: Node) -> tuple[list[int], list[int], list[int], bool, bool]:
    """Kernel, stride, padding, ceil mode, whether padding counts."""
    rank = node.meta["val"].ndim - 2
    given: list[Any] = [*node.args[1:6], *[None, [], [0], False, True][len(node.args[1:6]) :]]
    kernel = _per_axis(given[0], rank)
    return kernel, _per_axis(given[1] or kernel, rank), _per_axis(given[2], rank), bool(given[3]), bool(given[4])


def _per_axis(value: Any, rank: int) -> list[int]:
    values = list(value) if isinstance(value, list | tuple) else [value]
    return values * rank if len(values) == 1 else values


def _rewrite(module: GraphModule, node: Node) -> None:
    kernel, stride, padding, _, _ = _settings(node)
    channels = int(node.meta["val"].shape[1])
    weight = torch.full((channels, 1, *kernel), 1.0 / math.prod(kernel))
    held = put_constant(module, f"{node.name}_weight", weight, before=node)
    with module.graph.inserting_before(node):
        made = module.graph.call_function(
            _CONVOLUTIONS[str(node.target)], (node.args[0], held, None, stride, padding, [1] * len(kernel), channels)
        )
    made.meta = dict(node.meta)
    node.replace_all_uses_with(made)
    module.graph.erase_node(node)
