"""Moves in a row, shortened: what is reshaped twice is reshaped once.

====================================================== ==================================================
found                                                   becomes
====================================================== ==================================================
``reshape -> reshape`` (``unsqueeze``, ``flatten`` ...)  one ``reshape``, or nothing
``permute -> permute`` (``transpose``)                   one ``permute``, or nothing
``reshape -> permute -> reshape`` about axes of size 1   the same without these axes
``reshape -> linear -> reshape`` of the rows             ``reshape -> linear``
====================================================== ==================================================

``torch.nn.MultiheadAttention`` moves its values more than twenty times; half of these are left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from edgekit.compression.quantize.nodes import insert_call, rank_of, shape_of, substitute

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

__all__ = ["shorten_chains"]

aten = torch.ops.aten

_RESHAPES = {
    "aten.reshape.default", "aten.flatten.using_ints", "aten.unflatten.int", "aten.unsqueeze.default", "aten.squeeze.dim",
    "aten.squeeze.dims", "aten.squeeze.default",
}  # fmt: skip
_PERMUTES = {"aten.permute.default", "aten.transpose.int"}


def shorten_chains(module: GraphModule) -> None:
    """Merge moves whose intermediate result nobody else reads."""
    for node in list(module.graph.nodes):
        if str(node.target) in _PERMUTES and _is_between_reshapes(node):
            _without_single_axes(module, node)
    for node in list(module.graph.nodes):
        if str(node.target) == "aten.linear.default" and _is_between_reshapes(node):
            _reshape_before(module, node)
    for node in list(module.graph.nodes):
        source: Any = node.args[0] if node.args else None
        shape = list(shape_of(node))
        if str(node.target) in _RESHAPES and _is_only_read_here(source, _RESHAPES):
            first: Any = source.args[0]
            same = shape_of(first) == shape_of(node)
            substitute(
                module, node, first if same else insert_call(module, node, aten.reshape.default, first, list(shape_of(node)))
            )
        elif str(node.target) in _PERMUTES and _is_only_read_here(source, _PERMUTES):
            first = source.args[0]
            order = [_order(source)[axis] for axis in _order(node)]
            same = order == sorted(order)
            substitute(module, node, first if same else insert_call(module, node, aten.permute.default, first, order))
    module.graph.eliminate_dead_code()


def _is_only_read_here(source: Any, kinds: set[str]) -> bool:
    return str(getattr(source, "target", "")) in kinds and len(source.users) == 1


def _is_between_reshapes(node: Node) -> bool:
    return (
        _is_only_read_here(node.args[0], _RESHAPES) and len(node.users) == 1 and str(next(iter(node.users)).target) in _RESHAPES
    )


def _order(node: Node) -> list[int]:
    """Axis of the source for each axis of the result."""
    rank = rank_of(node)
    if str(node.target) == "aten.permute.default":
        axes: Any = node.args[1]
        return [axis % rank for axis in axes]
    one, other = (int(axis) % rank for axis in node.args[1:3])  # type: ignore[call-overload]
    order = list(range(rank))
    order[one], order[other] = order[other], order[one]
    return order


def _without_single_axes(module: GraphModule, node: Node) -> None:
    shape, order = shape_of(node.args[0]), _order(node)
    kept = [axis for axis, size in enumerate(shape) if size != 1]
    if len(kept) == len(shape):
        return
    thin = insert_call(module, node, aten.reshape.default, node.args[0], [shape[axis] for axis in kept])
    turned = insert_call(module, node, aten.permute.default, thin, [kept.index(axis) for axis in order if axis in kept])
    substitute(module, node, insert_call(module, node, aten.reshape.default, turned, list(shape_of(node))))


def _reshape_before(module: GraphModule, node: Node) -> None:
    """Let a linear layer work on the rows in the shape they are wanted in."""
    (follower,) = node.users
    wanted, made, read = shape_of(follower), shape_of(node), shape_of(node.args[0])
    if not wanted or wanted[-1] != made[-1]:
        return
    rows = insert_call(module, node, aten.reshape.default, node.args[0], [*wanted[:-1], read[-1]])
    substitute(module, follower, insert_call(module, follower, aten.linear.default, rows, *node.args[1:]))
    module.graph.erase_node(node)
