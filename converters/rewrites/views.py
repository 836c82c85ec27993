"""Memory order, where a target has values only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edgekit.converters.rewrites.rewrite import Rewrite

if TYPE_CHECKING:
    from edgekit.converters.program_edit import ProgramEdit

__all__ = ["REWRITES"]


def _order_attention(edit: ProgramEdit) -> int:
    """A copy in the plain order after attention with a mask, so that what reads it does not depend on the kernel's own order."""
    count = 0
    for node in edit.find("aten.scaled_dot_product_attention.default"):
        mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
        if mask is None:
            continue
        with edit.graph.inserting_after(node):
            copied = edit.graph.call_function(torch.ops.aten.clone.default, (node,), {"memory_format": torch.contiguous_format})
        copied.meta = {**node.meta, "val": node.meta["val"].contiguous()}
        readers = {user for user in node.users if user is not copied}
        node.replace_all_uses_with(copied, delete_user_cb=readers.__contains__)
        count += 1
    return count


REWRITES = (
    Rewrite(
        name="attention-in-plain-order",
        targets=("onnx",),
        because=(
            "torch.onnx (torch 2.13) decomposes masked attention to values in another memory order than its kernel's, which the"
            " reshape after it then refuses"
        ),
        edit=_order_attention,
    ),
)
