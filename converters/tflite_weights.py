"""Small weights in a ``.tflite`` graph.

============== =============================================================================================
weights        in the file
============== =============================================================================================
int8, int4     quantized constant -> ``DEQUANTIZE`` -> float kernel; LiteRT restores it once, when it plans its memory
blocks         constant ``[channels * blocks, block]``, one scale a row -> ``DEQUANTIZE`` -> ``RESHAPE`` -> float kernel
float16        float16 constant -> ``DEQUANTIZE`` -> float kernel
w4a8           int4 constant, read by the integer kernel itself where there is one for it
dynamic-int8   int8 constant, read by ``FULLY_CONNECTED``, which quantizes its float input at run time
============== =============================================================================================

A float kernel that reads an integer constant directly would do the last everywhere, and a weight-only model would not
compute what its recipe says. Blocks that ``FULLY_CONNECTED`` reads directly imply the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit.converters.tflite_flatbuffer import Graph
    from edgekit.converters.weights import SmallWeight
    from edgekit.core.contract import TensorQuantization

__all__ = ["FOUR_BIT_KERNELS", "pack_weights", "store_weights"]

FOUR_BIT_KERNELS = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
"""Operators whose int8 kernels also take int4 weights (tensorflow/lite/kernels)."""

_ORDERS: dict[int, list[tuple[int, ...]]] = {
    2: [(0, 1), (1, 0)],
    3: [(0, 2, 1), (1, 2, 0), (0, 1, 2)],
    4: [(0, 2, 3, 1), (1, 2, 3, 0), (0, 1, 2, 3)],
    5: [(2, 3, 4, 1, 0), (0, 2, 3, 4, 1), (0, 1, 2, 3, 4)],
}
"""Axes of the program's weight in the order a file may have them; see :mod:`edgekit.converters.tflite_recognise`."""

_VERSIONS = {"float16": 3, "int8": 5, "int4": 6}
_HYBRID_VERSION = 12
"""Kernel versions (tflite/tools/versioning/op_version.cc): DEQUANTIZE by type, FULLY_CONNECTED with one scale a channel."""


def store_weights(graph: Graph, weights: Iterable[SmallWeight]) -> None:
    """Replace the float constants in which weights are found; a weight that is not found stays as it is."""
    left = list(weights)
    readers = graph.readers()
    for index in range(len(graph.subgraph.tensors)):
        value = graph.constant(index)
        if value is None or graph.dtype(index) != "float32" or value.ndim < len("OI"):
            continue
        found = next(((weight, order) for weight in left if (order := _order(weight, value)) is not None), None)
        if found is None:
            continue
        weight, order = found
        products = [reader for reader in readers.get(index, []) if graph.kind(reader) == "FULLY_CONNECTED"]
        if weight.is_dynamic and order == (0, 1) and len(products) == len(readers.get(index, [])):
            _read_directly(graph, index, weight, products)
        else:
            _restore(graph, index, weight, order, readers.get(index, []))


def pack_weights(graph: Graph, entries: Sequence[TensorQuantization], tensors: Mapping[str, int]) -> None:
    """Store int8 constants of integer kernels, whose values fit 4 bits, as int4 where the kernels take them."""
    readers = graph.readers()
    for entry in entries:
        index = tensors.get(entry.name)
        if index is not None and all(graph.kind(reader) in FOUR_BIT_KERNELS for reader in readers.get(index, [])):
            graph.pack_int4(index)


def _order(weight: SmallWeight, value: Any) -> tuple[int, ...] | None:
    import numpy as np

    for order in _ORDERS.get(weight.decoded.ndim, []):
        laid = weight.decoded.transpose(order)
        squeezed = [size for size in value.shape if size != 1] == [size for size in laid.shape if size != 1]
        if squeezed and np.array_equal(value.reshape(laid.shape), laid):
            return order
    return None


def _restore(graph: Graph, index: int, weight: SmallWeight, order: Sequence[int], readers: Sequence[Any]) -> None:
    """Put a small constant and what restores it before the readers of a float one."""
    shape, entry = graph.shape(index), weight.entry
    laid = weight.stored.transpose(order)
    rows = entry.block_size is not None
    if rows and list(order)[-1] != 1 and math.prod(laid.shape[list(order).index(1) + 1 :]) != 1:
        return  # blocks that do not lie together in the file
    if entry.dtype == "float16":
        stored = graph.add_constant(laid.reshape(shape), scales=())
    elif rows:
        stored = graph.add_constant(laid.reshape(-1, entry.block_size or 1), scales=entry.scale)
    else:
        axis = _axis_in(shape, laid.shape, list(order).index(entry.channel_axis or 0))
        stored = graph.add_constant(laid.reshape(shape), scales=entry.scale, axis=axis)
    if entry.dtype == "int4":
        graph.pack_int4(stored)
    real = graph.add_tensor("restored", like=index, shape=graph.shape(stored))
    dequantize = graph.make_operator("DEQUANTIZE", reads=[stored], writes=[real])
    graph.require_version(dequantize, _VERSIONS[entry.dtype])
    graph.operators.insert(0, dequantize)
    if rows:
        real = _reshape(graph, real, like=index)
    graph.redirect(index, real, operators=readers)


def _axis_in(shape: Sequence[int], laid: Sequence[int], axis: int) -> int:
    """Where an axis is in a shape that has more axes of size 1 (1-D layers have height 1 in a file)."""
    rank = len([size for size in laid[:axis] if size != 1])
    wide = [position for position, size in enumerate(shape) if size != 1]
    return wide[rank] if laid[axis] != 1 and rank < len(wide) else axis


def _reshape(graph: Graph, source: int, *, like: int) -> int:
    import numpy as np

    sizes = graph.add_tensor("shape", like=source, dtype="int32")
    graph.set_constant(sizes, np.asarray(graph.shape(like), np.int32))
    result = graph.add_tensor("reshaped", like=like)
    graph.operators.insert(1, graph.make_operator("RESHAPE", reads=[source, sizes], writes=[result]))
    return result


def _read_directly(graph: Graph, index: int, weight: SmallWeight, products: Sequence[Any]) -> None:
    """Let a matrix product read integers: its kernel then quantizes its other operand at run time."""
    stored = graph.add_constant(weight.stored.reshape(graph.shape(index)), scales=weight.entry.scale)
    graph.redirect(index, stored, operators=products)
    for product in products:
        product.builtinOptions.asymmetricQuantizeInputs = True
        graph.require_version(product, _HYBRID_VERSION)
