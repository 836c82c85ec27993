"""``torch.cond``: both branches are computed and the one that holds is taken, so that their layers can become integers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

__all__ = ["take_both_branches"]

aten = torch.ops.aten


def take_both_branches(module: GraphModule) -> None:
    """Put the operators of both branches in place of every ``torch.cond`` of ``module``, and a ``where`` after them.

    Branches have no side effects, so computing the other one costs time and nothing else. A branch within a branch is met after
    the one around it.
    """
    while True:
        node = next((node for node in module.graph.nodes if node.op == "call_function" and str(node.target) == "cond"), None)
        if node is None:
            return
        _replace(module, node)


def _replace(module: GraphModule, node: Node) -> None:
    predicate: Any
    operands: Any
    predicate, then, otherwise, operands = node.args
    one, other = (_copy_in(module, node, str(graph.target), operands) for graph in (then, otherwise))  # type: ignore[union-attr]
    for user in list(node.users):
        at: Any = user.args[1]
        with module.graph.inserting_before(node):
            taken = module.graph.call_function(aten.where.self, (predicate, one[at], other[at]))
        taken.meta = dict(user.meta)
        user.replace_all_uses_with(taken)
        module.graph.erase_node(user)
    module.graph.erase_node(node)
    for graph in (then, otherwise):
        if not graph.users:  # type: ignore[union-attr]
            module.graph.erase_node(graph)  # type: ignore[arg-type]


def _copy_in(module: GraphModule, node: Node, name: str, operands: Any) -> list[Node]:
    """The operators of a branch in front of ``node``; what it returns."""
    branch: Any = module.get_submodule(name)
    given = iter(operands)
    values: dict[Node, Any] = {}
    for inner in branch.graph.nodes:
        if inner.op == "placeholder":
            values[inner] = next(given)
        elif inner.op == "output":
            return [values[value] for value in inner.args[0]]
        else:
            if inner.op == "get_attr":
                setattr(module, f"{name}_{inner.target}", getattr(branch, inner.target))
            with module.graph.inserting_before(node):
                values[inner] = copied = module.graph.node_copy(inner, lambda source: values[source])
            if inner.op == "get_attr":
                copied.target = f"{name}_{inner.target}"
    return []
