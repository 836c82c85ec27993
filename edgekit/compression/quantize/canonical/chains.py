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

from edgekit.compression.quantize.nodes import axis_order, insert_call, shape_of, substitute

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
        if str(node.target) in _RESHAPES:
            _merge_reshapes(module, node)
        elif str(node.target) in _PERMUTES:
            _merge_permutes(module, node)
    module.graph.eliminate_dead_code()


def _merge_reshapes(module: GraphModule, node: Node) -> None:
    source: Any = node.args[0]
    shape, is_second = list(shape_of(node)), _is_only_read_here(source, _RESHAPES)
    first = source.args[0] if is_second else source
    if list(shape_of(first)) == shape:
        substitute(module, node, first)
    elif is_second:
        substitute(module, node, insert_call(module, node, aten.reshape.default, first, shape))


def _merge_permutes(module: GraphModule, node: Node) -> None:
    source: Any = node.args[0]
    is_second, order = _is_only_read_here(source, _PERMUTES), axis_order(node)
    if is_second:
        order = [axis_order(source)[axis] for axis in order]
    first = source.args[0] if is_second else source
    if order == sorted(order):
        substitute(module, node, first)
    elif is_second:
        substitute(module, node, insert_call(module, node, aten.permute.default, first, order))


def _is_only_read_here(source: Any, kinds: set[str]) -> bool:
    return str(getattr(source, "target", "")) in kinds and len(source.users) == 1


def _is_between_reshapes(node: Node) -> bool:
    return (
        _is_only_read_here(node.args[0], _RESHAPES) and len(node.users) == 1 and str(next(iter(node.users)).target) in _RESHAPES
    )


def _without_single_axes(module: GraphModule, node: Node) -> None:
    shape, order = shape_of(node.args[0]), axis_order(node)
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
