"""An ``.onnx`` file with Q/DQ nodes as a graph of exact kernels, and a session that runs it.

ONNX Runtime replaces an operator between dequantize and quantize nodes with one that computes in integers
(``onnxruntime/core/optimizer/qdq_transformer/selectors_actions/qdq_selector_action_transformer.cc``)::

    DQ(x), DQ(w), DQ(b) -> Conv -> Q        QLinearConv               DQ -> Transpose -> Q    Transpose of integers
    DQ(x), DQ(w), DQ(b) -> Gemm -> Q        QGemm                     DQ(a), DQ(b) -> Add -> Q    QLinearAdd

The same groups are recognised here. A dequantize node that feeds anything else stays an operation of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.core.errors import IntegrityError
from edgekit.runtimes.exact.executor import run
from edgekit.runtimes.exact.graph import Graph, Operation, Tensor
from edgekit.runtimes.exact.kernels import MOVING
from edgekit.runtimes.exact.onnx_groups import ALL_QUANTIZED, BETWEEN, ON_INTEGERS, Group, attributes

if TYPE_CHECKING:
    import onnx

    from edgekit.core.tensors import Array
    from edgekit.runtimes.exact.rules import Rules

__all__ = ["OnnxSession", "read_graph"]


def read_graph(data: bytes) -> Graph:
    """The graph of a file, Q/DQ groups as single operations.

    Raises:
        IntegrityError: The bytes are no ONNX model.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(data)
    except Exception as reason:  # protobuf's own, which has no typed name
        raise IntegrityError(f"The bytes are no ONNX model: {reason}. Export again.") from reason
    return _Reader(model).graph


class OnnxSession:
    """Answers as ``onnxruntime.InferenceSession`` does, with exact kernels and chosen rounding rules.

    Args:
        data: The .onnx file.
        rules: The rounding rules.
    """

    def __init__(self, data: bytes, rules: Rules) -> None:
        self.graph = read_graph(data)
        self._rules = rules

    def get_inputs(self) -> list[Tensor]:
        """Inputs with their names."""
        return [self.graph.tensors[name] for name in self.graph.inputs]

    def run(self, names: Sequence[str], inputs: Mapping[str, Array]) -> list[Array]:
        """Values of some tensors; an empty one for what has no exact kernel."""
        found = {**inputs, **run(self.graph, inputs, self._rules)}
        return [found[name] if name in found else np.zeros(0, np.int8) for name in names]


class _Reader:
    """Turns nodes into operations; ``graph`` is the result."""

    def __init__(self, model: onnx.ModelProto) -> None:
        import onnx
        import onnx.helper
        import onnx.numpy_helper

        self._onnx = onnx
        self.constants: dict[str, Array] = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.nodes = list(model.graph.node)
        for node in self.nodes:
            if node.op_type == "Constant":
                self.constants[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
        self.producers = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.tensors: dict[str, Tensor] = {}
        types = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
        for name, kind in types.items():
            self.tensors[name] = Tensor(name, onnx.helper.tensor_dtype_to_np_dtype(kind).name)
        self._read_grids()
        operations = tuple(operation for node in self.nodes for operation in self._operations(node))
        self._fill(operations)
        self.graph = Graph(
            self.tensors,
            _without_unread(operations, [value.name for value in model.graph.output]),
            tuple(value.name for value in model.graph.input if value.name not in self.constants),
            tuple(value.name for value in model.graph.output),
        )

    def _read_grids(self) -> None:
        """Every tensor that a Q/DQ node stands on gets that node's grid."""
        for node in self.nodes:
            if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
                name = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
                self.tensors[name] = self._quantized(name, node)

    def _quantized(self, name: str, node: Any) -> Tensor:
        scale = self.constants[node.input[1]].astype(np.float32).reshape(-1)
        zero = self.constants[node.input[2]] if len(node.input) > 2 and node.input[2] else None
        constant = self.constants.get(name)
        dtype = constant.dtype if constant is not None else zero.dtype if zero is not None else np.dtype(np.uint8)
        zeros = np.zeros(scale.size, np.int64) if zero is None else zero.astype(np.int64).reshape(-1)
        return Tensor(name, dtype.name, scale, zeros, int(attributes(node).get("axis", 1)), constant)

    def _fill(self, operations: Sequence[Operation]) -> None:
        """Tensors that no Q/DQ node names: a moved integer keeps its grid, anything else is a float."""
        for name, value in self.constants.items():
            self.tensors.setdefault(name, Tensor(name, value.dtype.name, constant=value))
        for operation in operations:
            for name in operation.reads:
                if name:
                    self.tensors.setdefault(name, Tensor(name, "float32"))
            source = self.tensors[operation.reads[0]] if operation.reads and operation.reads[0] else None
            for name in operation.writes:
                if name not in self.tensors:
                    keeps = operation.kernel in {*MOVING, "concatenate"} and source is not None
                    made = (
                        Tensor(name, source.dtype, source.scale, source.zero_point)
                        if keeps and source
                        else Tensor(name, "float32")
                    )
                    self.tensors[name] = made

    def _operations(self, node: Any) -> list[Operation]:
        """What becomes of one node."""
        if node.op_type == "Constant" or node.output[0] in self.constants:
            return []
        if node.op_type == "DequantizeLinear":
            return [Operation(node.op_type, "dequantize", (node.input[0],), (node.output[0],))]
        if node.op_type == "QuantizeLinear":
            group = self.producers.get(node.input[0])
            fused = self._fused(group, node) if group is not None else None
            return [fused or Operation(node.op_type, "quantize", (node.input[0],), (node.output[0],))]
        if self._is_fused(node):
            return []
        translate = ON_INTEGERS.get(node.op_type)
        if translate is not None:
            return [translate(Group(self, node, tuple(node.input), node.output[0]))]
        reason = "it computes in float, in an order of its own"
        return [Operation(node.op_type, "", tuple(node.input), tuple(node.output), reason=reason)]

    def _is_fused(self, node: Any) -> bool:
        """Whether the only reader of a node is the quantize node of its group, perhaps behind a ReLU."""
        readers = self.readers.get(node.output[0], [])
        if len(readers) != 1:
            return False
        if readers[0].op_type == "Relu" and node.op_type in ALL_QUANTIZED:
            return self._is_fused(readers[0])
        return readers[0].op_type == "QuantizeLinear" and self._fused(node, readers[0]) is not None

    def _fused(self, node: Any, quantizer: Any) -> Operation | None:
        """The operation of a group; None where the node is in none. A ReLU behind one becomes a limit of its integers."""
        inner = self.producers.get(node.input[0])
        if node.op_type == "Relu" and inner is not None and inner.op_type in ALL_QUANTIZED:
            operation = self._fused(inner, quantizer)
            made = self.tensors[quantizer.output[0]]
            limits = {"clamp": (max(made.zero, made.bounds[0]), made.bounds[1])}
            return None if operation is None else dataclasses.replace(operation, options={**operation.options, **limits})
        translate = BETWEEN.get(node.op_type)
        if translate is None or len(self.readers.get(node.output[0], [])) != 1:
            return None
        reads = []
        for position, name in enumerate(node.input):
            source = self.producers.get(name)
            if source is not None and source.op_type == "DequantizeLinear":
                reads.append(source.input[0])
            elif (
                position == 0
                or name not in self.constants
                or node.op_type in {"Conv", "ConvTranspose", "Gemm", "Add", "Mul", "MatMul"}
            ):
                return None
            else:
                reads.append(name)
        return translate(Group(self, node, tuple(reads), quantizer.output[0]))


def _without_unread(operations: Sequence[Operation], outputs: Sequence[str]) -> tuple[Operation, ...]:
    """Operations that something reads: dequantize nodes of groups have no reader left."""
    wanted, kept = set(outputs), []
    for operation in reversed(operations):
        if any(name in wanted for name in operation.writes):
            wanted.update(operation.reads)
            kept.append(operation)
    return tuple(reversed(kept))
