"""Outputs that are inputs, or that are returned twice: each gets an operator of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edgekit.converters.rewrites.rewrite import Rewrite

if TYPE_CHECKING:
    from edgekit.converters.program_edit import ProgramEdit

__all__ = ["REWRITES"]


def _separate(edit: ProgramEdit) -> int:
    (output,) = (node for node in edit.graph.nodes if node.op == "output")
    results = list(output.args[0])
    seen: set[torch.fx.Node] = set()
    count = 0
    for position, node in enumerate(results):
        if isinstance(node, torch.fx.Node) and (node in seen or _source(node).op == "placeholder"):
            with edit.graph.inserting_before(output):
                copy = edit.graph.call_function(torch.ops.aten.alias.default, (node,))
            copy.meta["val"] = node.meta.get("val")
            results[position] = copy
            count += 1
        seen.add(node)
    output.args = (tuple(results),)
    return count


_COPIES = {"aten.clone.default", "aten.contiguous.default", "aten.detach.default", "aten.dropout.default"}
"""What coremltools makes no operation of."""


def _source(node: torch.fx.Node) -> torch.fx.Node:
    """What a chain of copies copies."""
    while str(node.target) in _COPIES and isinstance(node.args[0], torch.fx.Node):
        node = node.args[0]
    return node


REWRITES = (
    Rewrite(
        name="outputs-of-their-own",
        targets=("coreml",),
        because="coremltools 9 ends with an AssertionError where a named output is an input, and loses one of two equal ones",
        edit=_separate,
    ),
)
