"""Pictures as ``[N, H, W, C]`` -> ``[N, C, H, W]``: permutations move down the graph until they meet their inverse.

::

    permute(x, p) -> relu            =   relu(x) -> permute(p)
    permute(permute(x, p), q)        =   permute(x, p then q); nothing, where that is the identity
    mean(permute(x, p), axes)        =   mean(x, p[axes])

Torch convolutions between two of Keras's layers stand between a permutation and its inverse; what lies between them (biases,
activations, pads, joins) is indifferent to the order of axes once its own axes are named anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgekit.converters.sources.folding import add_constant, constant_of, emit

__all__ = ["sink_permutes"]

_aten = torch.ops.aten
_PERMUTE = _aten.permute.default

_UNARY = {
    *(
        f"aten.{name}.default"
        for name in (
            "relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "sigmoid", "silu", "tanh", "gelu", "elu", "leaky_relu",
            "softplus", "mish", "selu", "celu", "log_sigmoid", "exp", "log", "sqrt", "rsqrt", "square", "abs", "neg", "sign",
            "reciprocal", "floor", "round", "sin", "cos", "erf", "clamp", "clamp_min", "clamp_max", "clone",
        )
    ),
    "aten.pow.Tensor_Scalar",
    "aten._to_copy.default",
}  # fmt: skip
_BINARY = {
    f"aten.{name}.Tensor" for name in ("add", "sub", "subtract", "mul", "multiply", "div", "divide")
} | {f"aten.{name}.default" for name in ("maximum", "minimum")}  # fmt: skip
_REDUCTIONS = {"aten.mean.dim", "aten.sum.dim_IntList", "aten.amax.default", "aten.amin.default"}


def sink_permutes(module: GraphModule) -> None:
    """Move every permutation as far down as it goes."""
    for node in list(module.graph.nodes):
        if node.op != "call_function":
            continue
        name = str(node.target)
        if name in {"aten.transpose.int", "aten.t.default"}:
            _spell_out_transpose(node)
            name = str(node.target)
        if node.target is _PERMUTE:
            _join(module, node)
        else:
            rule = _RULES.get(name)
            if rule is not None:
                rule(module, node)
    for node in list(module.graph.nodes):
        _reshape_where_one_wide(node)


def _order(node: Any) -> list[int] | None:
    """The axes a permutation takes; None for another node."""
    if not isinstance(node, Node) or node.target is not _PERMUTE:
        return None
    axes: Any = node.args[1]
    return [int(axis) % len(axes) for axis in axes]


def _inverse(order: Sequence[int]) -> list[int]:
    return [order.index(axis) for axis in range(len(order))]


def _spell_out_transpose(node: Node) -> None:
    rank = node.meta["val"].ndim
    order = list(range(rank))
    first, second = (int(axis) % rank for axis in (node.args[1:3] if len(node.args) > 1 else (0, rank - 1)))  # type: ignore[arg-type]
    order[first], order[second] = order[second], order[first]
    node.target = _PERMUTE
    node.args = (node.args[0], order)


def _join(module: GraphModule, node: Node) -> None:
    """Two permutations are one, or none."""
    inner, order = _order(node.args[0]), _order(node)
    if order is None:
        return
    source: Any = node.args[0]
    if inner is not None:
        source, order = source.args[0], [inner[axis] for axis in order]
        node.args = (source, order)
    if order == sorted(order):
        node.replace_all_uses_with(source)
        module.graph.erase_node(node)


def _reshape_where_one_wide(node: Node) -> None:
    """A permutation that moves axes of size 1 only is a reshape."""
    order = _order(node)
    if order is None:
        return
    source: Any = node.args[0]
    shape = source.meta["val"].shape
    moved = [axis for axis in order if shape[axis] != 1]
    if moved == sorted(moved):
        node.target = _aten.reshape.default
        node.args = (source, [int(shape[axis]) for axis in order])


def _sink(module: GraphModule, node: Node, order: Sequence[int], *args: Any) -> None:
    """Put ``permute(node's operator on args)`` in the node's place."""
    with_kwargs = dict(node.kwargs)
    made = emit(module, node.target, *args, before=node)
    made.kwargs = with_kwargs
    moved = emit(module, _PERMUTE, made, list(order), before=node)
    node.replace_all_uses_with(moved)
    module.graph.erase_node(node)


def _through_unary(module: GraphModule, node: Node) -> None:
    order = _order(node.args[0])
    if order is not None:
        source: Any = node.args[0]
        _sink(module, node, order, source.args[0], *node.args[1:])


def _through_binary(module: GraphModule, node: Node) -> None:
    operands = node.args[:2]
    orders = [order for order in map(_order, operands) if order is not None]
    if not orders or any(order != orders[0] for order in orders):
        return
    order, made = orders[0], []
    for operand in operands:
        back = _before(module, operand, order, before=node)
        if back is None:
            return
        made.append(back)
    _sink(module, node, order, *made, *node.args[2:])


def _before(module: GraphModule, operand: Any, order: Sequence[int], *, before: Node) -> Any:
    """An operand as it is before a permutation: a number, a constant in the other order, or what was permuted."""
    if not isinstance(operand, Node):
        return operand
    if _order(operand) is not None:
        return operand.args[0]
    rank, value = len(order), operand.meta.get("val")
    held = constant_of(module, operand)
    if held is not None and held.ndim <= rank:
        wide = held.reshape([1] * (rank - held.ndim) + list(held.shape))
        return add_constant(module, wide.permute(_inverse(order)).contiguous(), like="permuted")
    if isinstance(value, torch.Tensor) and value.ndim == rank and sum(size != 1 for size in value.shape) <= 1:
        shape = [int(value.shape[axis]) for axis in _inverse(order)]
        return emit(module, _aten.reshape.default, operand, shape, before=before)
    return None


def _through_reduction(module: GraphModule, node: Node) -> None:
    order = _order(node.args[0])
    axes: Any = node.args[1] if len(node.args) > 1 else None
    if order is None or not axes:
        return
    source: Any = node.args[0]
    keeps = bool(node.args[2]) if len(node.args) > 2 else False
    taken = [order[int(axis) % len(order)] for axis in axes]
    if keeps:
        _sink(module, node, order, source.args[0], sorted(taken), *node.args[2:])
        return
    left = [axis for axis in order if axis not in taken]
    _sink(module, node, [sorted(left).index(axis) for axis in left], source.args[0], sorted(taken), *node.args[2:])


def _through_axis(at: int) -> Callable[[GraphModule, Node], None]:
    """A rule for operators one of whose arguments is an axis."""

    def rule(module: GraphModule, node: Node) -> None:
        order = _order(node.args[0])
        if order is None or len(node.args) <= at:
            return
        source: Any = node.args[0]
        axis: Any = node.args[at]
        args = list(node.args)
        args[0], args[at] = source.args[0], order[int(axis) % len(order)]
        _sink(module, node, order, *args)

    return rule


def _through_join(module: GraphModule, node: Node) -> None:
    parts: Any = node.args[0]
    orders = [order for order in map(_order, parts) if order is not None]
    if not orders or any(order != orders[0] for order in orders):
        return
    order, axis = orders[0], int(node.args[1]) if len(node.args) > 1 else 0  # type: ignore[arg-type]
    made = []
    for part in parts:
        back = part.args[0] if _order(part) is not None else None
        held = constant_of(module, part)
        if held is not None and held.ndim == len(order):
            back = add_constant(module, held.permute(_inverse(order)).contiguous(), like="permuted")
        if back is None:
            return
        made.append(back)
    _sink(module, node, order, made, order[axis % len(order)])


def _through_pad(module: GraphModule, node: Node) -> None:
    order = _order(node.args[0])
    if order is None or (len(node.args) > 2 and node.args[2] not in {"constant"} and str(node.target) == "aten.pad.default"):
        return
    source: Any = node.args[0]
    pads: Any = node.args[1]
    rank = len(order)
    around = [(0, 0)] * rank  # by axis of the permuted tensor; a pad names the last axis first
    for place in range(len(pads) // 2):
        around[rank - 1 - place] = (pads[2 * place], pads[2 * place + 1])
    back = [around[order.index(axis)] for axis in range(rank)]
    while back and back[0] == (0, 0):
        back = back[1:]
    flat = [value for pair in reversed(back) for value in pair]
    _sink(module, node, order, source.args[0], flat, *node.args[2:])


_RULES: dict[str, Callable[[GraphModule, Node], None]] = {
    **dict.fromkeys(_UNARY, _through_unary),
    **dict.fromkeys(_BINARY, _through_binary),
    **dict.fromkeys(_REDUCTIONS, _through_reduction),
    "aten.softmax.int": _through_axis(1),
    "aten.slice.Tensor": _through_axis(1),
    "aten.cat.default": _through_join,
    "aten.concat.default": _through_join,
    "aten.pad.default": _through_pad,
    "aten.constant_pad_nd.default": _through_pad,
}
