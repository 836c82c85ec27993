"""Nodes of a float graph: the constants behind them, and how a rewrite puts in new ones.

Every node keeps in ``meta["val"]`` a tensor of its value's shape and type without storage (device ``meta``), so that a
rewrite may ask for the shape of what another has just written.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg
from torch.utils._pytree import tree_map

__all__ = [
    "axis_order",
    "constant",
    "copy_used",
    "describe_values",
    "insert_call",
    "put_constant",
    "rank_of",
    "shape_of",
    "substitute",
]

_ORIGIN = ("nn_module_stack", "stack_trace", "source_fn_stack")


def constant(module: torch.nn.Module, node: object) -> torch.Tensor | None:
    """The tensor behind a ``get_attr`` node; None for anything else."""
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    try:
        value: Any = operator.attrgetter(str(node.target))(module)
    except AttributeError:
        return None
    return value.detach() if isinstance(value, torch.Tensor) else None


def put_constant(module: GraphModule, name: str, value: torch.Tensor, *, before: Node) -> Node:
    """Register a buffer under a free name built from ``name``, and return a ``get_attr`` node for it."""
    stem = name.replace(".", "_")
    free, count = stem, 1
    while hasattr(module, free):
        free, count = f"{stem}_{count}", count + 1
    module.register_buffer(free, value.detach().clone().contiguous())
    with module.graph.inserting_before(before):
        node = module.graph.get_attr(free)
    node.meta = {"val": value}
    return node


def copy_used(module: GraphModule) -> GraphModule:
    """The same graph over a module that holds copies of the constants the graph reads, and nothing else."""
    used = {
        str(node.target): tensor.clone()
        for node in module.graph.nodes
        if node.op == "get_attr" and (tensor := constant(module, node)) is not None
    }
    return GraphModule(used, module.graph)


def describe_values(module: GraphModule) -> None:
    """Give every node a ``meta["val"]`` without storage; ``torch.export`` records one for all but constants."""
    for node in module.graph.nodes:
        value = constant(module, node)
        node.meta["val"] = _without_storage(node.meta.get("val") if value is None else value)


def insert_call(module: GraphModule, before: Node, target: Any, *arguments: Any, **keywords: Any) -> Node:
    """Call ``target`` in front of ``before``, as part of the same layer."""
    with module.graph.inserting_before(before):
        node: Node = module.graph.call_function(target, arguments, keywords)
    node.meta = {key: before.meta[key] for key in _ORIGIN if key in before.meta}
    given, named = map_arg((arguments, keywords), lambda source: _without_storage(source.meta["val"]))
    with torch.no_grad():
        node.meta["val"] = target(*given, **named)
    return node


def substitute(module: GraphModule, node: Node, other: Node) -> None:
    """Let everything that read ``node`` read ``other``, and remove ``node``."""
    node.replace_all_uses_with(other)
    module.graph.erase_node(node)


def shape_of(node: object) -> tuple[int, ...]:
    """Sizes of a node's value; empty where it is no tensor."""
    value = node.meta.get("val") if isinstance(node, Node) else None
    return tuple(int(size) for size in value.shape) if isinstance(value, torch.Tensor) else ()


def rank_of(node: object) -> int:
    """Rank of a node's value; 0 where it is no tensor."""
    return len(shape_of(node))


def axis_order(node: Node) -> list[int]:
    """Axis of the source for each axis of what ``permute`` or ``transpose`` makes of it."""
    rank = rank_of(node)
    if str(node.target) == "aten.permute.default":
        axes: Any = node.args[1]
        return [axis % rank for axis in axes]
    pair: Any = node.args[1:3]
    one, other = (axis % rank for axis in pair)
    order = list(range(rank))
    order[one], order[other] = order[other], order[one]
    return order


def _without_storage(value: Any) -> Any:
    def strip(part: Any) -> Any:
        return torch.empty(tuple(part.shape), dtype=part.dtype, device="meta") if isinstance(part, torch.Tensor) else part

    return tree_map(strip, value)
