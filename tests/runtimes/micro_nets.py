"""One int8 layer each, drawn at random: real ``.tflite`` files, written with the schema's own classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.runtimes.native.tflite_models import Graph, schema

KINDS = schema.BuiltinOptions
OPERATORS = schema.BuiltinOperator
SHAPE = (1, 6, 5, 8)
SCALE = 0.03


def _options(made: Any, **fields: Any) -> Any:
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def _edges(graph: Graph, shape: tuple[int, ...], *, scale: float = 0.05, zero: int = 3) -> tuple[int, int]:
    return graph.tensor("x", "int8", SHAPE, scale=SCALE, zero=-4), graph.tensor("y", "int8", shape, scale=scale, zero=zero)


def _weights(graph: Graph, random: np.random.Generator, shape: tuple[int, ...], *, channels: int, axis: int) -> tuple[int, int]:
    """A kernel with a scale for every channel along ``axis`` (one for all where ``channels`` is 1), and its bias."""
    scales = random.uniform(0.002, 0.01, channels).astype(np.float32)
    kernel = graph.tensor("w", "int8", shape, data=random.integers(-127, 128, shape, np.int8), scale=scales)
    graph.graph.tensors[kernel].quantization.quantizedDimension = axis
    count = shape[axis]
    bias = random.integers(-900, 900, count).astype(np.int32)
    grid = np.float32(SCALE) * (scales if channels > 1 else np.float32(scales[0]))
    return kernel, graph.tensor("b", "int32", (count,), data=bias, scale=grid)


def convolution(random: np.random.Generator) -> bytes:
    graph = Graph()
    x, y = _edges(graph, (1, 6, 5, 12))
    kernel, bias = _weights(graph, random, (12, 3, 3, 8), channels=12, axis=0)
    options = _options(schema.Conv2DOptionsT(), strideW=1, strideH=1, dilationWFactor=1, dilationHFactor=1)
    graph.operator(OPERATORS.CONV_2D, [x, kernel, bias], [y], options, KINDS.Conv2DOptions)
    return graph.finish([x], [y])


def depthwise(random: np.random.Generator) -> bytes:
    graph = Graph()
    x, y = _edges(graph, SHAPE)
    kernel, bias = _weights(graph, random, (1, 3, 3, 8), channels=8, axis=3)
    options = _options(
        schema.DepthwiseConv2DOptionsT(), strideW=1, strideH=1, dilationWFactor=1, dilationHFactor=1, depthMultiplier=1
    )
    graph.operator(OPERATORS.DEPTHWISE_CONV_2D, [x, kernel, bias], [y], options, KINDS.DepthwiseConv2DOptions)
    return graph.finish([x], [y])


def fully_connected(random: np.random.Generator, *, channels: int = 1) -> bytes:
    graph = Graph()
    x, y = _edges(graph, (30, 16))
    kernel, bias = _weights(graph, random, (16, 8), channels=channels, axis=0)
    options = schema.FullyConnectedOptionsT()
    graph.operator(OPERATORS.FULLY_CONNECTED, [x, kernel, bias], [y], options, KINDS.FullyConnectedOptions)
    return graph.finish([x], [y])


def addition(random: np.random.Generator) -> bytes:
    graph = Graph()
    x, y = _edges(graph, SHAPE, scale=0.04)
    constant = graph.tensor("c", "int8", SHAPE, data=random.integers(-128, 128, SHAPE, np.int8), scale=0.021, zero=7)
    graph.operator(OPERATORS.ADD, [x, constant], [y], schema.AddOptionsT(), KINDS.AddOptions)
    return graph.finish([x], [y])


def multiplication(random: np.random.Generator) -> bytes:
    graph = Graph()
    x, y = _edges(graph, SHAPE, scale=0.04)
    constant = graph.tensor("c", "int8", SHAPE, data=random.integers(-128, 128, SHAPE, np.int8), scale=0.021, zero=7)
    graph.operator(OPERATORS.MUL, [x, constant], [y], schema.MulOptionsT(), KINDS.MulOptions)
    return graph.finish([x], [y])


def mean(_: np.random.Generator) -> bytes:
    graph = Graph()
    x, y = _edges(graph, (1, 8), scale=0.011)
    axes = graph.tensor("axes", "int32", (2,), data=np.array([1, 2], np.int32))
    graph.operator(OPERATORS.MEAN, [x, axes], [y], schema.ReducerOptionsT(), KINDS.ReducerOptions)
    return graph.finish([x], [y])


def softmax(_: np.random.Generator) -> bytes:
    graph = Graph()
    x, y = _edges(graph, SHAPE, scale=1 / 256, zero=-128)
    graph.operator(OPERATORS.SOFTMAX, [x], [y], _options(schema.SoftmaxOptionsT(), beta=1.0), KINDS.SoftmaxOptions)
    return graph.finish([x], [y])


def logistic(_: np.random.Generator) -> bytes:
    graph = Graph()
    x, y = _edges(graph, SHAPE, scale=1 / 256, zero=-128)
    graph.operator(OPERATORS.LOGISTIC, [x], [y])
    return graph.finish([x], [y])


def _pool(code: int) -> bytes:
    graph = Graph()
    x, y = _edges(graph, (1, 3, 2, 8), scale=SCALE, zero=-4)
    options = _options(schema.Pool2DOptionsT(), strideW=2, strideH=2, filterWidth=2, filterHeight=2, padding=schema.Padding.VALID)
    graph.operator(code, [x], [y], options, KINDS.Pool2DOptions)
    return graph.finish([x], [y])


def max_pool(_: np.random.Generator) -> bytes:
    return _pool(OPERATORS.MAX_POOL_2D)


def average_pool(_: np.random.Generator) -> bytes:
    return _pool(OPERATORS.AVERAGE_POOL_2D)


def concatenation(random: np.random.Generator) -> bytes:
    graph = Graph()
    x, y = _edges(graph, (1, 6, 5, 16), scale=SCALE, zero=-4)
    constant = graph.tensor("c", "int8", SHAPE, data=random.integers(-128, 128, SHAPE, np.int8), scale=SCALE, zero=-4)
    options = _options(schema.ConcatenationOptionsT(), axis=3)
    graph.operator(OPERATORS.CONCATENATION, [x, constant], [y], options, KINDS.ConcatenationOptions)
    return graph.finish([x], [y])


def padding(_: np.random.Generator) -> bytes:
    graph = Graph()
    x, y = _edges(graph, (1, 8, 6, 8), scale=SCALE, zero=-4)
    pads = graph.tensor("pads", "int32", (4, 2), data=np.array([[0, 0], [1, 1], [0, 1], [0, 0]], np.int32))
    graph.operator(OPERATORS.PAD, [x, pads], [y], schema.PadOptionsT(), KINDS.PadOptions)
    return graph.finish([x], [y])


def requantization(_: np.random.Generator) -> bytes:
    graph = Graph()
    x, y = _edges(graph, SHAPE, scale=0.047, zero=11)
    graph.operator(OPERATORS.QUANTIZE, [x], [y], schema.QuantizeOptionsT(), KINDS.QuantizeOptions)
    return graph.finish([x], [y])


LAYERS: dict[str, Callable[[np.random.Generator], bytes]] = {
    made.__name__: made
    for made in (
        convolution, depthwise, addition, multiplication, mean, softmax, logistic, max_pool, average_pool,
        concatenation, padding, requantization,
    )
}  # fmt: skip


def chain(operators: list[tuple[str, int]], dtype: str = "int8") -> bytes:
    """Operators of one input and one output, without options, one after the other; (layer, code)."""
    graph = Graph()
    source = place = graph.tensor("x", dtype, (1, 4), scale=0.1 if dtype == "int8" else None)
    for layer, code in operators:
        after = graph.tensor(layer, dtype, (1, 4), scale=0.1 if dtype == "int8" else None)
        graph.operator(code, [place], [after])
        place = after
    return graph.finish([source], [place])
