"""Integer kernels the LiteRT compiler leaves out: transposed convolutions, requantizing between types, 64-bit biases.

::

    int8 x ─ DEQUANTIZE ─ TRANSPOSE_CONV(float weights) ─ QUANTIZE ─ int8 y
    int8 x ───────────── TRANSPOSE_CONV(int8 weights, int32 bias) ─── int8 y
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit.converters.tflite_flatbuffer import Graph
    from edgekit.core.contract import QuantizationContract, TensorQuantization
    from edgekit.core.tensors import Array

__all__ = ["quantize_transposed_convolutions", "remove_fences", "widen_biases"]

_FILE_AXES = (1, 2, 3, 0)  # [I, O, H, W] -> [O, H, W, I]
_FUSED = {"RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}  # schema.fbs: ActivationFunctionType
_BIASES = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}
"""Where each kernel reads its bias."""
_VERSION_WITH_BIAS_AND_ACTIVATION = 4  # tflite/tools/versioning/op_version.cc


def quantize_transposed_convolutions(graph: Graph, contract: QuantizationContract, integers: Mapping[str, Array]) -> None:
    """Put the contract's integers into every transposed convolution that stands between a dequantize and a quantize.

    Args:
        graph: Edited in place.
        contract: Weight and bias entries.
        integers: Their integers, in the program's layout.
    """
    weights = [entry for entry in contract.parameters if entry.role == "weight" and entry.op == "conv_transpose"]
    producers, readers = graph.producers(), graph.readers()
    for operator in [found for found in graph.operators if graph.kind(found) == "TRANSPOSE_CONV"]:
        before, after = producers.get(int(operator.inputs[2])), _followers(graph, operator, readers)
        if before is None or graph.kind(before) != "DEQUANTIZE" or not after:
            continue
        stored = graph.constant(int(operator.inputs[1]))
        entry = next((found for found in weights if stored is not None and _is_same(stored, found, integers[found.name])), None)
        if entry is not None:
            bias = next(
                (found for found in contract.parameters if found.name == f"{entry.name.removesuffix('.weight')}.bias"), None
            )
            _replace(graph, operator, before, after, entry, bias, integers)


def remove_fences(graph: Graph) -> None:
    """Take out each ``CEIL(FLOOR(x))`` that kept two grids apart, and requantize integers directly between them."""
    producers, readers = graph.producers(), graph.readers()
    for ceil in [operator for operator in graph.operators if graph.kind(operator) == "CEIL"]:
        floor = producers.get(int(ceil.inputs[0]))
        if floor is None or graph.kind(floor) != "FLOOR":
            continue
        source, users = int(floor.inputs[0]), readers.get(int(ceil.outputs[0]), [])
        graph.redirect(int(ceil.outputs[0]), source, operators=users)
        before = producers.get(source)
        if before is not None and graph.kind(before) == "DEQUANTIZE":
            graph.redirect(source, int(before.inputs[0]), operators=[user for user in users if graph.kind(user) == "QUANTIZE"])
    graph.remove_dead()


def widen_biases(graph: Graph, contract: QuantizationContract, integers: Mapping[str, Array]) -> None:
    """Store biases beside int16 activations as int64, as TFLite's 16x8 kernels want them.

    Beyond 2**24 the compiler, which divides in float32, finds a neighbour of the contract's integer; the contract's is stored.

    Args:
        graph: Edited in place.
        contract: Bias entries.
        integers: Their integers.
    """
    import numpy as np

    biases = [entry for entry in contract.parameters if entry.role == "bias"]
    for operator in graph.operators:
        reads = [int(index) for index in operator.inputs]
        position = _BIASES.get(graph.kind(operator))
        if position is None or len(reads) <= position or reads[position] < 0 or "int16" not in map(graph.dtype, reads[:position]):
            continue
        value, grid = graph.constant(reads[position]), graph.scales(reads[position])
        if value is not None and grid is not None and value.dtype == np.int32:
            near = [entry for entry in biases if _is_near(value, integers[entry.name])]
            exact = integers[near[0].name] if near else value
            reads[position] = graph.add_constant(exact.astype(np.int64), scales=near[0].scale if near else grid[0].tolist())
            operator.inputs = reads


def _is_near(stored: Array, integers: Array) -> bool:
    import numpy as np

    return stored.shape == integers.shape and bool(np.allclose(stored, integers, rtol=2.0**-22, atol=0.5))


def _followers(graph: Graph, operator: Any, readers: Mapping[int, list[Any]]) -> list[Any]:
    """``[QUANTIZE]``, or ``[RELU, QUANTIZE]`` and the like, if that is all that reads the operator; else nothing."""
    found: list[Any] = []
    current = operator
    while len(after := readers.get(int(current.outputs[0]), [])) == 1 and len(found) < 2:
        current = after[0]
        found.append(current)
        if graph.kind(current) == "QUANTIZE":
            return found
        if graph.kind(current) not in _FUSED or operator.builtinOptions.fusedActivationFunction:
            break
    return []


def _in_file_layout(value: Array) -> Array:
    return (value[:, :, None, :] if value.ndim == 3 else value).transpose(_FILE_AXES)


def _is_same(stored: Array, entry: TensorQuantization, integers: Array) -> bool:
    """Whether a float constant is the entry's weight."""
    import numpy as np

    laid = _in_file_layout(integers)
    if stored.shape != laid.shape or stored.dtype != np.float32:
        return False
    real = laid.astype(np.float32) * np.asarray(entry.scale, np.float32)[:, None, None, None]
    return bool(np.allclose(stored, real, rtol=1e-5, atol=0.0))


def _replace(
    graph: Graph,
    operator: Any,
    before: Any,
    after: list[Any],
    weight: TensorQuantization,
    bias: TensorQuantization | None,
    integers: Mapping[str, Array],
) -> None:
    import numpy as np

    reads = [int(index) for index in operator.inputs]
    shift = []
    if bias is not None:
        shift = [graph.add_constant(integers[bias.name], scales=bias.scale)]
    elif len(reads) > 3:
        stored, grid = graph.constant(reads[3]), graph.scales(int(before.inputs[0]))
        if stored is None or grid is None or stored.any():  # a bias the contract knows nothing of
            return
        scales = grid[0][0] * np.asarray(weight.scale, np.float32)
        shift = [graph.add_constant(np.zeros(stored.shape, np.int32), scales=scales.tolist())]
    kernel = graph.add_constant(_in_file_layout(integers[weight.name]), scales=weight.scale)
    operator.inputs = [reads[0], kernel, int(before.inputs[0]), *shift]
    operator.outputs = [int(after[-1].outputs[0])]
    for follower in after:
        operator.builtinOptions.fusedActivationFunction |= _FUSED.get(graph.kind(follower), 0)
        graph.operators.remove(follower)
    graph.require_version(operator, _VERSION_WITH_BIAS_AND_ACTIVATION)
