"""Reading, editing and writing .tflite files."""

from __future__ import annotations

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from edgekit.converters.tflite_flatbuffer import Graph
from edgekit.converters.tflite_layout import describe_transposes, remove_idle_transposes


def make_file() -> bytes:
    """``mean(transpose(x), [2, 3])`` and an operator nobody reads: x is [1, 2, 3, 4], axis 3 goes to place 1."""
    float32, int32 = schema.TensorType.FLOAT32, schema.TensorType.INT32

    def tensor(name: str, kind: int, shape: list[int], buffer: int = 0) -> schema.TensorT:
        return schema.TensorT(name=name, type=kind, shape=np.array(shape, np.int32), buffer=buffer)

    def buffer(values: list[int]) -> schema.BufferT:
        return schema.BufferT(data=np.frombuffer(np.array(values, np.int32).tobytes(), np.uint8))

    tensors = [
        tensor("x", float32, [1, 2, 3, 4]), tensor("order", int32, [4], 1), tensor("moved", float32, [1, 4, 2, 3]),
        tensor("axes", int32, [2], 2), tensor("y", float32, [1, 4]), tensor("unread", float32, [1, 4]),
        tensor("axes too", int32, [2], 3),
    ]  # fmt: skip
    reducer = schema.BuiltinOptions.ReducerOptions
    operators = [
        schema.OperatorT(opcodeIndex=1, inputs=[0, 1], outputs=[2]),
        schema.OperatorT(
            opcodeIndex=2, inputs=[2, 3], outputs=[4], builtinOptionsType=reducer, builtinOptions=schema.ReducerOptionsT()
        ),
        schema.OperatorT(
            opcodeIndex=2, inputs=[2, 6], outputs=[5], builtinOptionsType=reducer, builtinOptions=schema.ReducerOptionsT()
        ),
    ]
    kinds = [schema.BuiltinOperator.ADD, schema.BuiltinOperator.TRANSPOSE, schema.BuiltinOperator.MEAN]
    model = schema.ModelT(
        version=3,
        operatorCodes=[schema.OperatorCodeT(builtinCode=kind, deprecatedBuiltinCode=kind) for kind in kinds],
        subgraphs=[schema.SubGraphT(tensors=tensors, inputs=[0], outputs=[4], operators=operators, name="main")],
        buffers=[schema.BufferT(), buffer([0, 3, 1, 2]), buffer([2, 3]), buffer([2, 3])],
    )
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def run(data: bytes, x: np.ndarray) -> np.ndarray:
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, 2, 3, 4), np.float32)


def test_reads_what_is_there() -> None:
    graph = Graph(make_file())
    assert [graph.kind(operator) for operator in graph.operators] == ["TRANSPOSE", "MEAN", "MEAN"]
    assert (graph.inputs, graph.outputs) == ([0], [4])
    assert (graph.name(0), graph.shape(0), graph.dtype(0), graph.constant(0), graph.scales(0)) == (
        "x",
        (1, 2, 3, 4),
        "float32",
        None,
        None,
    )
    np.testing.assert_array_equal(graph.constant(1), [0, 3, 1, 2])
    assert graph.producers()[4] is graph.operators[1]
    assert graph.readers()[2] == graph.operators[1:]


def test_written_file_computes_the_same(x: np.ndarray) -> None:
    np.testing.assert_array_equal(run(Graph(make_file()).to_bytes(), x), run(make_file(), x))


def test_dead_parts_go(x: np.ndarray) -> None:
    graph = Graph(make_file())
    graph.remove_dead()
    assert [graph.name(index) for index in range(len(graph.subgraph.tensors))] == ["x", "order", "moved", "axes", "y"]
    assert [graph.kind(operator) for operator in graph.operators] == ["TRANSPOSE", "MEAN"]
    assert len(graph.model.operatorCodes) == 2
    np.testing.assert_array_equal(run(graph.to_bytes(), x), run(make_file(), x))


def test_mean_reads_past_a_transpose(x: np.ndarray) -> None:
    graph = Graph(make_file())
    assert describe_transposes(graph).startswith("1 transpose(s) from")
    remove_idle_transposes(graph)
    graph.remove_dead()
    assert [graph.kind(operator) for operator in graph.operators] == ["MEAN"]
    assert describe_transposes(graph) == ""
    np.testing.assert_allclose(run(graph.to_bytes(), x), run(make_file(), x), rtol=1e-6)


def test_equal_constants_are_stored_once() -> None:
    graph = Graph(make_file())
    graph.remove_dead()
    twin = graph.add_tensor("axes again", like=3)
    graph.set_constant(twin, np.array([2, 3], np.int32))
    graph.operators[1].inputs = [2, twin]
    graph.remove_dead()
    assert len(graph.model.buffers) == 3


def test_constants_are_aligned_as_the_schema_asks() -> None:
    graph = Graph(make_file())
    graph.set_constant(1, np.array([0, 3, 1, 2], np.int32))
    data = np.frombuffer(graph.to_bytes(), np.uint8)
    model = schema.Model.GetRootAs(data, 0)
    stored = [model.Buffers(index).DataAsNumpy() for index in range(model.BuffersLength()) if model.Buffers(index).DataLength()]
    assert stored
    assert [(values.ctypes.data - data.ctypes.data) % 16 for values in stored] == [0] * len(stored)


def test_metadata_and_edges_round_trip() -> None:
    graph = Graph(make_file())
    graph.set_edges([("in", 0)], [("out", 4)])
    graph.add_metadata("note", b"content")
    again = Graph(graph.to_bytes())
    assert again.signature() == ([("in", 0)], [("out", 4)])
    assert bytes(again.model.buffers[again.model.metadata[0].buffer].data) == b"content"


def test_transposes_are_placed() -> None:
    graph = Graph(make_file())
    size = graph.add_tensor("size", like=0)
    graph.operators.insert(0, graph.make_operator("ABS", reads=[0], writes=[size]))
    graph.redirect(0, size, operators=graph.operators[1:])
    assert describe_transposes(graph) == "1 transpose(s) inside, after size"
    graph.set_edges([("in", 0)], [("out", 2)])
    assert describe_transposes(graph) == "1 transpose(s) back at the outputs"


def test_transposes_that_undo_each_other_go(x: np.ndarray) -> None:
    graph = Graph(make_file())
    order, back, y = graph.add_tensor("order back", like=1), graph.add_tensor("back", like=0), graph.add_tensor("size", like=0)
    graph.set_constant(order, np.array([0, 2, 3, 1], np.int32))
    graph.subgraph.operators = graph.operators[:1]
    graph.operators.append(graph.make_operator("TRANSPOSE", reads=[2, order], writes=[back]))
    graph.operators.append(graph.make_operator("ABS", reads=[back], writes=[y]))
    graph.subgraph.outputs = [y]
    before = run(graph.to_bytes(), x)
    remove_idle_transposes(graph)
    graph.remove_dead()
    assert [graph.kind(operator) for operator in graph.operators] == ["ABS"]
    np.testing.assert_array_equal(run(graph.to_bytes(), x), before)
    np.testing.assert_array_equal(before, np.abs(x))
