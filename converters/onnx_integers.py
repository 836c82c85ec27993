"""How a quantized ONNX graph stores its integers: int32 biases, zero points, int8 or uint8 activations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgekit.converters.onnx_graph import (
    activation_dequantize,
    add_constant,
    insert_before,
    make,
    numpy_of,
    producer,
    rename_constant,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgekit.core.contract import TensorQuantization
    from edgekit.core.tensors import Array

__all__ = ["drop_idle_axes", "integer_biases", "own_zero_points", "retype_activations"]

UINT8_SHIFT = 128
"""Integer as uint8 minus integer as int8, for the same real number."""

_WEIGHTED = {"Conv", "ConvTranspose", "Gemm"}
_OPERATIONS = {"Add", "Concat", "Div", "Mul", "Sub"}
"""Operators with two operands of equal standing; a constant one is no weight."""


def integer_biases(graph: ir.Graph, entries: Mapping[str, TensorQuantization]) -> None:
    """Store each bias as int32 with ``DequantizeLinear`` of scale ``s_input * s_weight[c]`` (ONNX Runtime wants both).

    Args:
        graph: The graph.
        entries: Bias entries by the name of their initializer.
    """
    for node in [node for node in graph if node.op_type in _WEIGHTED and len(node.inputs) > 2]:
        bias = node.inputs[2]
        values, scale = numpy_of(bias), _accumulator_scale(node)
        if bias is None or values is None or scale is None or values.ndim != 1:
            continue
        entry = entries.get(bias.name or "")
        if entry is not None and len(entry.scale) == len(values) and np.allclose(entry.scale, scale, rtol=1e-6):
            scale = np.asarray(entry.scale, np.float32)
        integers = np.rint(values.astype(np.float64) / scale.astype(np.float64)).astype(np.int32)
        _store_integers(graph, node, bias, integers, scale)


def _accumulator_scale(node: ir.Node) -> Array | None:
    """Scale of the int32 accumulator, ``[C]``: input scale times weight scales, both from the graph."""
    source, weight = activation_dequantize(node.inputs[0]), producer(node.inputs[1], "DequantizeLinear")
    if source is None or weight is None or weight.inputs[0] is None or not weight.inputs[0].is_initializer():
        return None
    input_scale, weight_scale = numpy_of(source.inputs[1]), numpy_of(weight.inputs[1])
    if input_scale is None or weight_scale is None:
        return None
    return np.float32(input_scale.item()) * np.atleast_1d(weight_scale).astype(np.float32)


def _store_integers(graph: ir.Graph, node: ir.Node, bias: ir.Value, integers: Array, scale: Array) -> None:
    name = str(bias.name)
    alone = len(bias.uses()) == 1
    stored = add_constant(graph, f"{name}_int32", integers)
    steps = add_constant(graph, f"{name}_scale", scale)
    restored = insert_before(
        graph, node, make("DequantizeLinear", [stored, steps], name=f"{stored.name}_restored", like=bias, axis=0)
    )
    node.replace_input_with(2, restored)
    if alone:
        graph.initializers.pop(name)
        rename_constant(graph, stored, name)


def own_zero_points(graph: ir.Graph) -> None:
    """Give each weight a zero point of its own.

    On processors where ONNX Runtime retypes weights to uint8 (``session.x64quantprecision``), a shared one makes it fail
    with "Attempt to replace the existing tensor".
    """
    seen: set[str] = set()
    for node in list(graph):
        if (
            node.op_type != "DequantizeLinear"
            or len(node.inputs) < 3
            or node.inputs[0] is None
            or not node.inputs[0].is_initializer()
        ):
            continue
        zero = node.inputs[2]
        values = numpy_of(zero)
        if zero is not None and values is not None and str(zero.name) in seen:
            node.replace_input_with(2, add_constant(graph, f"{node.inputs[0].name}_zero_point", values))
        elif zero is not None:
            seen.add(str(zero.name))


def drop_idle_axes(graph: ir.Graph) -> None:
    """Remove the ``axis`` attribute where one scale holds for the whole tensor: it says nothing there."""
    for node in graph:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"} and "axis" in node.attributes:
            scale = numpy_of(node.inputs[1])
            if scale is not None and scale.ndim == 0:
                node.attributes.pop("axis")


def retype_activations(graph: ir.Graph) -> None:
    """Make int8 activations uint8: each zero point + 128, the same real numbers; weights and biases stay."""
    import onnx_ir as ir

    shifted: dict[str, ir.Value] = {}
    for node in list(graph):
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear"} or len(node.inputs) < 3:
            continue
        source, zero_point = node.inputs[0], node.inputs[2]
        zero = numpy_of(zero_point)
        is_stored = node.op_type == "DequantizeLinear" and source is not None and source.is_initializer()
        if zero_point is None or zero is None or zero.dtype != np.int8 or is_stored:
            continue
        name = str(zero_point.name)
        if name not in shifted:
            shifted[name] = add_constant(graph, f"{name}_uint8", (zero.astype(np.int16) + UINT8_SHIFT).astype(np.uint8))
        node.replace_input_with(2, shifted[name])
        if node.op_type == "QuantizeLinear":
            node.outputs[0].dtype = ir.DataType.UINT8
    for node in [node for node in graph if node.op_type == "DequantizeLinear"]:
        _retype_operand(graph, node)
    for node in [node for node in graph if node.op_type in {"Clip", "Pad"}]:
        _follow_type(graph, node)


def _retype_operand(graph: ir.Graph, node: ir.Node) -> None:
    """A constant operand takes the type of the activation beside it: ONNX Runtime's kernels want one type for both."""
    constant, zero_point = node.inputs[0], node.inputs[2] if len(node.inputs) > 2 else None
    values, zero = numpy_of(constant), numpy_of(zero_point)
    readers = {user.op_type for user in node.outputs[0].consumers()}
    if constant is None or values is None or values.dtype != np.int8 or zero is None or zero.ndim or not readers <= _OPERATIONS:
        return
    name = str(constant.name)
    shifted = [(array.astype(np.int16) + UINT8_SHIFT).astype(np.uint8) for array in (values, zero)]
    stored = add_constant(graph, f"{name}_uint8", shifted[0])
    node.replace_input_with(0, stored)
    node.replace_input_with(2, add_constant(graph, f"{name}_zero_point_uint8", shifted[1]))
    if not constant.uses():
        graph.initializers.pop(name)
        rename_constant(graph, stored, name)


def _follow_type(graph: ir.Graph, node: ir.Node) -> None:
    """A clamp or padding of integers takes its input's type, and so do its int8 constants."""
    import onnx_ir as ir

    source = node.inputs[0]
    if source is None or source.dtype != ir.DataType.UINT8:
        return
    node.outputs[0].dtype = ir.DataType.UINT8
    for position, value in enumerate(node.inputs[1:], start=1):
        integers = numpy_of(value)
        if value is not None and integers is not None and integers.dtype == np.int8:
            shifted = (integers.astype(np.int16) + UINT8_SHIFT).astype(np.uint8)
            node.replace_input_with(position, add_constant(graph, f"{value.name}_uint8", shifted))
