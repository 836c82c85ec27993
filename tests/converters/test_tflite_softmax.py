"""Softmax on another grid than TFLite's integer kernel writes: refused as it is, right with one operator more."""

from __future__ import annotations

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from edgekit.converters.tflite_flatbuffer import Graph
from edgekit.converters.tflite_softmax import softmax_on_its_grid


def make_file(scale: float) -> bytes:
    """``softmax(x)`` in int8: x is [1, 6] on scale 1/16, the result on ``scale`` with zero point -128."""

    def tensor(name: str, step: float, zero_point: int) -> schema.TensorT:
        grid = schema.QuantizationParametersT(
            scale=np.array([step], np.float32), zeroPoint=np.array([zero_point], np.int64), quantizedDimension=0
        )
        return schema.TensorT(
            name=name, type=schema.TensorType.INT8, shape=np.array([1, 6], np.int32), buffer=0, quantization=grid
        )

    softmax = schema.OperatorT(
        opcodeIndex=0, inputs=[0], outputs=[1],
        builtinOptionsType=schema.BuiltinOptions.SoftmaxOptions, builtinOptions=schema.SoftmaxOptionsT(beta=1.0),
    )  # fmt: skip
    kind = schema.BuiltinOperator.SOFTMAX
    model = schema.ModelT(
        version=3,
        operatorCodes=[schema.OperatorCodeT(builtinCode=kind, deprecatedBuiltinCode=kind, version=2)],
        subgraphs=[
            schema.SubGraphT(
                tensors=[tensor("x", 1 / 16, 0), tensor("y", scale, -128)],
                inputs=[0],
                outputs=[1],
                operators=[softmax],
                name="main",
            )
        ],
        buffers=[schema.BufferT()],
    )
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def test_another_grid_gets_an_operator_more() -> None:
    scale = 0.7 / 255
    with pytest.raises(RuntimeError, match="scale not near"):
        Interpreter(model_content=make_file(scale)).allocate_tensors()
    graph = Graph(make_file(scale))
    assert softmax_on_its_grid(graph) == 1
    assert [graph.kind(operator) for operator in graph.operators] == ["SOFTMAX", "QUANTIZE"]
    assert float(graph.scales(1)[0][0]) == np.float32(scale)  # type: ignore[index]
    interpreter = Interpreter(model_content=graph.to_bytes())
    interpreter.allocate_tensors()
    x = np.array([[3, -20, 14, 30, 0, 7]], np.int8)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    exact = np.exp(x / 16) / np.exp(x / 16).sum()
    expected = np.clip(np.rint(exact / scale) - 128, -128, 127)
    assert np.abs(found - expected).max() <= 2  # rounded twice: by 1/256, then by the contract's step


def test_its_own_grid_is_left_alone() -> None:
    graph = Graph(make_file(1 / 256))
    assert softmax_on_its_grid(graph) == 0
    assert len(graph.operators) == 1
