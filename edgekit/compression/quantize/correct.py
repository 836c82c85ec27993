"""Empirical bias correction: take out of every layer the mean error that rounding put in.

Rounded weights and inputs shift the mean of a layer's output, channel by channel, and the shifts add up along the net
(Nagel et al., 2019, arXiv:1906.04721, section 4.2). Here the quantized graph runs layer by layer over a few
calibration samples; each bias is moved, on its int32 grid, until its layer's output means are the float graph's over
the same samples, before the next layer sees them. So a correction includes what the layers before it still get wrong.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from edgekit.compression.quantize.lower import Lowered, move_bias

if TYPE_CHECKING:
    from edgekit.compression.quantize.plan import Plan

__all__ = ["channel_axes", "correct_biases", "correction_sample_count"]

_MEMORY_BYTES = 256 * 2**20  # what the samples' values may hold at one time


def channel_axes(plan: Plan) -> dict[Node, int]:
    """Layers whose bias can be corrected, with the channel axis of their output."""
    return {
        kernel.node: -1 if kernel.family.name == "linear" else 1
        for kernel in plan.kernels
        if kernel.family.role == "weighted" and len(kernel.node.args) > 2 and isinstance(kernel.node.args[2], Node)
    }


def correction_sample_count(module: GraphModule, *, wanted: int) -> int:
    """How many samples fit the memory allowed, at least 8, at most ``wanted``."""
    values = [node.meta.get("val") for node in module.graph.nodes if node.op == "call_function"]
    largest = max((value.numel() * 4 for value in values if isinstance(value, torch.Tensor)), default=1)
    return max(1, min(wanted, max(8, _MEMORY_BYTES // (3 * largest))))  # a layer's input, its output, and a residual beside them


def correct_biases(
    lowered: Lowered, axes: Mapping[str, int], means: Mapping[str, torch.Tensor], samples: Sequence[Sequence[torch.Tensor]]
) -> Lowered:
    """Move the biases of ``lowered`` and return it with their new entries.

    Args:
        lowered: Q/DQ graph; its bias buffers are changed.
        axes: Layer node name -> channel axis of its output.
        means: Layer node name -> float means over ``samples``, ``[C]``.
        samples: Arguments of each call.
    """
    module = lowered.module
    last_reader = {source: node for node in module.graph.nodes for source in node.all_input_nodes}
    values: dict[Node, list[Any]] = {}
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    entries = {entry.node: entry for entry in lowered.parameters}
    with torch.no_grad():
        for node in module.graph.nodes:
            if node.op == "placeholder":
                values[node] = [sample[placeholders.index(node)] for sample in samples]
            elif node.op == "get_attr":
                values[node] = [operator.attrgetter(str(node.target))(module)] * len(samples)
            elif node.op == "call_function":
                values[node] = [_call(node, values, at) for at in range(len(samples))]
            if node.name in axes:
                held = str(node.args[2].target)
                shift = means[node.name] - _means(values[node], axes[node.name])
                entries[held], moved = move_bias(module, entries[held], shift)
                values[node] = [_add(value, moved, axes[node.name]) for value in values[node]]
            for source in node.all_input_nodes:
                if last_reader[source] is node:
                    values.pop(source, None)
    lowered.parameters = [entries[entry.node] for entry in lowered.parameters]
    return lowered


def _call(node: Node, values: Mapping[Node, list[Any]], at: int) -> Any:
    arguments, keywords = map_arg((node.args, node.kwargs), lambda source: values[source][at])
    function: Any = node.target
    return function(*arguments, **keywords)


def _means(values: Sequence[torch.Tensor], axis: int) -> torch.Tensor:
    others = [at for at in range(values[0].ndim) if at != axis % values[0].ndim]
    return torch.stack([value.double().mean(others) for value in values]).mean(0)


def _add(value: torch.Tensor, shift: torch.Tensor, axis: int) -> torch.Tensor:
    return value + shift.reshape([-1 if at == axis % value.ndim else 1 for at in range(value.ndim)])
