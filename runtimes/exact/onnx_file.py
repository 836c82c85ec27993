"""An ``.onnx`` file with Q/DQ nodes as a graph of exact kernels, and a session that runs it.

ONNX Runtime replaces an operator between dequantize and quantize nodes with one that computes in integers
(``onnxruntime/core/optimizer/qdq_transformer/selectors_actions/qdq_selector_action_transformer.cc``)::

    DQ(x), DQ(w), DQ(b) -> Conv -> Q        QLinearConv               DQ -> Transpose -> Q    Transpose of integers
    DQ(x), DQ(w), DQ(b) -> Gemm -> Q        QGemm                     DQ(a), DQ(b) -> Add -> Q    QLinearAdd

The same groups are recognised here. A dequantize node that feeds anything else stays an operation of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.core.errors import IntegrityError
from edgekit.runtimes.exact.executor import run
from edgekit.runtimes.exact.graph import Graph, Operation, Tensor
from edgekit.runtimes.exact.kernels import MOVING

if TYPE_CHECKING:
    import onnx

    from edgekit.core.tensors import Array
    from edgekit.runtimes.exact.rules import Rules

__all__ = ["OnnxSession", "read_graph"]

Settings = dict[str, Any]
_WINDOW_RANK = 2


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
        translate = _ON_INTEGERS.get(node.op_type)
        if translate is not None:
            return [translate(_Group(self, node, tuple(node.input), node.output[0]))]
        reason = "it computes in float, in an order of its own"
        return [Operation(node.op_type, "", tuple(node.input), tuple(node.output), reason=reason)]

    def _is_fused(self, node: Any) -> bool:
        """Whether the only reader of a node is the quantize node of its group."""
        readers = self.readers.get(node.output[0], [])
        is_alone = len(readers) == 1 and readers[0].op_type == "QuantizeLinear"
        return is_alone and self._fused(node, readers[0]) is not None

    def _fused(self, node: Any, quantizer: Any) -> Operation | None:
        """The operation of a group; None where the node is in none."""
        translate = _BETWEEN.get(node.op_type)
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
        return translate(_Group(self, node, tuple(reads), quantizer.output[0]))


class _Group:
    """One operator with the integers it reads and the one tensor it makes."""

    def __init__(self, reader: _Reader, node: Any, reads: tuple[str, ...], made: str) -> None:
        self._reader, self.node, self.reads, self.made = reader, node, reads, made
        self.attributes = attributes(node)

    def constant(self, at: int) -> Array:
        return self._reader.constants[self.reads[at]]

    def has(self, at: int) -> bool:
        return at < len(self.reads) and bool(self.reads[at])

    def shape(self, at: int) -> tuple[int, ...]:
        return tuple(self.constant(at).shape)

    def tensor(self, name: str) -> Tensor | None:
        return self._reader.tensors.get(name)

    def operation(self, kernel: str, reads: tuple[str, ...] | None = None, **settings: Any) -> Operation:
        return Operation(self.node.op_type, kernel, self.reads if reads is None else reads, (self.made,), settings)

    def unknown(self, reason: str) -> Operation:
        return Operation(self.node.op_type, "", self.reads, (self.made,), reason=reason)


def attributes(node: Any) -> Settings:
    """A node's attributes as Python values."""
    import onnx.helper

    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _without_unread(operations: Sequence[Operation], outputs: Sequence[str]) -> tuple[Operation, ...]:
    """Operations that something reads: dequantize nodes of groups have no reader left."""
    wanted, kept = set(outputs), []
    for operation in reversed(operations):
        if any(name in wanted for name in operation.writes):
            wanted.update(operation.reads)
            kept.append(operation)
    return tuple(reversed(kept))


def _convolution(group: _Group) -> Operation:
    weights, settings = group.shape(1), group.attributes
    rank = len(weights) - 2
    flat = settings.get("pads", [0] * 2 * rank)
    if settings.get("auto_pad", b"NOTSET") not in {b"NOTSET", b"VALID"}:
        return group.unknown("its padding is automatic")
    return group.operation(
        "convolution",
        channels_first=True,
        groups=int(settings.get("group", 1)),
        strides=tuple(settings.get("strides", [1] * rank)),
        dilations=tuple(settings.get("dilations", [1] * rank)),
        pads=tuple((int(flat[axis]), int(flat[axis + rank])) for axis in range(rank)),
    )


def _transposed(group: _Group) -> Operation:
    weights, settings = group.shape(1), group.attributes
    rank = len(weights) - 2
    flat, ones = settings.get("pads", [0] * 2 * rank), [1] * rank
    if settings.get("auto_pad", b"NOTSET") != b"NOTSET" or "output_shape" in settings or settings.get("group", 1) != 1:
        return group.unknown("it has groups, or padding that is automatic")
    if list(settings.get("dilations", ones)) != ones:
        return group.unknown("it is dilated")
    return group.operation(
        "transposed_convolution",
        channels_first=True,
        strides=tuple(settings.get("strides", ones)),
        pads=tuple((int(flat[axis]), int(flat[axis + rank])) for axis in range(rank)),
        more=tuple(settings.get("output_padding", [0] * rank)),
    )


def _gather(group: _Group) -> Operation:
    return group.operation("gather", group.reads[:1], indices=group.constant(1), axis=int(group.attributes.get("axis", 0)))


def _gelu(group: _Group) -> Operation:
    exact = group.attributes.get("approximate", b"none") == b"none"
    return group.operation("table", function="gelu") if exact else group.unknown("it approximates GELU by tanh")


def _leaky_relu(group: _Group) -> Operation:
    return group.operation("table", function="leaky_relu", slope=float(group.attributes.get("alpha", 0.01)))


def _gemm(group: _Group) -> Operation:
    settings = group.attributes
    if float(settings.get("alpha", 1.0)) != 1.0 or float(settings.get("beta", 1.0)) != 1.0:
        return group.unknown("it is scaled by alpha or beta")
    return group.operation("linear", flip_data=bool(settings.get("transA", 0)), flip_weights=bool(settings.get("transB", 0)))


def _global_average(group: _Group) -> Operation:
    return group.operation("mean", axes=None, keepdims=True)


def _reduce_mean(group: _Group) -> Operation:
    axes = group.attributes.get("axes") or (tuple(int(axis) for axis in group.constant(1)) if group.has(1) else None)
    return group.operation("mean", group.reads[:1], axes=axes, keepdims=bool(group.attributes.get("keepdims", 1)))


def _reshape(group: _Group) -> Operation:
    return group.operation("reshape", group.reads[:1], shape=tuple(int(size) for size in group.constant(1)), copies_zero=True)


def _axes_of(group: _Group) -> tuple[int, ...] | None:
    if group.has(1):
        return tuple(int(axis) for axis in group.constant(1))
    found = group.attributes.get("axes")
    return None if found is None else tuple(int(axis) for axis in found)


def _squeeze(group: _Group) -> Operation:
    return group.operation("squeeze", group.reads[:1], axes=_axes_of(group))


def _unsqueeze(group: _Group) -> Operation:
    return group.operation("unsqueeze", group.reads[:1], axes=_axes_of(group))


def _flatten(group: _Group) -> Operation:
    return group.operation("flatten", axis=int(group.attributes.get("axis", 1)))


def _transpose(group: _Group) -> Operation:
    order = group.attributes.get("perm")
    return group.operation("transpose", order=None if order is None else tuple(order))


def _clip(group: _Group) -> Operation:
    low = group.constant(1).item() if group.has(1) else -np.inf
    high = group.constant(2).item() if group.has(2) else np.inf
    return group.operation("clip", group.reads[:1], clamp=(low, high))


def _pad(group: _Group) -> Operation:
    flat = [int(amount) for amount in group.constant(1)]
    if group.attributes.get("mode", b"constant") != b"constant" or group.has(3) or min(flat) < 0:
        return group.unknown("it pads otherwise than with a constant on all axes")
    rank = len(flat) // 2
    value = group.constant(2).item() if group.has(2) else 0
    return group.operation(
        "pad", group.reads[:1], pads=tuple((flat[axis], flat[axis + rank]) for axis in range(rank)), value=value
    )


def _concatenate(group: _Group) -> Operation:
    return group.operation("concatenate", axis=int(group.attributes["axis"]))


def _slice(group: _Group) -> Operation:
    starts, ends = group.constant(1), group.constant(2)
    axes = group.constant(3) if group.has(3) else np.arange(len(starts))
    steps = group.constant(4) if group.has(4) else np.ones(len(starts), np.int64)
    return group.operation(
        "slice", group.reads[:1], limits=tuple(zip(*(map(int, row) for row in (axes, starts, ends, steps)), strict=True))
    )


def _softmax(group: _Group) -> Operation:
    return group.operation("softmax", axis=int(group.attributes.get("axis", -1)), beta=1.0)


def _table(function: str) -> Callable[[_Group], Operation]:
    return lambda group: group.operation("table", function=function)


def _pool(kernel: str) -> Callable[[_Group], Operation]:
    def translate(group: _Group) -> Operation:
        settings = group.attributes
        shape = tuple(settings["kernel_shape"])
        rank = len(shape)
        flat = settings.get("pads", [0] * 2 * rank)
        if settings.get("auto_pad", b"NOTSET") not in {b"NOTSET", b"VALID"}:
            return group.unknown("its padding is automatic")
        return group.operation(
            kernel,
            channels_first=True,
            window=shape,
            strides=tuple(settings.get("strides", [1] * rank)),
            dilations=tuple(settings.get("dilations", [1] * rank)),
            pads=tuple((int(flat[axis]), int(flat[axis + rank])) for axis in range(rank)),
            counts_padding=bool(settings.get("count_include_pad", 0)),
            ceil=bool(settings.get("ceil_mode", 0)),
        )

    return translate


_MOVES: dict[str, Callable[[_Group], Operation]] = {
    "Flatten": _flatten, "Gather": _gather, "Reshape": _reshape, "Slice": _slice, "Squeeze": _squeeze, "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}  # fmt: skip
_BETWEEN: dict[str, Callable[[_Group], Operation]] = {
    **_MOVES, "Add": lambda group: group.operation("add"), "AveragePool": _pool("average_pool"), "Concat": _concatenate,
    "Conv": _convolution, "ConvTranspose": _transposed, "Gelu": _gelu, "Gemm": _gemm, "GlobalAveragePool": _global_average,
    "HardSwish": _table("hard_swish"), "LeakyRelu": _leaky_relu, "MatMul": lambda group: group.operation("matmul"),
    "MaxPool": _pool("max_pool"), "Mul": lambda group: group.operation("multiply"), "ReduceMean": _reduce_mean,
    "Relu": _table("relu"), "Sigmoid": _table("logistic"), "Softmax": _softmax, "Tanh": _table("tanh"),
}  # fmt: skip
"""Operators that become one of integers between dequantize and quantize nodes."""
_ON_INTEGERS: dict[str, Callable[[_Group], Operation]] = {
    **_MOVES,
    "Clip": _clip,
    "Concat": _concatenate,
    "MaxPool": _pool("max_pool"),
    "Pad": _pad,
}
"""Operators that may stand on integers, or move values of any type."""
_ALL_QUANTIZED = {"Add", "Conv", "ConvTranspose", "Gemm", "MatMul", "Mul"}
"""Operators all of whose inputs come from dequantize nodes."""
