"""Writing where a mask says so, as a choice between two values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from edgekit.converters.rewrites.rewrite import Rewrite

if TYPE_CHECKING:
    from torch.fx import Node

    from edgekit.converters.program_edit import ProgramEdit

__all__ = ["REWRITES"]

_PUTS = ("aten.index_put_.default", "aten.index_put.default")


def _choose(edit: ProgramEdit) -> int:
    """``x[mask] = value``, in place or not; later readers of the changed tensor read the choice."""
    count = 0
    for node in edit.find(*_PUTS):
        if not _is_choice(node):
            continue
        changed: Any = node.args[0]
        order = {one: place for place, one in enumerate(edit.graph.nodes)}
        later = [user for user in changed.users if order[user] > order[node]]
        made = edit.compute(node, _where, changed, node.args[1][0], node.args[2])  # type: ignore[index]
        node.replace_all_uses_with(made)
        if "index_put_" in str(node.target):
            for user in later:
                user.replace_input_with(changed, made)
        edit.graph.erase_node(node)
        count += 1
    return count


def _where(values: torch.Tensor, mask: torch.Tensor, put: torch.Tensor) -> torch.Tensor:
    while mask.ndim < values.ndim:
        mask = mask[..., None]
    return torch.where(mask, put.reshape(()) if put.numel() == 1 else put, values)


def _is_choice(node: Node) -> bool:
    """One mask over the leading axes, and a value that is the same for every place; nothing else shares the tensor's memory."""
    arguments: list[Any] = list(node.args)
    changed, indices, put, *rest = arguments
    mask = indices[0]
    if len(indices) > 1 or any(rest) or not isinstance(mask, torch.fx.Node) or mask.meta["val"].dtype is not torch.bool:
        return False
    value: Any = put.meta["val"]
    suffix = changed.meta["val"].shape[mask.meta["val"].ndim :]
    if value.numel() != 1 and tuple(value.shape) != tuple(suffix):
        return False
    return "index_put_" not in str(node.target) or _is_own(changed)


def _is_own(node: Any) -> bool:
    """Whether a tensor is neither an input or parameter nor a view of another one."""
    if node.op != "call_function":
        return False
    operator = node.target
    returns = getattr(getattr(operator, "_schema", None), "returns", ())
    is_view = any(one.alias_info is not None and not one.alias_info.is_write for one in returns)
    if is_view:
        return False
    if any(one.alias_info is not None for one in returns):  # it changed its own input
        return _is_own(node.args[0])
    return not any(_is_view_of(user) for user in node.users)


def _is_view_of(user: Any) -> bool:
    returns = getattr(getattr(user.target, "_schema", None), "returns", ())
    return any(one.alias_info is not None and not one.alias_info.is_write for one in returns)


REWRITES = (
    Rewrite(
        name="masked-write-to-where",
        targets=("tflite",),
        because="litert-torch 0.10: 'NonConcreteBooleanIndexError: Array boolean indices must be concrete'",
        edit=_choose,
    ),
)
