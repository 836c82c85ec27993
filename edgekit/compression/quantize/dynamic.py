"""Activations whose scale each input sets anew: no calibration, integer matrix products, float between layers.

::

    x ─ choose_qparams ─┐
    └── quantize ───────┴─ dequantize ─ linear(int8 weights, one scale a channel) ─ float

Only linear layers get this. Finding the range costs a pass over the input, which pays where a matrix product reuses it many
times; convolutions that quantize at run time are slower than float ones on every target, and keep float kernels over int8
weights.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import torch

from edgekit.core.program import register_operators

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch.fx import GraphModule, Node

    from edgekit.compression.quantize.plan import Kernel

__all__ = ["quantize_inputs"]

register_operators()

_DECOMPOSED = torch.ops.quantized_decomposed
_LIMITS = (-128, 127)
_SMALLEST_SCALE = float(torch.finfo(torch.float32).eps)


def quantize_inputs(module: GraphModule, kernels: Iterable[Kernel]) -> int:
    """Quantize the inputs of the linear layers that ask for it; readers of one value share its integers.

    Returns:
        How many layers compute so.
    """
    restored: dict[Node, Node] = {}
    chosen = [kernel for kernel in kernels if kernel.precision.activations == "dynamic-int8" and kernel.family.name == "linear"]
    for kernel in chosen:
        source = kernel.activation_arguments[0]
        if source not in restored:
            restored[source] = _insert(module, source, kernel.node)
        kernel.node.replace_input_with(source, restored[source])
    return len(chosen)


def _insert(module: GraphModule, source: Node, reader: Node) -> Node:
    graph = module.graph
    with graph.inserting_before(reader):
        pair = graph.call_function(_DECOMPOSED.choose_qparams.tensor, (source, *_LIMITS, _SMALLEST_SCALE, torch.int8))
        scale = graph.call_function(operator.getitem, (pair, 0))
        zero_point = graph.call_function(operator.getitem, (pair, 1))
        grid = (scale, zero_point, *_LIMITS, torch.int8)
        integers = graph.call_function(_DECOMPOSED.quantize_per_tensor.tensor, (source, *grid))
        result = graph.call_function(_DECOMPOSED.dequantize_per_tensor.tensor, (integers, *grid))
    for node in (pair, scale, zero_point, integers, result):
        node.meta = {key: reader.meta[key] for key in ("stack_trace", "nn_module_stack") if key in reader.meta}
    result.meta["val"] = source.meta.get("val")
    return result
