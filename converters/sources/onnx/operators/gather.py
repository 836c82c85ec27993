"""Elements read by position."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F  # noqa: N812

from edgekit.converters.sources.onnx.call import Call
from edgekit.converters.sources.onnx.operators.table import operator

__all__: list[str] = []


def positions(call: Call, index: int, length: int) -> torch.Tensor:
    """Indices that count from the end made ordinary, as int64."""
    known = call.known(index)
    if known is not None:
        return call.computed(f"positions_{index}", lambda: torch.where(known < 0, known + length, known).to(torch.int64))
    found = call.tensor(index).to(torch.int64)
    return torch.where(found < 0, found + length, found)


@operator("Gather")
def gather(call: Call) -> torch.Tensor:
    """Slices by position along an axis; a table of rows is an embedding."""
    sizes, axis = call.shape(0), call.attribute("axis", 0)
    axis = axis % len(sizes)
    known = call.known(1)
    if known is not None and known.dim() == 0:
        at = int(call.scalar(1, 0))
        return call.tensor(0).select(axis, at % sizes[axis])
    if known is not None and known.dim() == 1 and not call.is_fake(0):
        return call.tensor(0).index_select(axis, positions(call, 1, sizes[axis]))
    if call.known(0) is not None and len(sizes) == 2 and axis == 0 and call.dtype(0).is_floating_point and known is None:
        return F.embedding(call.tensor(1).to(torch.int64), call.weight(0))  # rows of a table are not counted from its end
    if known is not None and known.dim() == 1 and known.numel():
        part = [number % sizes[axis] for number in call.ints(1)]
        if part == list(range(part[0], part[0] + len(part))):
            return call.tensor(0).narrow(axis, part[0], len(part))
    found = positions(call, 1, sizes[axis])
    values = call.tensor(0)
    if found.dim() == 1:
        return values.index_select(axis, found)
    return values.index_select(axis, found.reshape(-1)).reshape((*sizes[:axis], *call.shape(1), *sizes[axis + 1 :]))


@operator("GatherElements")
def gather_elements(call: Call) -> torch.Tensor:
    """One element for each position."""
    axis = call.attribute("axis", 0) % len(call.shape(0))
    return torch.gather(call.tensor(0), axis, positions(call, 1, call.shape(0)[axis]))


@operator("GatherND")
def gather_nd(call: Call) -> torch.Tensor:
    """Slices by positions along several axes, with batch axes before them."""
    sizes, shape, batch = call.shape(0), call.shape(1), call.attribute("batch_dims", 0)
    depth = shape[-1]
    indexed = sizes[batch : batch + depth]
    flat = flat_positions(call, 1, indexed)
    groups, rest = math.prod(sizes[:batch]), sizes[batch + depth :]
    values = call.tensor(0).reshape(groups * math.prod(indexed), *rest)
    flat = flat.reshape(groups, -1)
    if groups > 1:
        flat = flat + call.computed("groups", lambda: torch.arange(groups)[:, None] * math.prod(indexed))
    return values.index_select(0, flat.reshape(-1)).reshape((*shape[:-1], *rest))


def flat_positions(call: Call, index: int, sizes: tuple[int, ...]) -> torch.Tensor:
    """Positions along several axes ``[…, K]`` as positions in the flattened axes ``[…]``."""
    limits = call.computed(f"limits_{index}", lambda: torch.tensor(sizes, dtype=torch.int64))
    strides = call.computed(
        f"strides_{index}", lambda: torch.tensor([math.prod(sizes[at + 1 :]) for at in range(len(sizes))], dtype=torch.int64)
    )
    found = call.tensor(index).to(torch.int64)
    return (torch.where(found < 0, found + limits, found) * strides).sum(-1)


@operator("Compress")
def compress(call: Call) -> torch.Tensor:
    """Elements (or slices) whose condition is true; the condition must be constant."""
    kept = [at for at, taken in enumerate(call.numbers(1)) if taken]
    where = call.computed("kept", lambda: torch.tensor(kept, dtype=torch.int64))
    axis = call.attribute_or_none("axis")
    values = call.tensor(0)
    return values.reshape(-1).index_select(0, where) if axis is None else values.index_select(axis, where)


@operator("NonZero")
def nonzero(call: Call) -> torch.Tensor:
    """Positions of what is not zero, which must be constant."""
    return torch.nonzero(call.constant(0)).t().contiguous()


@operator("ReverseSequence")
def reverse_sequence(call: Call) -> torch.Tensor:
    """Each row of a batch reversed up to its length."""
    time, batch = call.attribute("time_axis", 0), call.attribute("batch_axis", 1)
    steps, rows = call.shape(0)[time], call.shape(0)[batch]
    values = call.tensor(0).movedim((time, batch), (0, 1))
    lengths = call.tensor(1).to(torch.int64).reshape(1, rows)
    step = call.computed("steps", lambda: torch.arange(steps)[:, None])
    where = torch.where(step < lengths, lengths - 1 - step, step)
    where = where.reshape(steps, rows, *[1] * (values.dim() - 2)).expand(values.shape)
    return torch.gather(values, 0, where).movedim((0, 1), (time, batch))
