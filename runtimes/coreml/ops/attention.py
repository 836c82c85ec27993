"""Attention as one operation (iOS 18)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from edgekit.runtimes.coreml.ops.table import Call, Kernel, register

__all__: list[str] = []


@register("scaled_dot_product_attention")
def scaled_dot_product_attention(call: Call) -> Kernel:  # noqa: ARG001
    """``softmax(query key.T / sqrt(E) + mask) value``; a boolean mask says what takes part."""

    def run(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)

    return Kernel(run, "query", "key", "value", "attn_mask")
