"""Rewrites of an exported ONNX graph, so that ONNX Runtime runs it on integers. Each keeps every integer as it is.

ONNX Runtime fuses ``DequantizeLinear -> op -> QuantizeLinear`` into an integer kernel only where the pattern is complete and
the op is one it knows (``optimizer/qdq_transformer/selectors_actions`` in its sources):

==================================== ======================================================================
found                                becomes
==================================== ======================================================================
``MatMul`` by weights, then ``Add``   ``Reshape -> Gemm -> Reshape`` (QGemm adds the bias as int32)
``ReduceMean`` over all positions     ``GlobalAveragePool`` (there is no integer ReduceMean)
data movement without Q/DQ around it  the same movement between Q and DQ of its own grid (exact: values only move)
``Pad`` with zeros between Q and DQ   ``Pad`` of the integers with the zero point (there is no fused Pad)
float32 biases on the int32 grid      int32 initializer and DequantizeLinear
int8 activations                      uint8, zero point + 128 (the kernels x86 processors have)
==================================== ======================================================================

Passes edit the model they are given, which belongs to the converter alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgekit.core.contract import TensorQuantization
    from edgekit.core.tensors import Array

__all__ = [
    "activation_dequantize", "drop_idle_axes", "fuse_for_integers", "integer_biases", "numpy_of", "own_zero_points", "pad_integers",
    "retype_activations", "static_shape",
]  # fmt: skip

UINT8_SHIFT = 128
"""Integer as uint8 minus integer as int8, for the same real number."""

_MOVEMENTS = {"DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
_WEIGHTED = {"Conv", "ConvTranspose", "Gemm"}


def fuse_for_integers(graph: ir.Graph) -> None:
    """Bring every pattern around integers into the form ONNX Runtime has a kernel for."""
    _bracket_movements(graph)
    _lower_linear(graph)
    _lower_global_mean(graph)
    _bracket_movements(graph)


def producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node that makes ``value``, if it is an ``op_type``."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type else None


def numpy_of(value: ir.Value | None) -> Array | None:
    """The constant behind an initializer; None for anything else."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


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
    value = ir.val(free, const_value=tensor, dtype=tensor.dtype, shape=tensor.shape)
    graph.register_initializer(value)
    return value


def _insert(
    graph: ir.Graph, anchor: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], *, name: str, like: ir.Value, shape: Sequence[int] | None = None,
    after: bool = False, dtype: Any = None, **attributes: Any,
) -> ir.Value:  # fmt: skip
    """A new node beside ``anchor``; its output has the type of ``like`` (or ``dtype``) and ``shape`` (or that of ``like``)."""
    import onnx_ir as ir

    output = ir.val(name, dtype=dtype or like.dtype, shape=like.shape if shape is None else list(shape))
    node = ir.node(op_type, inputs, attributes or None, outputs=[output], name=name)
    if after:
        graph.insert_after(anchor, node)
    else:
        graph.insert_before(anchor, node)
    return output


def _insert_pair(graph: ir.Graph, value: ir.Value, anchor: ir.Node, grid: Sequence[ir.Value | None], *, after: bool) -> ir.Value:
    """Quantize ``value`` on ``grid`` (scale, zero point) and dequantize it again; returns the float result."""
    zero_point = grid[1]
    integer = zero_point.dtype if zero_point is not None else None
    q = _insert(graph, anchor, "QuantizeLinear", [value, *grid], name=f"{value.name}_quantized", like=value, dtype=integer, after=after)
    follower = q.producer() if after else anchor
    if follower is None:
        raise RuntimeError(f"node of {q.name} vanished")
    return _insert(graph, follower, "DequantizeLinear", [q, *grid], name=f"{value.name}_restored", like=value, after=after)


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """Sizes of ``value``, or None where one is unknown."""
    if value is None or value.shape is None or not all(isinstance(size, int) for size in value.shape):
        return None
    return tuple(int(str(size)) for size in value.shape)


def _bracket_movements(graph: ir.Graph) -> None:
    """Put each operator that only moves values between Q and DQ of the grid its values are on."""
    for node in list(graph):
        if node.op_type in _MOVEMENTS and (source := activation_dequantize(node.inputs[0])) is not None:
            for output in node.outputs:
                if output.is_graph_output() or any(user.op_type != "QuantizeLinear" for user in output.consumers()):
                    _bracket_output(graph, node, output, source.inputs[1:3])
    for node in reversed(list(graph)):
        if node.op_type in _MOVEMENTS and len(node.outputs) == 1 and activation_dequantize(node.inputs[0]) is None:
            _bracket_input(graph, node)


def _bracket_output(graph: ir.Graph, node: ir.Node, output: ir.Value, grid: Sequence[ir.Value | None]) -> None:
    uses = list(output.uses())
    is_output = output.is_graph_output()
    name = output.name
    restored = _insert_pair(graph, output, node, grid, after=True)
    for user, index in uses:
        if user.op_type != "QuantizeLinear":
            user.replace_input_with(index, restored)
    if is_output:
        graph.outputs[:] = [restored if value is output else value for value in graph.outputs]
        output.name, restored.name = f"{name}_moved", name


def _bracket_input(graph: ir.Graph, node: ir.Node) -> None:
    """Quantize before a movement instead of after it, where its result is quantized and nothing else reads it."""
    value, users = node.inputs[0], list(node.outputs[0].consumers())
    made = value is not None and value.producer() is not None and len(value.uses()) == 1 and not value.is_graph_output()
    if not made or value is None or len(users) != 1 or users[0].op_type != "QuantizeLinear" or node.outputs[0].is_graph_output():
        return
    node.replace_input_with(0, _insert_pair(graph, value, node, users[0].inputs[1:3], after=False))


def _lower_linear(graph: ir.Graph) -> None:
    """``MatMul(x, Transpose(w)) + b`` with quantized ``x`` ``[..., I]`` and ``w`` ``[O, I]`` -> one Gemm over ``[-1, I]``."""
    for matmul in [node for node in graph if node.op_type == "MatMul"]:
        weight = _transposed_weight(matmul.inputs[1])
        shape = static_shape(matmul.outputs[0])
        if weight is None or shape is None or activation_dequantize(matmul.inputs[0]) is None:
            continue
        last, bias = _added_bias(matmul)
        _replace_by_gemm(graph, matmul, last, weight, bias, shape)


def _transposed_weight(value: ir.Value | None) -> ir.Value | None:
    transpose = producer(value, "Transpose")
    restored = transpose.inputs[0] if transpose is not None else None
    dequantize = producer(restored, "DequantizeLinear")
    if transpose is None or dequantize is None or dequantize.inputs[0] is None or not dequantize.inputs[0].is_initializer():
        return None
    return restored if list(transpose.attributes["perm"].as_ints()) == [1, 0] else None


def _added_bias(matmul: ir.Node) -> tuple[ir.Node, ir.Value | None]:
    """The last node of ``MatMul (+ Add)`` and the bias it adds."""
    users = list(matmul.outputs[0].consumers())
    if len(users) == 1 and users[0].op_type == "Add" and not matmul.outputs[0].is_graph_output():
        other = next((value for value in users[0].inputs if value is not matmul.outputs[0]), None)
        array = numpy_of(other)
        if array is not None and array.ndim == 1:
            return users[0], other
    return matmul, None


def _replace_by_gemm(graph: ir.Graph, matmul: ir.Node, last: ir.Node, weight: ir.Value, bias: ir.Value | None, shape: tuple[int, ...]) -> None:
    source, result = matmul.inputs[0], last.outputs[0]
    if source is None:
        return
    rows, width = math.prod(shape[:-1]), static_shape(weight)
    if width is None:
        return
    flat = add_constant(graph, f"{result.name}_rows", np.array([rows, width[1]], np.int64))
    whole = add_constant(graph, f"{result.name}_shape", np.array(shape, np.int64))
    x = _insert(graph, last, "Reshape", [source, flat], name=f"{result.name}_flat", like=source, shape=(rows, width[1]))
    inputs = [x, weight] if bias is None else [x, weight, bias]
    y = _insert(graph, last, "Gemm", inputs, name=f"{result.name}_gemm", like=result, shape=(rows, shape[-1]), transB=1)
    _replace(graph, last, _insert(graph, last, "Reshape", [y, whole], name=f"{result.name}_whole", like=result))


def _replace(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Let everything read ``value`` instead of the node's output, give it the output's name, and remove the node."""
    old = node.outputs[0]
    name = old.name
    old.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    old.name, value.name = f"{name}_replaced", name


def _lower_global_mean(graph: ir.Graph) -> None:
    """Quantized ``ReduceMean`` over every axis behind ``[N, C]`` -> GlobalAveragePool, reshaped as the mean was."""
    for node in [node for node in graph if node.op_type == "ReduceMean"]:
        source, result = node.inputs[0], node.outputs[0]
        shape, kept, axes = static_shape(source), static_shape(result), numpy_of(node.inputs[1] if len(node.inputs) > 1 else None)
        if source is None or shape is None or kept is None or axes is None or activation_dequantize(source) is None or len(shape) < 3:
            continue
        reduced = {int(axis) % len(shape) for axis in axes.tolist()}
        positions = {axis for axis in range(2, len(shape)) if shape[axis] != 1}
        if not positions <= reduced or reduced & {0, 1}:
            continue
        pooled_shape = (*shape[:2], *[1] * (len(shape) - 2))
        pooled = _insert(graph, node, "GlobalAveragePool", [source], name=f"{result.name}_pooled", like=source, shape=pooled_shape)
        if kept != pooled_shape:
            target = add_constant(graph, f"{result.name}_shape", np.array(kept, np.int64))
            pooled = _insert(graph, node, "Reshape", [pooled, target], name=f"{result.name}_whole", like=source, shape=kept)
        _replace(graph, node, pooled)


def pad_integers(graph: ir.Graph) -> None:
    """``DQ -> Pad(0) -> Q`` on one grid becomes a Pad of the integers with the zero point: real zero, exactly."""
    for node in [node for node in graph if node.op_type == "Pad"]:
        source, users = activation_dequantize(node.inputs[0]), list(node.outputs[0].consumers())
        value = numpy_of(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(())
        if source is None or len(users) != 1 or users[0].op_type != "QuantizeLinear" or value is None or value.item() != 0:
            continue
        quantize, result = users[0], users[0].outputs[0]
        if node.attributes["mode"].as_string() != "constant" or not _same_grid(source.inputs[1:3], quantize.inputs[1:3]):
            continue
        inputs = [source.inputs[0], node.inputs[1], quantize.inputs[2], *node.inputs[3:]]
        _replace(graph, quantize, _insert(graph, quantize, "Pad", inputs, name=f"{result.name}_padded", like=result, mode="constant"))


def _same_grid(first: Sequence[ir.Value | None], second: Sequence[ir.Value | None]) -> bool:
    pairs = [(numpy_of(a), numpy_of(b)) for a, b in zip(first, second, strict=True)]
    return all(a is not None and b is not None and a.dtype == b.dtype and a.item() == b.item() for a, b in pairs)


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
    restored = _insert(graph, node, "DequantizeLinear", [stored, steps], name=f"{stored.name}_restored", like=bias, axis=0)
    node.replace_input_with(2, restored)
    if alone:
        graph.initializers.pop(name)
        _rename_initializer(graph, stored, name)


def _rename_initializer(graph: ir.Graph, value: ir.Value, name: str) -> None:
    graph.initializers.pop(str(value.name))
    value.name = name
    if value.const_value is not None:
        value.const_value.name = name
    graph.initializers.add(value)


def own_zero_points(graph: ir.Graph) -> None:
    """Give each weight a zero point of its own.

    On processors where ONNX Runtime retypes weights to uint8 (``session.x64quantprecision``), a shared one makes it fail
    with "Attempt to replace the existing tensor".
    """
    seen: set[str] = set()
    for node in list(graph):
        if node.op_type != "DequantizeLinear" or len(node.inputs) < 3 or node.inputs[0] is None or not node.inputs[0].is_initializer():
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
        if zero_point is None or zero is None or zero.dtype != np.int8 or (source is not None and source.is_initializer()):
            continue
        name = str(zero_point.name)
        if name not in shifted:
            shifted[name] = add_constant(graph, f"{name}_uint8", (zero.astype(np.int16) + UINT8_SHIFT).astype(np.uint8))
        node.replace_input_with(2, shifted[name])
        if node.op_type == "QuantizeLinear":
            node.outputs[0].dtype = ir.DataType.UINT8
    for node in [node for node in graph if node.op_type == "Pad"]:
        _retype_pad(node, shifted)


def _retype_pad(node: ir.Node, shifted: Mapping[str, ir.Value]) -> None:
    """A Pad of integers follows its input's type."""
    import onnx_ir as ir

    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is not None and value.name in shifted and node.inputs[0] is not None and node.inputs[0].dtype == ir.DataType.UINT8:
        node.replace_input_with(2, shifted[value.name])
        node.outputs[0].dtype = ir.DataType.UINT8
