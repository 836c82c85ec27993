"""The same file on other grids: every scale of an activation times a factor of its own, so that nothing about it is convenient.

edgekit's recipes choose scales on which executors rarely part. Files of other makers have any scale at all; these stand for them.
Tensors that only move integers keep one scale; biases follow their layer's.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper

__all__ = ["regrid_onnx", "regrid_tflite"]

_LEAST, _MOST = 0.7, 1.4
_MOVING = {"PAD", "PADV2", "RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "MAX_POOL_2D", "SLICE", "STRIDED_SLICE"}
_WITH_BIAS = {"CONV_2D": (0, 1, 2), "DEPTHWISE_CONV_2D": (0, 1, 2), "FULLY_CONNECTED": (0, 1, 2)}


def regrid_tflite(data: bytes, *, seed: int) -> bytes:
    """A .tflite file with other scales."""
    schema = importlib.import_module("ai_edge_litert.schema_py_generated")
    flatbuffers = importlib.import_module("flatbuffers")
    file: Any = schema.ModelT.InitFromPackedBuf(data, 0)
    graph, random = file.subgraphs[0], np.random.default_rng(seed)
    kinds = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    codes = [kinds[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in file.operatorCodes]
    for operator in graph.operators:
        kind, made = codes[operator.opcodeIndex], graph.tensors[int(operator.outputs[0])].quantization
        source = graph.tensors[int(operator.inputs[0])].quantization
        if made is None or made.scale is None or len(made.scale) != 1:
            continue
        if kind in _MOVING:
            made.scale = source.scale
            if kind == "PADV2":
                graph.tensors[int(operator.inputs[2])].quantization.scale = source.scale
        else:
            made.scale = [float(np.float32(made.scale[0] * random.uniform(_LEAST, _MOST)))]
        if kind in _WITH_BIAS and len(operator.inputs) > 2 and operator.inputs[2] >= 0:
            weights, bias = (graph.tensors[int(operator.inputs[at])].quantization for at in (1, 2))
            bias.scale = [float(np.float32(source.scale[0]) * np.float32(scale)) for scale in weights.scale]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(file.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def regrid_onnx(data: bytes, *, seed: int) -> bytes:
    """A .onnx file with other scales: whoever shares a scale shares the new one."""
    model, random = onnx.load_model_from_string(data), np.random.default_rng(seed)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    scales = {node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    for name in sorted(scales):
        value = onnx.numpy_helper.to_array(constants[name])
        changed = (value * np.float32(random.uniform(_LEAST, _MOST))).astype(np.float32)
        constants[name].CopyFrom(onnx.numpy_helper.from_array(changed, name))
    producers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type in {"Conv", "Gemm"} and len(node.input) > 2:
            sources = [producers[name] for name in node.input]
            one, other = (onnx.numpy_helper.to_array(constants[source.input[1]]) for source in sources[:2])
            place = constants[sources[2].input[1]]
            place.CopyFrom(onnx.numpy_helper.from_array((one * other).astype(np.float32), place.name))
    altered: bytes = model.SerializeToString()
    return altered
