"""Attention over several heads. The other forms are spelled out by the bodies ONNX defines them with."""

from __future__ import annotations

import math

import torch

from edgekit.converters.sources.onnx.call import Call
from edgekit.converters.sources.onnx.operators.table import MICROSOFT, operator

__all__: list[str] = []


@operator("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(call: Call) -> torch.Tensor:
    """Queries, keys and values ``[N, L, heads D]``, with a bias for all three and an addend to the scores.

    Raises:
        UnsupportedOpError: They are packed, or there is a cache or a mask of keys.
    """
    if not call.has(1) or not call.has(2) or any(call.has(index) for index in (4, 6, 7)) or len(call.shape(1)) != 3:
        raise call.unsupported(
            "has packed inputs, a cache or a mask of keys", "Export the model without ONNX Runtime's own fusions."
        )
    heads = call.attribute("num_heads", 1)
    parts = [call.tensor(index) for index in range(3)]
    if call.has(3):
        widths = [int(part.shape[-1]) for part in parts]
        parts = [part + bias for part, bias in zip(parts, torch.split(call.weight(3, "bias"), widths), strict=True)]
    query, key, value = (part.reshape(*part.shape[:2], heads, int(part.shape[-1]) // heads).transpose(1, 2) for part in parts)
    scale = call.attribute("scale", 0.0) or 1 / math.sqrt(int(query.shape[-1]))
    scores = torch.matmul(query * scale, key.transpose(-1, -2))
    scores = scores + call.tensor(5) if call.has(5) else scores
    return torch.matmul(torch.softmax(scores, -1), value).transpose(1, 2).flatten(2)
