"""Branches and loops without control flow: both branches and a choice; a loop of known length written out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from edgekit.converters.rewrites.rewrite import Rewrite

if TYPE_CHECKING:
    from torch.fx import Graph, Node

    from edgekit.converters.program_edit import ProgramEdit

__all__ = ["REWRITES"]

_MOST_ROUNDS = 64


def _take_both_branches(edit: ProgramEdit) -> int:
    """``cond`` computes both branches and chooses; the inner ones of nested branches come to light with the outer ones."""
    count = 0
    while found := [node for node in _calls(edit, "cond") if _are_plain(edit, node.args[1:3])]:
        for node in found:
            decision, true, false, operands = node.args
            outcomes = [_inline(edit, node, branch, operands) for branch in (true, false)]  # type: ignore[arg-type]
            for place, pair in enumerate(zip(*outcomes, strict=True)):
                chosen = edit.compute(node, torch.where, decision, *pair)
                _hand_over(edit, node, place, chosen)
            edit.graph.erase_node(node)
            count += 1
    return count


def _write_out_loops(edit: ProgramEdit) -> int:
    """``while_loop`` whose condition depends on constants alone: a counter."""
    count = 0
    for node in _calls(edit, "while_loop"):
        if not _are_plain(edit, node.args[:2]):
            continue
        condition, body = node.args[:2]
        carried: list[Any] = list(node.args[2])  # type: ignore[arg-type]
        more: list[Any] = list(node.args[3]) if len(node.args) > 3 else []  # type: ignore[arg-type]
        for _ in range(_MOST_ROUNDS + 1):
            (decision,) = _inline(edit, node, condition, [*carried, *more])
            value = edit.value_of(decision)
            if value is None or not bool(value):
                break
            carried = _inline(edit, node, body, [*carried, *more])
        if value is None or bool(value):
            continue  # what was written out is read by nothing, and goes
        for place, result in enumerate(carried):
            _hand_over(edit, node, place, result)
        edit.graph.erase_node(node)
        count += 1
    return count


def _calls(edit: ProgramEdit, name: str) -> list[Node]:
    return [node for node in edit.graph.nodes if node.op == "call_function" and str(node.target) == name]


def _body(edit: ProgramEdit, node: Any) -> Graph:
    module: Any = edit.module
    for part in str(node.target).split("."):
        module = getattr(module, part)
    graph: Graph = module.graph
    return graph


def _are_plain(edit: ProgramEdit, parts: Sequence[Any]) -> bool:
    """Whether branches only compute, and change nothing in place."""
    nodes = [node for part in parts for node in _body(edit, part).nodes if node.op not in {"placeholder", "output"}]
    return not any(node.is_impure() for node in nodes)


def _inline(edit: ProgramEdit, at: Node, part: Any, operands: Sequence[Any]) -> list[Any]:
    """Copy a body in front of a node; its results."""
    body = _body(edit, part)
    values: dict[Node, Any] = dict(zip((node for node in body.nodes if node.op == "placeholder"), operands, strict=True))
    for node in body.nodes:
        if node.op == "output":
            results = torch.fx.node.map_arg(node.args[0], lambda source: values[source])
            return list(results) if isinstance(results, list | tuple) else [results]
        if node.op == "placeholder":
            continue
        with edit.graph.inserting_before(at):
            values[node] = edit.graph.node_copy(node, lambda source: values[source])
        if node.op == "get_attr":  # the body of a branch within the branch
            values[node].target = f"{part.target}.{node.target}"
    return []


def _hand_over(edit: ProgramEdit, node: Node, place: int, result: Any) -> None:
    """Let the readers of one part of a node's value read ``result``."""
    for user in list(node.users):
        if user.args[1] == place:
            user.replace_all_uses_with(result)
            edit.graph.erase_node(user)


REWRITES = (
    Rewrite(
        name="cond-to-where",
        targets=("tflite", "coreml"),
        because="litert-torch 0.10 and coremltools 9 have no torch.cond",
        edit=_take_both_branches,
    ),
    Rewrite(
        name="counted-loop-written-out",
        targets=("tflite", "coreml"),
        because="litert-torch 0.10 and coremltools 9 have no while_loop",
        edit=_write_out_loops,
    ),
)
