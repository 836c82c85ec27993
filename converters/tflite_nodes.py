"""Nodes of an exported graph: what they call, what rank they have, the constants behind them."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch.fx import Graph, GraphModule, Node

__all__ = ["RESHAPES", "add_constant", "constant", "layer_of", "operator_name", "rank_of"]

RESHAPES = {"view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze"}
"""Operators that keep the row-major order of the values."""


def operator_name(node: Node) -> str:
    """Operator name without namespace and overload: ``"conv1d"``; empty for anything that is no torch operator."""
    packet = getattr(node.target, "overloadpacket", None)
    return "getitem" if node.target is operator.getitem else getattr(packet, "__name__", "")


def rank_of(node: Node) -> int:
    """Rank of a node's value; -1 where it is no tensor."""
    value: Any = node.meta.get("val")
    return int(getattr(value, "ndim", -1))


def constant(module: GraphModule, node: Any) -> torch.Tensor:
    """The tensor behind a ``get_attr`` node."""
    value: Any = module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value.detach()  # type: ignore[no-any-return]


def add_constant(module: GraphModule, graph: Graph, value: torch.Tensor) -> Node:
    """Register a buffer and return a ``get_attr`` node for it."""
    name = f"lowered_{sum(1 for key, _ in module.named_buffers(recurse=False) if key.startswith('lowered_'))}"
    module.register_buffer(name, value.detach().clone())
    node: Node = graph.get_attr(name)
    return node


def layer_of(node: Node) -> str:
    """Module path of the layer a node came from; empty for code in the model's own ``forward``."""
    stack = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][0]) if stack else ""
