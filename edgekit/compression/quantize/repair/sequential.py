"""The float graph and its quantized copy, run side by side, layer by layer, over a few calibration samples.

Methods that repair a layer need to know what it should give (float graph) and what it gets now (quantized graph, every
layer before it already repaired). :func:`walk` runs both graphs one operator at a time over all samples, stops before each
layer with weights, and lets a visitor change that layer's integers before it is computed.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

if TYPE_CHECKING:
    from edgekit.compression.quantize.plan import Plan

__all__ = ["Site", "Target", "affordable_sample_count", "layer_axes", "walk"]

_MEMORY_BYTES = 2**30  # what the samples' values may hold at one time
_REPAIRED = {"conv", "conv_transpose", "linear"}
_VALUES_ALIVE = 4  # a layer's input and output in both graphs; residuals beside them are smaller


@dataclasses.dataclass(frozen=True)
class Target:
    """Where a layer's channels lie: in its weight and in its output."""

    weight_axis: int
    output_axis: int


@dataclasses.dataclass
class Site:
    """One layer with weights, about to be computed.

    Args:
        node: The layer in the quantized graph.
        target: Its channel axes.
        inputs: What it reads in the quantized graph, one tensor a sample.
        float_inputs: What it reads in the float graph.
        float_weight: Its weight there.
        float_outputs: What it gives there.
        compute: Its outputs in the quantized graph with the constants as they are now.
    """

    node: Node
    target: Target
    inputs: Sequence[torch.Tensor]
    float_inputs: Sequence[torch.Tensor]
    float_weight: torch.Tensor
    float_outputs: Sequence[torch.Tensor]
    compute: Callable[[], list[torch.Tensor]]


def layer_axes(plan: Plan, *, weight_only: bool = False) -> dict[str, Target]:
    """Layers whose integer weights and biases may be repaired: node name -> channel axes.

    Args:
        plan: Says what becomes integers.
        weight_only: Also layers of 4-bit weights and float activations; at 8 bits there is nothing to win in them.
    """
    kernels = [kernel for kernel in plan.kernels if kernel.family.role == "weighted"]
    if weight_only:
        kernels += [kernel for kernel in plan.weight_only if kernel.precision.weights == "int4"]
    return {
        kernel.node.name: Target(kernel.family.channel_axis or 0, -1 if kernel.family.name == "linear" else 1)
        for kernel in kernels
        if kernel.family.name in _REPAIRED
    }


def affordable_sample_count(module: GraphModule, *, wanted: int) -> int:
    """How many samples fit the memory allowed, at least 8, at most ``wanted``."""
    values = [node.meta.get("val") for node in module.graph.nodes if node.op == "call_function"]
    largest = max((value.numel() * 4 for value in values if isinstance(value, torch.Tensor)), default=1)
    return max(1, min(wanted, max(8, _MEMORY_BYTES // (_VALUES_ALIVE * largest))))


def walk(
    module: GraphModule,
    float_module: GraphModule,
    layers: dict[str, Target],
    samples: Sequence[Sequence[torch.Tensor]],
    visit: Callable[[Site], None],
) -> None:
    """Run both graphs over ``samples``; before each layer of ``layers`` is computed, call ``visit``.

    Args:
        module: The quantized graph; visitors may change its buffers.
        float_module: The canonical float graph it was made from; nodes correspond by name.
        layers: Node name -> channel axes, see :func:`layer_axes`.
        samples: Arguments of each call.
        visit: Called in graph order.
    """
    quantized = _Lane(module, samples)
    reference = _Lane(float_module, samples)
    counterparts = {node.name: node for node in float_module.graph.nodes}
    with torch.no_grad():
        for node in module.graph.nodes:
            if node.name not in layers:
                quantized.advance(node)
                continue
            counterpart = counterparts[node.name]
            reference.advance_before(counterpart)
            float_inputs = reference.values_of(counterpart.args[0])
            float_outputs = reference.compute(counterpart)
            site = Site(
                node=node,
                target=layers[node.name],
                inputs=quantized.values_of(node.args[0]),
                float_inputs=float_inputs,
                float_weight=reference.values_of(counterpart.args[1])[0],
                float_outputs=float_outputs,
                compute=lambda node=node: quantized.compute(node),  # type: ignore[misc]
            )
            visit(site)
            quantized.advance(node)


class _Lane:
    """One graph over all samples at once, operator by operator; values are freed after their last use."""

    def __init__(self, module: GraphModule, samples: Sequence[Sequence[torch.Tensor]]) -> None:
        self.module = module
        self.samples = samples
        self.nodes: list[Node] = list(module.graph.nodes)
        self.done = 0
        self.last_reader = {source: node for node in module.graph.nodes for source in node.all_input_nodes}
        self.placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
        self.values: dict[Node, list[Any]] = {}
        self.constants = _constant_nodes(module)

    def advance_before(self, stop: Node) -> None:
        """Compute every operator before ``stop``."""
        while self.nodes[self.done] is not stop:
            self.advance(self.nodes[self.done])
            self.done += 1

    def advance(self, node: Node) -> None:
        """Compute one operator, keep its values, and free what nobody reads any more."""
        if node.op != "output" and node not in self.constants:
            self.values[node] = self.compute(node)
        for source in node.all_input_nodes:
            if self.last_reader[source] is node:
                self.values.pop(source, None)

    def compute(self, node: Node) -> list[Any]:
        """The operator's value for each sample."""
        if node in self.values:
            return self.values[node]
        if node.op == "placeholder":
            return [sample[self.placeholders.index(node)] for sample in self.samples]
        known = {source: self.values_of(source) for source in node.all_input_nodes}
        return [_call(node, known, at) for at in range(len(self.samples))]

    def values_of(self, node: Any) -> list[Any]:
        """Values of a node that was computed, or of a constant as it is now."""
        if node not in self.constants:
            return self.values[node]
        if node.op == "get_attr":
            return [operator.attrgetter(str(node.target))(self.module)] * len(self.samples)
        known = {source: self.values_of(source) for source in node.all_input_nodes}
        return [_call(node, known, 0)] * len(self.samples)


def _constant_nodes(module: GraphModule) -> set[Node]:
    """Nodes that no model input reaches: they are computed anew when read, for visitors change constants."""
    found: set[Node] = set()
    for node in module.graph.nodes:
        if node.op == "get_attr" or (node.op == "call_function" and all(source in found for source in node.all_input_nodes)):
            found.add(node)
    return found


def _call(node: Node, known: dict[Node, list[Any]], at: int) -> Any:
    arguments, keywords = map_arg((node.args, node.kwargs), lambda source: known[source][at])
    function: Any = node.target
    return function(*arguments, **keywords)
