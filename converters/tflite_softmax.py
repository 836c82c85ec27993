"""Softmax on the only grid TFLite's integer kernel writes: scale 1/256, zero point -128 (the quantization specification).

Where the contract has another grid for it, as behind a masked attention, the values are quantized once more onto that one::

    int8 x ─ SOFTMAX ─ int8 1/256 ─ QUANTIZE ─ int8 y on the contract's grid
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edgekit.converters.tflite_flatbuffer import Graph

__all__ = ["softmax_on_its_grid"]

_SCALE, _ZERO_POINT = 1 / 256, -128


def softmax_on_its_grid(graph: Graph) -> int:
    """Put an operator behind every int8 softmax whose result is on another grid; how many there were."""
    count = 0
    for operator in list(graph.operators):
        if graph.kind(operator) != "SOFTMAX":
            continue
        written = int(operator.outputs[0])
        grid = graph.scales(written)
        if graph.dtype(written) != "int8" or grid is None or _is_fixed(float(grid[0][0]), int(grid[1][0])):
            continue
        fixed = graph.add_tensor("softmax", like=written)
        quantization = copy.copy(graph.subgraph.tensors[written].quantization)
        graph.subgraph.tensors[fixed].quantization = quantization
        quantization.scale = np.asarray([_SCALE], np.float32)
        quantization.zeroPoint = np.asarray([_ZERO_POINT], np.int64)
        operator.outputs = [fixed]
        place = graph.operators.index(operator) + 1
        graph.operators.insert(place, graph.make_operator("QUANTIZE", reads=[fixed], writes=[written]))
        count += 1
    return count


def _is_fixed(scale: float, zero_point: int) -> bool:
    return abs(scale - _SCALE) < 1e-7 and zero_point == _ZERO_POINT
