"""Packed projections, unpacked: queries, keys and values that one linear layer computes become three layers.

::

    linear ─ reshape [N, L, 3, H, D] ─ permute ─┬─ select 0         linear 0 ─ reshape [N, L, H, D] ─ permute
                                                ├─ select 1    ->   linear 1 ─ ...
                                                └─ select 2         linear 2 ─ ...

Each part then has a grid of its own, the scale of the queries can be folded into their weights, and nothing is cut
apart at run time. What is selected along an axis that a reshape made is a slice of the axis it was made from.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from edgekit.compression.quantize.nodes import axis_order, constant, insert_call, put_constant, rank_of, shape_of, substitute

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

__all__ = ["unpack_projections"]

aten = torch.ops.aten

_RESHAPES = {"aten.reshape.default", "aten.unflatten.int", "aten.flatten.using_ints"}
_PERMUTES = {"aten.permute.default", "aten.transpose.int"}


def unpack_projections(module: GraphModule) -> None:
    """Bring selections before permutations and reshapes, and split linear layers of which only slices are read."""
    changed = True
    while changed:
        changed = False
        for node in list(module.graph.nodes):
            if str(node.target) == "aten.select.int":
                changed |= _select_before(module, node)
        module.graph.eliminate_dead_code()
    for node in list(module.graph.nodes):
        if str(node.target) == "aten.linear.default":
            _split(module, node)


def _select_before(module: GraphModule, node: Node) -> bool:
    """Select first and move then; whether that could be done."""
    source, axis, at = _selection(node)
    if any(str(user.target) != "aten.select.int" for user in source.users):
        return False
    if str(source.target) in _PERMUTES:
        order = axis_order(source)
        picked = order.pop(axis)
        chosen = insert_call(module, node, aten.select.int, source.args[0], picked, at)
        moved = insert_call(module, node, aten.permute.default, chosen, [each - (each > picked) for each in order])
        substitute(module, node, moved)
        return True
    found = _origin(source, axis) if str(source.target) in _RESHAPES else None
    if found is None:
        return False
    before, width = found
    if width == 1:
        part = insert_call(module, node, aten.select.int, source.args[0], before, at)
    else:
        part = insert_call(module, node, aten.slice.Tensor, source.args[0], before, at * width, (at + 1) * width)
    substitute(module, node, insert_call(module, node, aten.reshape.default, part, list(shape_of(node))))
    return True


def _selection(node: Node) -> tuple[Any, int, int]:
    """Source, axis and place of a selection, both counted from the start."""
    source: Any = node.args[0]
    axis: Any = node.args[1]
    at: Any = node.args[2]
    axis %= rank_of(source)
    return source, axis, at % shape_of(source)[axis]


def _origin(reshape: Node, axis: int) -> tuple[int, int] | None:
    """The axis that a reshape split so that ``axis`` counts its parts, and the width of a part; None where it did not."""
    before, after = shape_of(reshape.args[0]), shape_of(reshape)
    leading = math.prod(after[:axis])
    for place in range(len(before)):
        inner = math.prod(before[place + 1 :])
        rest = math.prod(after[axis + 1 :])
        if math.prod(before[:place]) == leading and rest % inner == 0 and before[place] == after[axis] * (rest // inner):
            return place, rest // inner
    return None


def _split(module: GraphModule, node: Node) -> None:
    """One linear layer for each slice of the outputs, if nothing else reads them."""
    weight, bias = constant(module, node.args[1]), constant(module, node.args[2]) if len(node.args) > 2 else None
    users = list(node.users)
    if weight is None or len(users) < 2 or not all(_is_slice(user, rank_of(node) - 1) for user in users):
        return
    for number, user in enumerate(users):
        bounds: Any = user.args[2:4]
        start, end = bounds
        stem = f"{node.args[1].target}_{number}"  # type: ignore[union-attr]
        arguments: list[Any] = [node.all_input_nodes[0], put_constant(module, stem, weight[start:end], before=user)]
        if bias is not None:
            arguments.append(put_constant(module, f"{stem}_bias", bias[start:end], before=user))
        made = insert_call(module, user, aten.linear.default, *arguments)
        made.meta = {**node.meta, "val": made.meta["val"]}
        substitute(module, user, made)
    module.graph.erase_node(node)


def _is_slice(node: Node, axis: int) -> bool:
    if str(node.target) != "aten.slice.Tensor" or len(node.args) != 4:
        return False
    given: Any = node.args[1]
    return bool(given % rank_of(node) == axis)
