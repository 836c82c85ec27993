"""Which value of the float program is which value of the compressed program.

The compressed graph was made from the float graph by inserting quantize/dequantize pairs, folding batch normalisation,
dropping what does nothing at inference, and leaving out clamps that saturation implies. So the two are walked together
from the inputs: a compressed operator's counterpart is the first free float operator of the same kind whose inputs,
seen through folded and dropped operators, are the counterparts of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.fx import Graph, Node

__all__ = ["Alignment"]

_BOUNDARIES = {"quantized_decomposed.quantize_per_tensor.default", "quantized_decomposed.dequantize_per_tensor.default"}
_CLAMPS = {"relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max"}
_ABSORBED = _CLAMPS | {
    "batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm",
    "dropout", "feature_dropout", "alias", "detach", "contiguous", "clone", "lift_fresh_copy", "_to_copy", "to",
}  # fmt: skip


class Alignment:
    """Counterparts of the compressed graph's values in the float graph.

    Args:
        compressed: Graph with quantize/dequantize pairs.
        original: Graph of the captured float program.
    """

    def __init__(self, compressed: Graph, original: Graph) -> None:
        self._original = [node for node in original.nodes if node.op == "call_function"]
        self._live = _live_nodes(compressed) | _live_nodes(original)
        inputs = [[node for node in graph.nodes if node.op == "placeholder"] for graph in (compressed, original)]
        self._matched: dict[Node, Node] = dict(zip(*inputs, strict=True))
        self._taken = set(inputs[1])
        for node in compressed.nodes:
            if node.op == "call_function" and node in self._live and str(node.target) not in _BOUNDARIES:
                self._match(node)

    def counterpart(self, node: Node) -> Node | None:
        """The float node whose value ``node`` (any node of the compressed graph) approximates; None if there is none.

        Where the operators after it were folded into it, the counterpart is the last of them.
        """
        chain = self._chain(node)
        return chain[-1] if chain else None

    def clamps(self, node: Node) -> bool:
        """Whether a clamp of the float program was left out before ``node``, because saturation does the same."""
        return bool(self.clamp(node))

    def clamp(self, node: Node) -> str:
        """Name of the clamp of the float program that was left out before ``node``, ``"relu"``; empty where there was none."""
        return next((_name(member) for member in self._chain(node)[1:] if _name(member) in _CLAMPS), "")

    def _chain(self, node: Node) -> list[Node]:
        """The operator matched to ``node`` and those after it that were folded into it."""
        found = self._matched.get(_source(node))
        chain: list[Node] = []
        while found is not None:
            chain.append(found)
            found = self._absorbed_follower(found)
        return chain

    def _absorbed_follower(self, node: Node) -> Node | None:
        users = [user for user in node.users if user in self._live and user.op == "call_function"]
        if len(users) != 1 or users[0] in self._taken or _shape(users[0]) != _shape(node):
            return None
        return users[0] if _name(users[0]) in _ABSORBED else None

    def _match(self, node: Node) -> None:
        wanted = [self._matched.get(_source(argument)) for argument in self._inputs(node)]
        if not wanted or None in wanted:
            return
        candidates = [other for other in self._original if other not in self._taken and self._reads(other, wanted)]
        candidates = [other for other in candidates if _shape(other) == _shape(node)]
        for alike in (_same_call, _same_operator, _any_operator):
            for other in candidates:
                if alike(node, other):
                    self._matched[node] = other
                    self._taken.add(other)
                    return

    def _reads(self, node: Node, wanted: Sequence[Node | None]) -> bool:
        """Whether the node's inputs are ``wanted``, directly or through operators that were folded or dropped."""
        inputs = self._inputs(node)
        return len(inputs) == len(wanted) and all(self._leads_to(one, other) for one, other in zip(inputs, wanted, strict=True))

    def _leads_to(self, node: Node, wanted: Node | None) -> bool:
        while node is not wanted:
            inputs = self._inputs(node)
            if node in self._taken or len(inputs) != 1 or _name(node) not in _ABSORBED:
                return False
            node = inputs[0]
        return True

    def _inputs(self, node: Node) -> list[Node]:
        return [argument for argument in _nodes_in(node.args) if argument in self._live]


def _live_nodes(graph: Graph) -> set[Node]:
    """Nodes that depend on an input: everything but parameters and what is computed from them alone."""
    live: set[Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or any(argument in live for argument in node.all_input_nodes):
            live.add(node)
    return live


def _source(node: Node) -> Node:
    while node.op == "call_function" and str(node.target) in _BOUNDARIES:
        node = node.args[0]  # type: ignore[assignment]  # a boundary's first argument is a node
    return node


def _nodes_in(argument: Any) -> Iterator[Node]:
    from torch.fx import Node

    if isinstance(argument, Node):
        yield argument
    elif isinstance(argument, list | tuple):
        for part in argument:
            yield from _nodes_in(part)


def _literals(node: Node) -> str:
    return str([argument for argument in node.args if not list(_nodes_in(argument))]) + str(dict(node.kwargs))


def _name(node: Node) -> str:
    """Operator without namespace, overload and in-place mark: ``"relu"`` for ``aten.relu_.default``."""
    return str(node.target).split(".")[1].removesuffix("_") if "." in str(node.target) else str(node.target)


def _shape(node: Node) -> tuple[int, ...] | None:
    value: Any = node.meta.get("val")
    return tuple(value.shape) if hasattr(value, "shape") else None


def _same_call(node: Node, other: Node) -> bool:
    return _name(node) == _name(other) and _literals(node) == _literals(other)


def _same_operator(node: Node, other: Node) -> bool:
    return _name(node) == _name(other)


def _any_operator(node: Node, other: Node) -> bool:
    """A rewritten operator: another kind, but of the same inputs and shape (a lone batch normalisation made a convolution)."""
    return node.op == other.op
