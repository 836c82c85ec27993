"""Small weights in an ONNX graph, and layers that quantize their input at run time.

==================== =========================================================================================
weights              in the file
==================== =========================================================================================
int8, one a channel  ``DequantizeLinear(axis)``; of a table that is picked from, behind ``Gather`` of integers and scales
int4, int8 in blocks ``DequantizeLinear(axis, block_size)``, opset 21
int4, w4a8           ``Cast(int4 -> int8) -> DequantizeLinear``: ONNX Runtime folds the cast when it loads the file, and then
                     finds the int8 pattern its integer kernels want
float16              ``Cast(float16 -> float32)``, folded at load as well
dynamic-int8         ``DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul (-> Add)``, which ONNX Runtime fuses into one kernel
==================== =========================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgekit.converters.onnx_graph import add_constant, insert_before, make, numpy_of, rename_constant, replace, static_shape
from edgekit.converters.onnx_rewrite import replace_by_gemm

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgekit.converters.weights import SmallWeight
    from edgekit.core.tensors import Array

__all__ = ["OPSET_OF_SMALL_TYPES", "needs_small_types", "pack_weights", "store_weights"]

OPSET_OF_SMALL_TYPES = 21
"""The opset whose QuantizeLinear and DequantizeLinear know int4, int16 and blocks."""


def store_weights(graph: ir.Graph, weights: Iterable[SmallWeight]) -> None:
    """Replace float constants by the small weights they hold; a constant in which a weight is not found stays as it is."""
    for weight in weights:
        value, order = _find(graph, weight)
        if value is None:
            continue
        if _is_table(weight, value):
            _restore_rows(graph, value, weight)
            continue
        if not weight.is_dynamic:
            value, order = _as_gemm(graph, value, weight, order)
        products = [node for node, position in value.uses() if position == 1 and node.op_type in {"Gemm", "MatMul"}]
        if weight.is_dynamic and len(products) == len(value.uses()):
            for node in products:
                _multiply_integers(graph, node, weight, order)
        else:
            _restore(graph, value, weight, order)


def pack_weights(graph: ir.Graph, names: Iterable[str]) -> None:
    """Store int8 constants of integer kernels, whose values fit 4 bits, as int4."""
    import onnx_ir as ir

    for name in names:
        value = graph.initializers.get(name)
        integers = numpy_of(value)
        if value is None or integers is None or integers.dtype != np.int8:
            continue
        readers = list(value.uses())
        packed = add_constant(graph, f"{name}_int4", _as_int4(integers))
        cast = make("Cast", [packed], name=f"{name}_int8", like=value, to=int(ir.DataType.INT8))
        graph.insert_before(readers[0][0], cast)
        for node, position in readers:
            node.replace_input_with(position, cast.outputs[0])
        graph.initializers.pop(name)
        rename_constant(graph, packed, name)


def needs_small_types(graph: ir.Graph) -> bool:
    """Whether the graph holds anything that opset 20 has no quantize or dequantize for."""
    small = {"INT4", "UINT4", "INT16", "UINT16"}
    values = [*graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    has_blocks = any("block_size" in node.attributes for node in graph)
    return has_blocks or any(value.dtype is not None and value.dtype.name in small for value in values)


def _find(graph: ir.Graph, weight: SmallWeight) -> tuple[ir.Value | None, tuple[int, ...]]:
    """The initializer that holds a weight, by its name or else by what it holds, and in which axis order."""
    named = graph.initializers.get(weight.buffer)
    for value in [*([named] if named is not None else []), *graph.initializers.values()]:
        array = numpy_of(value)
        order = weight.axes(array) if array is not None and array.dtype == np.float32 else None
        if order is not None and value.uses():
            return value, order
    return None, ()


def _as_gemm(graph: ir.Graph, value: ir.Value, weight: SmallWeight, order: tuple[int, ...]) -> tuple[ir.Value, tuple[int, ...]]:
    """Turn products of a tensor of more than two axes into Gemm: float rows times restored weights.

    ONNX Runtime fuses a restored weight and a MatMul into MatMulNBits, which on processors rounds the other operand to 8 bits
    unless a session option forbids it (``session.qdq_matmulnbits_accuracy_level``). Weight-only rounds nothing else.
    """
    products = [node for node, position in value.uses() if node.op_type == "MatMul" and position == 1]
    turned = [node for node, _ in value.uses() if node.op_type == "Transpose"]
    products += [node for transpose in turned for node, position in transpose.outputs[0].uses() if node.op_type == "MatMul"]
    shapes = [static_shape(node.outputs[0]) for node in products]
    if not products or any(shape is None for shape in shapes):
        return value, order
    matrix = add_constant(graph, f"{weight.buffer}_matrix", weight.decoded)
    for node, shape in zip(products, shapes, strict=True):
        if shape is not None:
            replace_by_gemm(graph, node, matrix, shape)
    for transpose in turned:
        graph.remove(transpose, safe=True)
    graph.initializers.pop(str(value.name))
    rename_constant(graph, matrix, weight.buffer)
    return matrix, (0, 1)


def _is_table(weight: SmallWeight, value: ir.Value) -> bool:
    """Whether rows with a scale each are picked from a constant, and nothing else reads it."""
    is_picked = all(
        node.op_type == "Gather"
        and position == 0
        and ("axis" not in node.attributes or node.attributes["axis"].as_int() == 0)
        and static_shape(node.outputs[0]) is not None
        for node, position in value.uses()
    )
    entry = weight.entry
    return is_picked and entry.dtype == "int8" and entry.block_size is None and entry.channel_axis == 0


def _restore_rows(graph: ir.Graph, value: ir.Value, weight: SmallWeight) -> None:
    """Restore the rows that are picked, not the whole table: ``Gather`` of integers and of scales, then ``DequantizeLinear``.

    ONNX Runtime keeps a DequantizeLinear before a Gather and runs it over every row of a vocabulary at each inference.
    """
    name = str(value.name)
    stored = add_constant(graph, f"{name}_stored", weight.stored)
    scales = add_constant(graph, f"{name}_scale", np.asarray(weight.entry.scale, np.float32))
    for node, _ in list(value.uses()):
        shape, places, own = static_shape(node.outputs[0]), node.inputs[1], str(node.outputs[0].name)
        if shape is None or places is None:
            continue
        count = math.prod(shape[:-1])
        rows = add_constant(graph, f"{own}_rows", np.array([count], np.int64))
        whole = add_constant(graph, f"{own}_shape", np.array(shape, np.int64))
        flat = insert_before(graph, node, make("Reshape", [places, rows], name=f"{own}_places", like=places, shape=(count,)))
        integers = make("Gather", [stored, flat], name=f"{own}_int8", like=stored, shape=(count, shape[-1]))
        steps = make("Gather", [scales, flat], name=f"{own}_scales", like=scales, shape=(count,))
        picked = [insert_before(graph, node, integers), insert_before(graph, node, steps)]
        real = make("DequantizeLinear", picked, name=f"{own}_real", like=value, shape=(count, shape[-1]), axis=0)
        restored = insert_before(graph, node, real)
        shaped = make("Reshape", [restored, whole], name=f"{own}_whole", like=value, shape=shape)
        replace(graph, node, insert_before(graph, node, shaped))
    graph.initializers.pop(name)
    rename_constant(graph, stored, name)


def _as_int4(integers: Array) -> Array:
    import ml_dtypes

    packed: Array = integers.astype(ml_dtypes.int4)
    return packed


def _restore(graph: ir.Graph, value: ir.Value, weight: SmallWeight, order: Sequence[int]) -> None:
    """Put the stored values and the node that restores them before the first reader of a float constant."""
    import onnx_ir as ir

    name, readers = str(value.name), list(value.uses())
    integers = weight.stored.transpose(order)
    first = min((node for node, _ in readers), key=list(graph).index)
    if weight.entry.dtype == "float16":
        stored = add_constant(graph, f"{name}_stored", integers)
        node = make("Cast", [stored], name=f"{name}_restored", like=value, to=int(ir.DataType.FLOAT))
    else:
        stored = add_constant(graph, f"{name}_stored", _as_int4(integers) if weight.entry.dtype == "int4" else integers)
        node = make("DequantizeLinear", [stored, *_grid(graph, weight, order)], name=f"{name}_restored", like=value)
        for attribute, number in _attributes(weight, order).items():
            node.attributes[attribute] = ir.AttrInt64(attribute, number)
    graph.insert_before(first, node)
    for reader, position in readers:
        reader.replace_input_with(position, node.outputs[0])
    graph.initializers.pop(name)
    rename_constant(graph, stored, name)


def _grid(graph: ir.Graph, weight: SmallWeight, order: Sequence[int]) -> list[ir.Value]:
    """Scales as DequantizeLinear wants them: a vector for channels, the weight's own rank for blocks."""
    scales = weight.scales.transpose(order)
    scales = scales if weight.entry.block_size is not None else scales.reshape(-1)
    return [add_constant(graph, f"{weight.buffer}_scale", scales)]


def _attributes(weight: SmallWeight, order: Sequence[int]) -> Mapping[str, int]:
    if weight.entry.block_size is not None:
        return {"axis": list(order).index(1), "block_size": weight.entry.block_size}
    return {"axis": list(order).index(weight.entry.channel_axis or 0)}


def _multiply_integers(graph: ir.Graph, node: ir.Node, weight: SmallWeight, order: Sequence[int]) -> None:
    """``x @ w (+ b)`` on integers, ``x`` quantized by its own range; ``[..., I]`` and ``[I, O]``."""
    import onnx_ir as ir

    source, result = node.inputs[0], node.outputs[0]
    if source is None:
        return
    turned = node.op_type == "Gemm" and "transB" in node.attributes and node.attributes["transB"].as_int() == 1
    laid = weight.stored.transpose(order)
    name = weight.buffer
    graph.initializers.pop(name, None)
    stored = add_constant(graph, name, np.ascontiguousarray(laid.T if turned else laid))
    integers, scale, zero = _quantize_input(graph, node, source)
    product = make("MatMulInteger", [integers, stored, zero], name=f"{name}_sum", like=result, dtype=ir.DataType.INT32)
    real = make("Cast", [insert_before(graph, node, product)], name=f"{name}_real", like=result, to=int(ir.DataType.FLOAT))
    steps = add_constant(graph, f"{name}_scale", weight.scales.reshape(-1))
    both = make("Mul", [scale, steps], name=f"{name}_step", like=result, shape=[len(weight.entry.scale)])
    inputs = [insert_before(graph, node, real), insert_before(graph, node, both)]
    value = insert_before(graph, node, make("Mul", inputs, name=f"{name}_product", like=result))
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        value = insert_before(graph, node, make("Add", [value, node.inputs[2]], name=f"{name}_biased", like=result))
    replace(graph, node, value)


def _quantize_input(graph: ir.Graph, node: ir.Node, source: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Integers, scale and zero point of a value by its own range; layers that read the same value share them."""
    import onnx_ir as ir

    shared = next((user for user in source.consumers() if user.op_type == "DynamicQuantizeLinear"), None)
    if shared is None:
        name = str(source.name)
        outputs = [
            ir.val(f"{name}_dynamic", dtype=ir.DataType.UINT8, shape=source.shape),
            ir.val(f"{name}_dynamic_scale", dtype=ir.DataType.FLOAT, shape=[]),
            ir.val(f"{name}_dynamic_zero_point", dtype=ir.DataType.UINT8, shape=[]),
        ]
        shared = ir.node("DynamicQuantizeLinear", [source], outputs=outputs, name=f"{name}_dynamic")
        graph.insert_before(node, shared)
    first, second, third = shared.outputs
    return first, second, third
