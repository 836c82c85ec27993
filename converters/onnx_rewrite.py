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
integer kernel, clamp, Q              kernel, Q, clamp of the integers (a clamp between the two prevents the fusion)
large image of 3 channels, ``Conv``   padded to 4 channels, weights with zeros (then no im2col is needed; exact)
==================================== ======================================================================

Passes edit the model they are given, which belongs to the converter alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgekit.converters.onnx_graph import (
    activation_dequantize,
    add_constant,
    insert_before,
    insert_pair,
    make,
    numpy_of,
    producer,
    rename_constant,
    replace,
    static_shape,
)
from edgekit.core.tensors import quantize

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgekit.core.tensors import Array

__all__ = ["fuse_for_integers", "replace_by_gemm"]

_MOVEMENTS = {
    "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile",
    "Transpose", "Unsqueeze",
}  # fmt: skip
_CLAMPED = {"Add", "AveragePool", "Conv", "Gemm", "GlobalAveragePool", "MatMul", "Mul", "Reshape"}

_CHANNEL_MULTIPLE = 4  # MLAS's indirect convolution wants it (MlasConvSym: KernelInputChannelAlignment)
_MOST_CHANNELS = 16  # with more, im2col copies long rows and costs little
_FEWEST_POSITIONS = 1024  # below, the padding costs more than it saves


def fuse_for_integers(graph: ir.Graph) -> None:
    """Bring every pattern around integers into the form ONNX Runtime has a kernel for."""
    _bracket_movements(graph)
    _lower_linear(graph)
    _lower_global_mean(graph)
    _clamp_integers(graph)
    _bracket_movements(graph)
    _pad_integers(graph)
    _align_channels(graph)


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
    restored = insert_pair(graph, output, node, grid, after=True)
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
    node.replace_input_with(0, insert_pair(graph, value, node, users[0].inputs[1:3], after=False))


def _lower_linear(graph: ir.Graph) -> None:
    """``MatMul(x, Transpose(w)) + b`` with quantized ``x`` ``[..., I]`` and ``w`` ``[O, I]`` -> one Gemm over ``[-1, I]``."""
    for matmul in [node for node in graph if node.op_type == "MatMul"]:
        weight = _transposed_weight(matmul.inputs[1])
        shape = static_shape(matmul.outputs[0])
        if weight is None or shape is None or activation_dequantize(matmul.inputs[0]) is None:
            continue
        replace_by_gemm(graph, matmul, weight, shape)


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


def replace_by_gemm(graph: ir.Graph, matmul: ir.Node, weight: ir.Value, shape: tuple[int, ...]) -> None:
    """Multiply all rows of ``x`` at once, adding the bias: ``Reshape -> Gemm -> Reshape``.

    Args:
        graph: Edited in place.
        matmul: ``x @ w``, followed by the addition of a bias or not.
        weight: ``[O, I]``.
        shape: Shape of the result, ``[..., O]``.
    """
    last, bias = _added_bias(matmul)
    source, result = matmul.inputs[0], last.outputs[0]
    if source is None:
        return
    rows, width = math.prod(shape[:-1]), static_shape(weight)
    if width is None:
        return
    flat = add_constant(graph, f"{result.name}_rows", np.array([rows, width[1]], np.int64))
    whole = add_constant(graph, f"{result.name}_shape", np.array(shape, np.int64))
    x = insert_before(
        graph, last, make("Reshape", [source, flat], name=f"{result.name}_flat", like=source, shape=(rows, width[1]))
    )
    inputs = [x, weight] if bias is None else [x, weight, bias]
    y = insert_before(
        graph, last, make("Gemm", inputs, name=f"{result.name}_gemm", like=result, shape=(rows, shape[-1]), transB=1)
    )
    replace(graph, last, insert_before(graph, last, make("Reshape", [y, whole], name=f"{result.name}_whole", like=result)))


def _lower_global_mean(graph: ir.Graph) -> None:
    """Quantized ``ReduceMean`` over every axis behind ``[N, C]`` -> GlobalAveragePool, reshaped as the mean was."""
    for node in [node for node in graph if node.op_type == "ReduceMean"]:
        source, result = node.inputs[0], node.outputs[0]
        shape, kept, axes = static_shape(source), static_shape(result), numpy_of(node.inputs[1] if len(node.inputs) > 1 else None)
        if (
            source is None
            or shape is None
            or kept is None
            or axes is None
            or activation_dequantize(source) is None
            or len(shape) < 3
        ):
            continue
        reduced = {int(axis) % len(shape) for axis in axes.tolist()}
        positions = {axis for axis in range(2, len(shape)) if shape[axis] != 1}
        if not positions <= reduced or reduced & {0, 1}:
            continue
        pooled_shape = (*shape[:2], *[1] * (len(shape) - 2))
        pooled = insert_before(
            graph, node, make("GlobalAveragePool", [source], name=f"{result.name}_pooled", like=source, shape=pooled_shape)
        )
        if kept != pooled_shape:
            target = add_constant(graph, f"{result.name}_shape", np.array(kept, np.int64))
            pooled = insert_before(
                graph, node, make("Reshape", [pooled, target], name=f"{result.name}_whole", like=source, shape=kept)
            )
        replace(graph, node, pooled)


def _pad_integers(graph: ir.Graph) -> None:
    """``DQ -> Pad(0) -> Q`` on one grid becomes a Pad of the integers with the zero point: real zero, exactly."""
    for node in [node for node in graph if node.op_type == "Pad"]:
        source, users = activation_dequantize(node.inputs[0]), list(node.outputs[0].consumers())
        value = numpy_of(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(())
        if (
            source is None
            or _is_wide(source)
            or len(users) != 1
            or users[0].op_type != "QuantizeLinear"
            or value is None
            or value.item() != 0
        ):
            continue
        last, result = users[0], users[0].outputs[0]
        if node.attributes["mode"].as_string() != "constant" or not _same_grid(source.inputs[1:3], last.inputs[1:3]):
            continue
        inputs = [source.inputs[0], node.inputs[1], last.inputs[2], *node.inputs[3:]]
        replace(
            graph,
            last,
            insert_before(graph, last, make("Pad", inputs, name=f"{result.name}_padded", like=result, mode="constant")),
        )


def _clamp_integers(graph: ir.Graph) -> None:
    """``op -> Relu or Clip -> Q`` becomes ``op -> Q -> Clip``: rounding is monotone, so the order does not matter.

    Such clamps remain where a grid is wider than the clamp, as where a concatenation shares it.
    """
    for node in [node for node in graph if node.op_type in {"Clip", "Relu"}]:
        value, result = node.inputs[0], node.outputs[0]
        users, maker = list(result.consumers()), value.producer() if value is not None else None
        alone = value is not None and len(value.uses()) == 1 and len(users) == 1 and users[0].op_type == "QuantizeLinear"
        if not alone or value is None or maker is None or maker.op_type not in _CLAMPED or result.is_graph_output():
            continue
        bounds = _clamp_bounds(node, users[0])
        if bounds is not None:
            users[0].replace_input_with(0, value)
            _clamp_after(graph, users[0], bounds)


def _clamp_after(graph: ir.Graph, last: ir.Node, bounds: tuple[Array, Array]) -> None:
    """Let everything that read the integers of ``last`` read them clamped; the clamped ones take over the name."""
    integers = last.outputs[0]
    name, readers = str(integers.name), list(integers.uses())
    limits = [add_constant(graph, f"{name}_{side}", bound) for side, bound in zip(("low", "high"), bounds, strict=True)]
    clamp = make("Clip", [integers, *limits], name=f"{name}_clamped", like=integers)
    graph.insert_after(last, clamp)
    for reader, index in readers:
        reader.replace_input_with(index, clamp.outputs[0])
    integers.name, clamp.outputs[0].name = f"{name}_unclamped", name


def _clamp_bounds(clamp: ir.Node, last: ir.Node) -> tuple[Array, Array] | None:
    """The clamp's two bounds as integers of the grid of ``last``; an open side is the end of the type."""
    scale, zero = (numpy_of(value) for value in last.inputs[1:3])
    if scale is None or zero is None or scale.ndim != 0 or zero.dtype == np.int16:  # ONNX Runtime has no Clip of int16
        return None
    ends = np.iinfo(zero.dtype)
    given = [np.zeros((), np.float32), None] if clamp.op_type == "Relu" else [*map(numpy_of, clamp.inputs[1:3]), None, None][:2]
    if clamp.op_type == "Clip" and any(
        value is not None and bound is None for value, bound in zip(clamp.inputs[1:3], given, strict=False)
    ):
        return None
    steps = [
        np.array(end, zero.dtype)
        if bound is None
        else quantize(
            bound, scale=float(scale), zero_point=int(zero), minimum=int(ends.min), maximum=int(ends.max), dtype=str(zero.dtype)
        )
        for bound, end in zip(given, (ends.min, ends.max), strict=True)
    ]
    return steps[0], steps[1]


def _is_wide(dequantize: ir.Node) -> bool:
    """Whether a dequantize restores 16-bit activations, for which ONNX Runtime has float kernels only."""
    zero = numpy_of(dequantize.inputs[2])
    return zero is not None and zero.dtype == np.int16


def _same_grid(first: Sequence[ir.Value | None], second: Sequence[ir.Value | None]) -> bool:
    pairs = [(numpy_of(a), numpy_of(b)) for a, b in zip(first, second, strict=True)]
    return all(a is not None and b is not None and a.dtype == b.dtype and a.item() == b.item() for a, b in pairs)


def _align_channels(graph: ir.Graph) -> None:
    """Give a convolution over a large image of few channels a multiple of four of them; the new ones meet zero weights."""
    for node in [node for node in graph if node.op_type == "Conv"]:
        source, weight = activation_dequantize(node.inputs[0]), producer(node.inputs[1], "DequantizeLinear")
        shape, result = static_shape(node.inputs[0]), static_shape(node.outputs[0])
        if source is None or weight is None or shape is None or result is None or not _wants_alignment(node, shape, result):
            continue
        if _is_wide(source):
            continue
        values = numpy_of(weight.inputs[0])
        if values is None or weight.inputs[0] is None or len(weight.inputs[0].uses()) != 1:
            continue
        missing = -shape[1] % _CHANNEL_MULTIPLE
        _set_weights(graph, weight.inputs[0], np.pad(values, [(0, 0), (0, missing), *[(0, 0)] * (values.ndim - 2)]))
        weight.outputs[0].shape = None
        padded_shape = (shape[0], shape[1] + missing, *shape[2:])
        _pad_channels(graph, node, source, missing, padded_shape)


def _wants_alignment(node: ir.Node, shape: tuple[int, ...], result: tuple[int, ...]) -> bool:
    grouped = "group" in node.attributes and node.attributes["group"].as_int() != 1
    few = shape[1] < _MOST_CHANNELS and shape[1] % _CHANNEL_MULTIPLE != 0
    return few and not grouped and math.prod(result[2:]) >= _FEWEST_POSITIONS


def _set_weights(graph: ir.Graph, weight: ir.Value, values: Array) -> None:
    """Replace the integers behind an initializer, which keeps its name."""
    name = str(weight.name)
    other = add_constant(graph, f"{name}_aligned", values)
    weight.replace_all_uses_with(other)
    graph.initializers.pop(name)
    rename_constant(graph, other, name)


def _pad_channels(graph: ir.Graph, node: ir.Node, source: ir.Node, missing: int, shape: tuple[int, ...]) -> None:
    integers, real = source.inputs[0], source.outputs[0]
    if integers is None:
        return
    widths = np.zeros(2 * len(shape), np.int64)
    widths[len(shape) + 1] = missing
    amounts = add_constant(graph, f"{integers.name}_pads", widths)
    name = f"{integers.name}_aligned"
    padded = insert_before(graph, node, make("Pad", [integers, amounts, source.inputs[2]], name=name, like=integers, shape=shape))
    restore = make("DequantizeLinear", [padded, *source.inputs[1:3]], name=f"{name}_restored", like=real, shape=shape)
    node.replace_input_with(0, insert_before(graph, node, restore))
