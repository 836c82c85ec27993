"""Tiny .tflite files, written with the schema's own classes."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

MIXED: dict[str, np.ndarray] = {
    "floats": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
    "words": np.array([3, -4, 5, 2**30], np.int32),
    "longs": np.array([[7, -(2**40)]], np.int64),
    "bytes": np.arange(-3, 3, dtype=np.int8),
    "pixels": np.array([0, 128, 255, 7], np.uint8),
    "flags": np.array([True, False, True]),
}
_TYPES = {
    "float32": schema.TensorType.FLOAT32, "int32": schema.TensorType.INT32, "int64": schema.TensorType.INT64,
    "int8": schema.TensorType.INT8, "uint8": schema.TensorType.UINT8, "bool": schema.TensorType.BOOL,
}  # fmt: skip


class Graph:
    """One subgraph in the making."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version, self.model.buffers, self.model.operatorCodes = 3, [schema.BufferT()], []
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]

    def tensor(
        self, name: str, dtype: str, shape: tuple[int, ...], *, data: np.ndarray | None = None, scale: Any = None, zero: int = 0
    ) -> int:
        made = schema.TensorT()
        made.name, made.type, made.shape = name, _TYPES[dtype], list(shape)
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            made.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        if scale is not None:
            grid = schema.QuantizationParametersT()
            scales = np.atleast_1d(np.asarray(scale, np.float32))
            grid.scale, grid.zeroPoint = list(scales), [zero] * len(scales)
            made.quantization = grid
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def operator(self, code: int, inputs: list[int], outputs: list[int], options: Any = None, kind: int = 0) -> None:
        codes = [found.builtinCode for found in self.model.operatorCodes]
        if code not in codes:
            made = schema.OperatorCodeT()
            made.builtinCode, made.deprecatedBuiltinCode, made.version = code, min(code, 127), 1
            if code == schema.BuiltinOperator.CUSTOM:
                made.customCode = "NobodyKnowsThis"
            self.model.operatorCodes.append(made)
            codes.append(code)
        one = schema.OperatorT()
        one.opcodeIndex, one.inputs, one.outputs = codes.index(code), inputs, outputs
        one.builtinOptions, one.builtinOptionsType = options, kind
        self.graph.operators.append(one)

    def finish(self, inputs: list[int], outputs: list[int], signature: tuple[list[str], list[str]] | None = None) -> bytes:
        self.graph.inputs, self.graph.outputs = inputs, outputs
        if signature is not None:
            made = schema.SignatureDefT()
            made.signatureKey = "serving_default"
            made.inputs = [self._named(name, place) for name, place in zip(signature[0], inputs, strict=True)]
            made.outputs = [self._named(name, place) for name, place in zip(signature[1], outputs, strict=True)]
            self.model.signatureDefs = [made]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _named(self, name: str, place: int) -> Any:
        made = schema.TensorMapT()
        made.name, made.tensorIndex = name, place
        return made


def int8_net() -> bytes:
    """Convolution [9, 8, 3] -> [9, 8, 16] with weights by channel and a fused ReLU, then a mean; int8 at both ends."""
    random, graph = np.random.default_rng(0), Graph()
    weights = random.integers(-127, 128, (16, 3, 3, 3), np.int8)
    scales = random.uniform(0.002, 0.01, 16).astype(np.float32)
    image = graph.tensor("x:0", "int8", (1, 9, 8, 3), scale=0.03, zero=-5)
    kernel = graph.tensor("weights", "int8", weights.shape, data=weights, scale=scales)
    biases = random.integers(-900, 900, 16).astype(np.int32)
    bias = graph.tensor("bias", "int32", (16,), data=biases, scale=np.float32(0.03) * scales)
    hidden = graph.tensor("hidden", "int8", (1, 9, 8, 16), scale=0.02, zero=-128)
    axes = graph.tensor("axes", "int32", (2,), data=np.array([1, 2], np.int32))
    output = graph.tensor("y:0", "int8", (1, 16), scale=0.011, zero=-100)
    convolution, mean = schema.Conv2DOptionsT(), schema.ReducerOptionsT()
    convolution.strideW = convolution.strideH = convolution.dilationWFactor = convolution.dilationHFactor = 1
    convolution.fusedActivationFunction = schema.ActivationFunctionType.RELU
    kinds = schema.BuiltinOptions
    graph.operator(schema.BuiltinOperator.CONV_2D, [image, kernel, bias], [hidden], convolution, kinds.Conv2DOptions)
    graph.operator(schema.BuiltinOperator.MEAN, [hidden, axes], [output], mean, kinds.ReducerOptions)
    return graph.finish([image], [output], (["image"], ["scores"]))


def mixed_types() -> bytes:
    """Doubles what can be added, reshapes the rest; the outputs stand in another order than the inputs."""
    graph = Graph()
    inputs = [graph.tensor(name, str(value.dtype), value.shape) for name, value in MIXED.items()]
    outputs = []
    for place, (name, value) in zip(inputs, MIXED.items(), strict=True):
        if name in {"floats", "words", "longs"}:
            outputs.append(graph.tensor(f"{name}_twice", str(value.dtype), value.shape))
            kind = schema.BuiltinOptions.AddOptions
            graph.operator(schema.BuiltinOperator.ADD, [place, place], [outputs[-1]], schema.AddOptionsT(), kind)
            continue
        shape = np.array([value.size, 1], np.int32)
        new = graph.tensor(f"{name}_shape", "int32", (2,), data=shape)
        outputs.append(graph.tensor(f"{name}_again", str(value.dtype), (value.size, 1)))
        options = schema.ReshapeOptionsT()
        options.newShape = list(shape)
        kind = schema.BuiltinOptions.ReshapeOptions
        graph.operator(schema.BuiltinOperator.RESHAPE, [place, new], [outputs[-1]], options, kind)
    return graph.finish(inputs, outputs[::-1])


def unknown_operator() -> bytes:
    """A file with an operator no runtime has."""
    graph = Graph()
    source, output = (graph.tensor(name, "float32", (4,)) for name in ("x", "y"))
    graph.operator(schema.BuiltinOperator.CUSTOM, [source], [output])
    return graph.finish([source], [output])
