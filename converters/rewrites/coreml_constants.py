"""What a program computes from no input at all, computed once: masks, positions, windows, tables of indices.

coremltools converts such operators one by one, and lacks many of them or some of their forms. What comes out is a constant
either way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.export.graph_signature import InputKind

from edgekit.converters.rewrites.rewrite import Rewrite

if TYPE_CHECKING:
    from edgekit.converters.program_edit import ProgramEdit

__all__ = ["REWRITES"]

_LARGEST = 1 << 22
"""Numbers in one constant: larger ones make the file grow by more than an operator or two that compute them."""
_LARGEST_STEP = 1 << 25
"""The same for what lies between, and is not kept."""
_SHAPED = ("new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like")
"""What these make depends on the shape of their argument only."""
_RANDOM = ("rand", "dropout", "bernoulli", "multinomial", "normal")


def _compute(edit: ProgramEdit) -> int:
    """Replace what depends on no input and no weight by constants; returns how many there are.

    A program that writes into tensors waits until it is functional: what is written to is no constant.
    """
    if any(_writes(node) for node in edit.graph.nodes):
        return 0
    known: dict[torch.fx.Node, Any] = dict(edit.constants(InputKind.CONSTANT_TENSOR))
    given = set(known)
    for node in edit.graph.nodes:
        if _is_shaped(node):
            value = node.meta["val"]
            known[node] = node.target(torch.empty(tuple(value.shape), dtype=value.dtype), *node.args[1:], **node.kwargs)
        elif _is_computable(node, known):
            values = torch.fx.node.map_arg((node.args, node.kwargs), lambda source: known[source])
            known[node] = node.target(*values[0], **values[1])
    count = 0
    for node in reversed([node for node in known if node not in given]):
        if all(user in known for user in node.users):
            continue
        if known[node].is_complex() or known[node].numel() > _LARGEST:
            del known[node]  # stays as it is, and what it reads is needed
            continue
        node.replace_all_uses_with(edit.constant(known[node].contiguous(), name=node.name))
        count += 1
    return count


def _writes(node: torch.fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and bool(node.target._schema.is_mutable)


def _is_shaped(node: torch.fx.Node) -> bool:
    value = node.meta.get("val")
    if not isinstance(node.target, torch._ops.OpOverload) or node.target._opname not in _SHAPED or len(node.all_input_nodes) != 1:
        return False
    return isinstance(value, torch.Tensor) and all(isinstance(size, int) for size in value.shape) and value.numel() <= _LARGEST


def _is_computable(node: torch.fx.Node, known: dict[torch.fx.Node, Any]) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace != "aten":
        return False
    if any(word in str(node.target) for word in _RANDOM) or not all(source in known for source in node.all_input_nodes):
        return False
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.numel() <= _LARGEST_STEP


def _alike(values: torch.Tensor, *fill: float, dtype: torch.dtype, **_: Any) -> torch.Tensor:
    """A tensor of one number, shaped like ``values``."""
    number = fill[0] if fill else 0.0
    return torch.full_like(values.to(dtype), number)


def _ones(values: torch.Tensor, *, dtype: torch.dtype, **_: Any) -> torch.Tensor:
    return torch.full_like(values.to(dtype), 1.0)


def _changes_type(node: torch.fx.Node) -> bool:
    source: Any = node.args[0]
    wanted = node.kwargs.get("dtype")
    return wanted is not None and source.meta["val"].dtype != wanted


REWRITES = (
    Rewrite(
        name="filled-in-its-own-type",
        targets=("coreml",),
        because="coremltools 9 ignores the dtype of zeros_like and full_like where sizes are open: -inf becomes a boolean",
        operators=("aten.zeros_like.default", "aten.full_like.default"),
        build=_alike,
        applies=_changes_type,
    ),
    Rewrite(
        name="ones-in-their-own-type",
        targets=("coreml",),
        because="coremltools 9 ignores the dtype of ones_like where sizes are open",
        operators=("aten.ones_like.default",),
        build=_ones,
        applies=_changes_type,
    ),
    Rewrite(
        name="constants-computed",
        targets=("coreml",),
        because="coremltools 9 lacks many operators and forms that make constants (tril_indices, hann_window, new_zeros)",
        edit=_compute,
    ),
)
