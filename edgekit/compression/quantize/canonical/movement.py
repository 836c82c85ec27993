"""One form for everything that moves values about: slices, selections, concatenations, reshapes, pads and windows.

==================================== =======================================================================
captured                             canonical
==================================== =======================================================================
``chunk``, ``split``, ``unbind``      ``slice`` or ``select`` for each part that is read
``stack``                             ``unsqueeze`` of each part, and ``cat``
``view``                              ``reshape`` (what made the memory contiguous before it may have gone)
``constant_pad_nd``                   ``pad``
``padding="same"``, ``"valid"``       numbers; a ``pad`` before the convolution where the two sides differ
``adaptive_avg_pool`` to equal parts  ``avg_pool`` with that window
==================================== =======================================================================
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch

from edgekit.compression.quantize.nodes import constant, insert_call, rank_of, shape_of, substitute

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

__all__ = ["spell_out_movement"]

aten = torch.ops.aten

_SPLITS = {"aten.chunk.default", "aten.split.Tensor", "aten.split_with_sizes.default", "aten.split.sizes"}
_VIEWS = {"aten.view.default", "aten._unsafe_view.default", "aten.reshape_as.default", "aten.view_as.default"}
_NAMED_PADDING = {
    "aten.conv1d.padding": aten.conv1d.default,
    "aten.conv2d.padding": aten.conv2d.default,
    "aten.conv3d.padding": aten.conv3d.default,
}
_ADAPTIVE = {
    "aten.adaptive_avg_pool1d.default": aten.avg_pool1d.default,
    "aten.adaptive_avg_pool2d.default": aten.avg_pool2d.default,
    "aten.adaptive_avg_pool3d.default": aten.avg_pool3d.default,
}


def spell_out_movement(module: GraphModule) -> None:
    """Bring every such operator of ``module`` into the form above; each keeps the values as they are."""
    for node in list(module.graph.nodes):
        name = str(node.target)
        if name in _SPLITS or name == "aten.unbind.int":
            _spell_out_split(module, node)
        elif name == "aten.stack.default":
            _spell_out_stack(module, node)
        elif name in _VIEWS:
            substitute(module, node, insert_call(module, node, aten.reshape.default, node.args[0], list(shape_of(node))))
        elif name == "aten.constant_pad_nd.default":
            value = node.args[2] if len(node.args) > 2 else 0.0
            substitute(module, node, insert_call(module, node, aten.pad.default, *node.args[:2], "constant", float(value)))
        elif name in _NAMED_PADDING:
            _spell_out_padding(module, node)
        elif name in _ADAPTIVE:
            _spell_out_windows(module, node)


def _spell_out_split(module: GraphModule, node: Node) -> None:
    """Each part that is read becomes a slice (or, of ``unbind``, a selection); a part nobody picks stays undone."""
    source = node.args[0]
    is_unbind = str(node.target) == "aten.unbind.int"
    given: Any = node.args[-1] if len(node.args) > (1 if is_unbind else 2) else node.kwargs.get("dim", 0)
    axis = given % rank_of(source)
    if any(user.target is not operator.getitem for user in node.users):
        return
    parts: Any = node.meta["val"]
    ends: list[int] = [0]
    for part in parts:
        ends.append(ends[-1] + (1 if is_unbind else int(part.shape[axis])))
    for user in list(node.users):
        at: Any = user.args[1]
        if is_unbind:
            made = insert_call(module, user, aten.select.int, source, axis, at)
        else:
            made = insert_call(module, user, aten.slice.Tensor, source, axis, ends[at], ends[at + 1])
        substitute(module, user, made)
    module.graph.erase_node(node)


def _spell_out_stack(module: GraphModule, node: Node) -> None:
    parts: Any = node.args[0]
    axis: Any = node.args[1] if len(node.args) > 1 else 0
    axis = axis % rank_of(node)
    raised = [insert_call(module, node, aten.unsqueeze.default, part, axis) for part in parts]
    substitute(module, node, insert_call(module, node, aten.cat.default, raised, axis))


def _spell_out_padding(module: GraphModule, node: Node) -> None:
    """``padding="same"`` pads ``dilation * (size - 1)`` in all, the odd one behind (torch.nn.Conv2d)."""
    weight = constant(module, node.args[1])
    name: Any = node.args[4] if len(node.args) > 4 else node.kwargs.get("padding", "valid")
    if weight is None or not isinstance(name, str):
        return
    rank = weight.ndim - 2
    given: list[Any] = [*node.args, *[None, [1] * rank, name, [1] * rank, 1][len(node.args) - 2 :]]
    totals = [dilation * (size - 1) for dilation, size in zip(_per_axis(given[5], rank), weight.shape[2:], strict=True)]
    if name == "valid":
        totals = [0] * rank
    given[4] = [total // 2 for total in totals]
    if any(total % 2 for total in totals):
        amounts = [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
        given[0], given[4] = insert_call(module, node, aten.pad.default, given[0], amounts, "constant", 0.0), [0] * rank
    node.target = _NAMED_PADDING[str(node.target)]
    node.args, node.kwargs = tuple(given), {}


def _per_axis(value: Any, rank: int) -> list[int]:
    values = list(value) if isinstance(value, list | tuple) else [value]
    return values * rank if len(values) == 1 else values


def _spell_out_windows(module: GraphModule, node: Node) -> None:
    """Adaptive pooling to a size that divides the input's has one window; a single output stays a global mean."""
    spatial = 1 if "1d" in str(node.target) else 2 if "2d" in str(node.target) else 3
    before, after = shape_of(node.args[0])[-spatial:], shape_of(node)[-spatial:]
    if all(size == 1 for size in after) or any(size % wanted for size, wanted in zip(before, after, strict=True)):
        return
    window = [size // wanted for size, wanted in zip(before, after, strict=True)]
    substitute(module, node, insert_call(module, node, _ADAPTIVE[str(node.target)], node.args[0], window, window))
