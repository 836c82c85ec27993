"""Order."""

from __future__ import annotations

import torch

from edgekit.converters.sources.onnx.call import Call
from edgekit.converters.sources.onnx.operators.table import operator

__all__: list[str] = []


@operator("TopK")
def top_k(call: Call) -> tuple[torch.Tensor, ...]:
    """The k largest or smallest, and where they stand."""
    count = call.attribute("k", 0) if call.version < 10 else int(call.scalar(1, 0))
    axis, largest = call.attribute("axis", -1), bool(call.attribute("largest", 1))
    values = call.tensor(0)
    if not call.is_fake(0):  # of equals the first ones, as ONNX has it and torch does not promise
        ordered, where = torch.sort(values, dim=axis, descending=largest, stable=True)
        return ordered.narrow(axis, 0, count), where.narrow(axis, 0, count)
    found = torch.topk(values, count, axis, largest, True)
    return found.values, found.indices


@operator("Unique")
def unique(call: Call) -> tuple[torch.Tensor, ...]:
    """Each value once; of constants only, since the count is not known before.

    Raises:
        UnsupportedOpError: The values are computed.
    """
    values, axis = call.constant(0), call.attribute_or_none("axis")
    kept, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True, dim=axis)
    inverse = inverse.reshape(-1)
    first = torch.full((counts.numel(),), inverse.numel(), dtype=torch.int64)
    first = first.scatter_reduce(0, inverse, torch.arange(inverse.numel()), "amin")
    if not call.attribute("sorted", 1):
        order = torch.argsort(first)
        kept = kept[order] if axis is None else kept.index_select(axis, order)
        first, counts, inverse = first[order], counts[order], torch.argsort(order)[inverse]
    return kept, first, inverse, counts
