"""Q/DQ groups of an ONNX file: the exact kernels answer as ONNX Runtime's integer kernels do, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh
import onnxruntime
import pytest

from edgekit.core.errors import IntegrityError, UnsupportedOpError
from edgekit.runtimes.exact.executor import answer, unanswered
from edgekit.runtimes.exact.onnx_file import OnnxSession, read_graph
from edgekit.runtimes.exact.rules import ONNX_RUNTIME, SIMULATION

RANDOM = np.random.default_rng(0)
SHAPE = (1, 8, 6, 5)


class Model:
    """An ONNX model in the making: inputs and outputs are uint8, everything between dequantized."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []
        self._count = 0

    def name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}{self._count}"

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = self.name("constant")
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, kind: str, *reads: str, **attributes: Any) -> str:
        name = self.name(kind)
        self.nodes.append(oh.make_node(kind, list(reads), [name], **attributes))
        return name

    def data(self, scale: float, zero: int, shape: tuple[int, ...] = SHAPE) -> str:
        name = self.name("input")
        self.inputs.append(oh.make_tensor_value_info(name, onnx.TensorProto.UINT8, shape))
        return self.dequantized(name, scale, zero)

    def dequantized(self, name: str, scale: float, zero: int) -> str:
        return self.node("DequantizeLinear", name, self.constant(scale), self.constant(zero, np.uint8))

    def weights(self, *shape: int, axis: int = 0) -> str:
        scales = RANDOM.uniform(0.01, 0.05, shape[axis])
        raw = self.constant(RANDOM.integers(-127, 128, shape), np.int8)
        zeros = self.constant(np.zeros(shape[axis]), np.int8)
        return self.node("DequantizeLinear", raw, self.constant(scales), zeros, axis=axis)

    def bias(self, weights: str, scale: float) -> str:
        made = next(node for node in self.nodes if node.output[0] == weights)
        scales = next(onnx.numpy_helper.to_array(one) for one in self.constants if one.name == made.input[1])
        raw = self.constant(RANDOM.integers(-3000, 3000, scales.size), np.int32)
        return self.node("DequantizeLinear", raw, self.constant(scales * np.float32(scale)), axis=0)

    def quantized(self, name: str, scale: float, zero: int) -> str:
        return self.node("QuantizeLinear", name, self.constant(scale), self.constant(zero, np.uint8))

    def bytes(self, output: str) -> bytes:
        outputs = [oh.make_tensor_value_info(output, onnx.TensorProto.UINT8, None)]
        graph = oh.make_graph(self.nodes, "test", self.inputs, outputs, self.constants)
        data: bytes = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 20)], ir_version=10).SerializeToString()
        return data


def convolution(model: Model, **attributes: Any) -> str:
    weights = model.weights(6, 8 // attributes.get("group", 1), 3, 2)
    return model.node("Conv", model.data(0.031, 128), weights, model.bias(weights, 0.031), **attributes)


def fully_connected(model: Model) -> str:
    weights = model.weights(7, 8)
    flat = model.data(0.031, 120, (3, 8))
    return model.node("Gemm", flat, weights, model.bias(weights, 0.031), transB=1)


def concatenation(model: Model) -> str:
    return model.node("Concat", model.data(0.05, 128), model.data(0.031, 100), axis=1)


GROUPS: dict[str, Callable[[Model], str]] = {
    "conv": lambda model: convolution(model, pads=[1, 0, 1, 1], strides=[2, 1]),
    "grouped conv": lambda model: convolution(model, group=2, dilations=[2, 1]),
    "gemm": fully_connected,
    "matmul": lambda model: model.node("MatMul", model.data(0.02, 128, (2, 5, 8)), model.data(0.013, 99, (2, 8, 4))),
    "add": lambda model: model.node("Add", model.data(0.031, 128), model.data(0.017, 77)),
    "mul": lambda model: model.node("Mul", model.data(0.031, 128), model.data(0.017, 77)),
    "concat": concatenation,
    "global average": lambda model: model.node("GlobalAveragePool", model.data(0.031, 13)),
    "average pool": lambda model: model.node("AveragePool", model.data(0.05, 101), kernel_shape=[2, 2], strides=[2, 1]),
    "max pool": lambda model: model.node("MaxPool", model.data(0.05, 101), kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1),
    "sigmoid": lambda model: model.node("Sigmoid", model.data(0.05, 128)),
    "leaky relu": lambda model: model.node("LeakyRelu", model.data(0.05, 128), alpha=0.1),
    "relu": lambda model: model.node("Relu", model.data(0.05, 128)),
    "hard swish": lambda model: model.node("HardSwish", model.data(0.05, 128)),
    "transpose": lambda model: model.node("Transpose", model.data(0.05, 101), perm=[0, 2, 3, 1]),
}


def grid_of(kind: str) -> tuple[float, int]:
    if kind in {"max pool", "transpose", "average pool"}:
        return 0.05, 101
    return (1 / 256, 0) if kind == "sigmoid" else (0.05, 115)


@pytest.mark.parametrize("kind", GROUPS)
def test_a_group_is_answered_as_onnx_runtime_does(kind: str) -> None:
    model = Model()
    data = model.bytes(model.quantized(GROUPS[kind](model), *grid_of(kind)))
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(data, settings, providers=["CPUExecutionProvider"])
    exact = OnnxSession(data, ONNX_RUNTIME)
    assert [one.name for one in exact.get_inputs()] == [one.name for one in session.get_inputs()]
    names = [session.get_outputs()[0].name]
    for _ in range(20):
        inputs = {one.name: RANDOM.integers(0, 256, one.shape).astype(np.uint8) for one in session.get_inputs()}
        expected: Any = session.run(names, inputs)[0]
        [found] = exact.run(names, inputs)
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected), f"{np.abs(found.astype(int) - expected.astype(int)).sum()} steps"


def test_groups_become_one_operation() -> None:
    model = Model()
    data = model.bytes(model.quantized(convolution(model), 0.05, 115))
    assert [operation.kernel for operation in read_graph(data).operations] == ["convolution"]


def test_the_simulation_of_a_sum_is_the_float_graph() -> None:
    model = Model()
    data = model.bytes(model.quantized(GROUPS["add"](model), 0.05, 115))
    session = OnnxSession(data, SIMULATION)
    one, other = (RANDOM.integers(0, 256, SHAPE).astype(np.uint8) for _ in range(2))
    inputs = dict(zip(session.graph.inputs, (one, other), strict=True))
    [found] = session.run([session.graph.outputs[0]], inputs)
    real = (one.astype(np.float64) - 128) * np.float32(0.031) + (other.astype(np.float64) - 77) * np.float32(0.017)
    expected = np.clip(np.rint(real / np.float32(0.05)) + 115, 0, 255)
    assert np.abs(found.astype(np.float64) - expected).max() <= 1
    assert (found == expected).mean() > 0.999


def test_what_has_no_kernel_is_named_with_what_depends_on_it() -> None:
    model = Model()
    normal = model.node("LayerNormalization", model.data(0.031, 128), model.constant(np.ones(5)), axis=-1)
    first = model.quantized(normal, 0.05, 115)
    second = model.quantized(model.node("Relu", model.dequantized(first, 0.05, 115)), 0.05, 115)
    graph = read_graph(model.bytes(second))
    reasons = unanswered(graph)
    assert {"LayerNormalization" in reasons[name] for name in (first, second)} == {True}
    assert unanswered(graph, given={first: np.zeros(SHAPE, np.uint8)}).keys() == {normal, first}
    with pytest.raises(UnsupportedOpError, match="LayerNormalization"):
        answer(graph, next(one for one in graph.operations if one.type == "LayerNormalization"), {}, ONNX_RUNTIME)


def test_bytes_that_are_no_model_are_refused() -> None:
    with pytest.raises(IntegrityError, match="no ONNX model"):
        read_graph(b"no model at all")
