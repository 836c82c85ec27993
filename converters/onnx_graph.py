"""Reading and editing an ONNX graph in memory: the few moves that every rewrite is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgekit.core.tensors import Array

__all__ = [
    "activation_dequantize",
    "add_constant",
    "insert_before",
    "insert_pair",
    "make",
    "numpy_of",
    "producer",
    "rename_constant",
    "replace",
    "static_shape",
]


def producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node that makes ``value``, if it is an ``op_type``."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type else None


def numpy_of(value: ir.Value | None) -> Array | None:
    """The constant behind an initializer; None for anything else."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """Sizes of ``value``, or None where one is unknown."""
    if value is None or value.shape is None or not all(isinstance(size, int) for size in value.shape):
        return None
    return tuple(int(str(size)) for size in value.shape)


def activation_dequantize(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear of an activation that makes ``value``; None for weights and for anything else."""
    node = producer(value, "DequantizeLinear")
    if node is None or node.inputs[0] is None or node.inputs[0].is_initializer() or len(node.inputs) < 3:
        return None
    return node


def add_constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """A new initializer under a free name that starts with ``name``."""
    import onnx_ir as ir

    free, count = name, 1
    while free in graph.initializers:
        free, count = f"{name}_{count}", count + 1
    tensor = ir.tensor(np.array(array, order="C"), name=free)
    value = ir.val(free, const_value=tensor, dtype=tensor.dtype, shape=list(array.shape))
    graph.register_initializer(value)
    return value


def make(
    op_type: str,
    inputs: Sequence[ir.Value | None],
    *,
    name: str,
    like: ir.Value,
    shape: Sequence[int] | None = None,
    dtype: ir.DataType | None = None,
    **attributes: int | str,
) -> ir.Node:
    """A node in no graph yet; its output is called ``name`` and has the type and shape of ``like`` unless told otherwise."""
    import onnx_ir as ir

    output = ir.val(name, dtype=dtype or like.dtype, shape=static_shape(like) if shape is None else list(shape))
    return ir.node(op_type, inputs, attributes or None, outputs=[output], name=name)


def insert_before(graph: ir.Graph, anchor: ir.Node, node: ir.Node) -> ir.Value:
    """Put a node of one output into the graph and return that output."""
    graph.insert_before(anchor, node)
    return node.outputs[0]


def insert_pair(graph: ir.Graph, value: ir.Value, anchor: ir.Node, grid: Sequence[ir.Value | None], *, after: bool) -> ir.Value:
    """Quantize ``value`` on ``grid`` (scale, zero point) and dequantize it again; returns the float result."""
    integer = grid[1].dtype if grid[1] is not None else None
    quantize = make("QuantizeLinear", [value, *grid], name=f"{value.name}_quantized", like=value, dtype=integer)
    restore = make("DequantizeLinear", [quantize.outputs[0], *grid], name=f"{value.name}_restored", like=value)
    if after:
        graph.insert_after(anchor, [quantize, restore])
    else:
        graph.insert_before(anchor, [quantize, restore])
    return restore.outputs[0]


def rename_constant(graph: ir.Graph, value: ir.Value, name: str) -> None:
    """Give an initializer another name, which must be free."""
    graph.initializers.pop(str(value.name))
    value.name = name
    if value.const_value is not None:
        value.const_value.name = name
    graph.initializers.add(value)


def replace(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Let everything read ``value`` instead of the node's output, give it the output's name, and remove the node."""
    old = node.outputs[0]
    name = old.name
    old.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    old.name, value.name = f"{name}_replaced", name
