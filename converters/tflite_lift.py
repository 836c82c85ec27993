"""One-dimensional layers as two-dimensional ones of height 1.

TFLite has no 1-D kernels. Lowered one by one each 1-D layer would bring its own pair of transposes; lifted as a whole,
``[N, C, L]`` lives on as ``[N, C, 1, L]`` (``[N, 1, L, C]`` in the file) from the first such layer to the last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgekit.converters.tflite_nodes import RESHAPES, add_constant, constant, operator_name, rank_of

if TYPE_CHECKING:
    from torch.fx import Graph, GraphModule, Node

__all__ = ["lift"]

_UNARY = {
    "abs", "batch_norm", "clamp", "clamp_max", "clamp_min", "clone", "contiguous", "dequantize_per_tensor", "dropout", "elu",
    "exp", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "log", "mish", "neg", "quantize_per_tensor", "relu",
    "relu6", "rsqrt", "selu", "sigmoid", "silu", "softplus", "sqrt", "tanh",
}  # fmt: skip
_BINARY = {"add", "div", "maximum", "minimum", "mul", "sub"}
_QUANTIZERS = {"quantize_per_channel", "dequantize_per_channel", "quantize_per_tensor", "dequantize_per_tensor"}
_HEIGHT_AXIS = 2


def lift(module: GraphModule) -> GraphModule:
    """A copy of ``module`` without 1-D convolutions and pools; inputs and outputs keep their shapes."""
    return _Lift(module).run()


class _Lift:
    """Copies a graph node by node. A value is kept plain ``[N, C, L]``, lifted ``[N, C, 1, L]``, or both, made on demand."""

    def __init__(self, module: GraphModule) -> None:
        import torch

        self.module = module
        self.graph: Graph = torch.fx.Graph()
        self.plain: dict[Node, Node] = {}
        self.lifted: dict[Node, Node] = {}
        self.aten: Any = torch.ops.aten

    def run(self) -> GraphModule:
        import torch

        for node in self.module.graph.nodes:
            rule = self._rule(node)
            made = rule(node) if rule else None
            if made is not None:
                self.lifted[node] = made
            elif node not in self.plain:
                self.plain[node] = self.graph.node_copy(node, self._as_plain)
            for copy in (self.plain.get(node), self.lifted.get(node)):
                if copy is not None:
                    copy.meta = dict(node.meta)
        self.graph.eliminate_dead_code()
        self.graph.set_codegen(self.module.graph._codegen)  # the flat calling convention of the exported module
        return torch.fx.GraphModule(self.module, self.graph)

    def _rule(self, node: Node) -> Callable[[Node], Node | None] | None:
        """What makes the lifted form of a node's value (or, for a reshape or mean, its plain form); None: copied as it is."""
        name = operator_name(node)
        layers: dict[str, Callable[[Node], Node | None]] = {
            "conv1d": self._convolution,
            "conv_transpose1d": self._convolution,
            "max_pool1d": self._pool,
            "avg_pool1d": self._pool,
            "adaptive_avg_pool1d": self._adaptive_pool,
        }
        if name in layers:
            return layers[name] if rank_of(node) == 3 else None
        if not any(source in self.lifted for source in node.all_input_nodes):
            return None
        followers: dict[str, Callable[[Node], Node | None]] = {
            "cat": self._concat,
            "mean": self._mean,
            "slice": self._slice,
            "pad": self._pad,
            "constant_pad_nd": self._pad,
        }
        followers |= (
            dict.fromkeys(_UNARY, self._unary) | dict.fromkeys(_BINARY, self._binary) | dict.fromkeys(RESHAPES, self._reshape)
        )
        return followers.get(name)

    def _as_plain(self, node: Node) -> Node:
        if node not in self.plain:
            self.plain[node] = self.graph.call_function(self.aten.squeeze.dim, (self.lifted[node], _HEIGHT_AXIS))
        return self.plain[node]

    def _as_lifted(self, node: Any) -> Node:
        if node not in self.lifted:
            self.lifted[node] = self.graph.call_function(self.aten.unsqueeze.default, (self.plain[node], _HEIGHT_AXIS))
        return self.lifted[node]

    def _convolution(self, node: Node) -> Node | None:
        weight = self._lift_weight(node.args[1])
        if weight is None:
            return None
        rest: list[Any] = list(node.args[2:])
        if rest and rest[0] is not None:
            rest[0] = self._as_plain(rest[0])
        transposed = operator_name(node) == "conv_transpose1d"
        # In front of the bias' successors: stride, padding, (output padding, groups,) dilation of the new axis.
        neutral: list[int | None] = [None, 1, 0, 0, None, 1] if transposed else [None, 1, 0, 1]
        for place, value in list(enumerate(neutral))[1 : len(rest)]:
            if value is not None and not isinstance(rest[place], str):
                rest[place] = [value, *_numbers(rest[place])]
        overload = str(node.target).rsplit(".", 1)[-1]
        target = self.aten.conv_transpose2d.input if transposed else getattr(self.aten.conv2d, overload)
        return self.graph.call_function(target, (self._as_lifted(node.args[0]), weight, *rest))

    def _lift_weight(self, node: Any) -> Node | None:
        """The weight ``[A, B, K]`` as ``[A, B, 1, K]``, its quantize and dequantize nodes repeated; None where it is computed."""
        if node.op == "get_attr":
            return add_constant(self.module, self.graph, constant(self.module, node).unsqueeze(_HEIGHT_AXIS))
        if operator_name(node) not in _QUANTIZERS:
            return None
        source = self._lift_weight(node.args[0])
        others = [self._as_plain(argument) if hasattr(argument, "op") else argument for argument in node.args[1:]]
        return None if source is None else self._call(node, source, *others)

    def _pool(self, node: Node) -> Node:
        averaging = operator_name(node) == "avg_pool1d"
        neutral = [1, 1, 0] if averaging else [1, 1, 0, 1]  # kernel, stride, padding(, dilation)
        arguments: list[Any] = list(node.args[1:])
        for place, value in list(enumerate(neutral))[: len(arguments)]:
            if arguments[place] not in ([], None):  # an empty stride means: as the kernel
                arguments[place] = [value, *_numbers(arguments[place])]
        target = self.aten.avg_pool2d.default if averaging else self.aten.max_pool2d.default
        return self.graph.call_function(target, (self._as_lifted(node.args[0]), *arguments))

    def _adaptive_pool(self, node: Node) -> Node:
        size = [1, *_numbers(node.args[1])]
        return self.graph.call_function(self.aten.adaptive_avg_pool2d.default, (self._as_lifted(node.args[0]), size))

    def _call(self, node: Node, *arguments: Any) -> Node:
        """The node's own operator on other arguments."""
        target: Any = node.target
        return self.graph.call_function(target, arguments, dict(node.kwargs))

    def _unary(self, node: Node) -> Node:
        return self.graph.node_copy(node, lambda source: self.lifted[source] if source in self.lifted else self._as_plain(source))

    def _binary(self, node: Node) -> Node | None:
        operands = [self._operand(argument) for argument in node.args[:2]]
        if rank_of(node) != 3 or any(operand is None for operand in operands):
            return None
        return self._call(node, *operands, *node.args[2:])

    def _operand(self, argument: Any) -> Any:
        """An operand that broadcasts against ``[N, C, 1, L]`` as it did against ``[N, C, L]``; None where none can be made."""
        if not hasattr(argument, "op"):
            return argument
        if argument in self.lifted:
            return self.lifted[argument]
        rank = constant(self.module, argument).ndim if argument.op == "get_attr" else rank_of(argument)
        if rank == 3:
            return self._as_lifted(argument)
        if rank == 2:
            return self.graph.call_function(self.aten.unsqueeze.default, (self._as_plain(argument), 1))
        return self._as_plain(argument) if rank in {0, 1} else None

    def _concat(self, node: Node) -> Node | None:
        parts: Any = node.args[0]
        axis: Any = node.args[1] if len(node.args) > 1 else 0
        if any(rank_of(part) != 3 for part in parts):
            return None
        return self.graph.call_function(self.aten.cat.default, ([self._as_lifted(part) for part in parts], _lifted_axis(axis)))

    def _mean(self, node: Node) -> Node | None:
        arguments: list[Any] = list(node.args)
        source, axes, *rest = arguments if len(arguments) > 1 else (*arguments, None)
        if not isinstance(axes, list | tuple):
            return None
        moved = [_lifted_axis(axis) for axis in axes]
        if rest and rest[0]:  # keepdim
            return self._call(node, self.lifted[source], moved, *rest)
        if 3 in moved:  # the height of 1 goes with the length, so that nothing is left to squeeze
            self.plain[node] = self._call(node, self.lifted[source], [_HEIGHT_AXIS, *moved], *rest)
        return None

    def _slice(self, node: Node) -> Node:
        source: Any = node.args[0]
        axis: Any = node.args[1] if len(node.args) > 1 else 0
        return self.graph.call_function(self.aten.slice.Tensor, (self.lifted[source], _lifted_axis(axis), *node.args[2:]))

    def _pad(self, node: Node) -> Node | None:
        """Amounts come in pairs from the last axis on: length, then (height,) channels."""
        source: Any = node.args[0]
        amounts: Any = node.args[1]
        mode = node.args[2] if operator_name(node) == "pad" and len(node.args) > 2 else "constant"
        if mode != "constant":
            return None
        widened = [*amounts[:2], *([0, 0] if len(amounts) > 2 else []), *amounts[2:]]
        return self._call(node, self.lifted[source], widened, *node.args[2:])

    def _reshape(self, node: Node) -> None:
        """Row-major order is the same with and without the height of 1: the reshape reads the lifted tensor."""
        source: Any = node.args[0]
        shape = [int(size) for size in node.meta["val"].shape]
        self.plain[node] = self.graph.call_function(self.aten.reshape.default, (self.lifted[source], shape))


def _numbers(size: Any) -> list[int]:
    return list(size) if isinstance(size, list | tuple) else [size]


def _lifted_axis(axis: int) -> int:
    """Axis of ``[N, C, L]`` in ``[N, C, 1, L]``."""
    axis = axis % 3
    return 3 if axis == 2 else axis
