"""Shapes: what they are, and the same numbers in another one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from edgekit.converters.sources.onnx.call import Call
from edgekit.converters.sources.onnx.operators.table import operator

__all__: list[str] = []


@operator("Shape")
def shape(call: Call) -> torch.Tensor:
    """Sizes, or some of them."""
    sizes = call.shape(0)
    return torch.tensor(sizes[slice(call.attribute("start", 0), call.attribute_or_none("end"))], dtype=torch.int64)


@operator("Size")
def size(call: Call) -> torch.Tensor:
    """Number of elements."""
    return torch.tensor(math.prod(call.shape(0)))


@operator("Reshape")
def reshape(call: Call) -> torch.Tensor:
    """Another shape; 0 keeps a size, -1 is what is left."""
    wanted = call.listed("shape", 1) or ()
    found = call.shape(0)
    if not call.attribute("allowzero", 0):
        wanted = tuple(found[at] if length == 0 else length for at, length in enumerate(wanted))
    return _reshaped(call, wanted)


def _reshaped(call: Call, wanted: Sequence[int]) -> torch.Tensor:
    values = call.tensor(0)
    return values if tuple(wanted) == call.shape(0) else values.reshape(tuple(wanted))


@operator("Flatten")
def flatten(call: Call) -> torch.Tensor:
    """Two axes: those before ``axis``, and the others."""
    sizes, axis = call.shape(0), call.attribute("axis", 1)
    axis = axis + len(sizes) if axis < 0 else axis
    if axis == 1 and len(sizes) > 2:
        return torch.flatten(call.tensor(0), 1)
    return _reshaped(call, (math.prod(sizes[:axis]), math.prod(sizes[axis:])))


@operator("Squeeze")
def squeeze(call: Call) -> torch.Tensor:
    """Without axes of size 1."""
    sizes, axes = call.shape(0), call.listed("axes", 1)
    rank = len(sizes)
    dropped = {at for at in range(rank) if sizes[at] == 1} if axes is None else {axis % rank for axis in axes}
    wrong = [axis for axis in dropped if sizes[axis] != 1]
    if wrong:
        raise call.unsupported(f"drops axis {wrong[0]} of shape {list(sizes)}, which is not of size 1", "Export the model again.")
    return call.tensor(0).squeeze(tuple(sorted(dropped))) if dropped else call.tensor(0)


@operator("Unsqueeze")
def unsqueeze(call: Call) -> torch.Tensor:
    """With axes of size 1 put in; their positions are those of the result."""
    axes = call.listed("axes", 1) or ()
    values = call.tensor(0)
    rank = len(call.shape(0)) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        values = values.unsqueeze(axis)
    return values


@operator("Transpose")
def transpose(call: Call) -> torch.Tensor:
    """Axes in another order; reversed where none is given."""
    rank = len(call.shape(0))
    order = call.attribute("perm", tuple(reversed(range(rank))))
    return call.tensor(0) if order == tuple(range(rank)) else call.tensor(0).permute(order)


@operator("Expand", grows=True)
def expand(call: Call) -> torch.Tensor:
    """Broadcast to a shape, which may be smaller in places."""
    found, wanted = call.shape(0), call.ints(1)
    sizes = _broadcast(found, wanted)
    return call.tensor(0) if sizes == found else call.tensor(0).expand(sizes)


def _broadcast(first: Sequence[int], second: Sequence[int]) -> tuple[int, ...]:
    """The shape that two are broadcast to; the later call says where they do not fit."""
    rank = max(len(first), len(second))
    pairs = zip((*[1] * (rank - len(first)), *first), (*[1] * (rank - len(second)), *second), strict=True)
    return tuple(b if a == 1 else a for a, b in pairs)


@operator("Tile", grows=True)
def tile(call: Call) -> torch.Tensor:
    """Repeated along each axis."""
    if call.version < 6:
        repeats = [1] * len(call.shape(0))
        repeats[call.scalar(2, 0)] = int(call.scalar(1, 1))
        return call.tensor(0).repeat(repeats)
    return call.tensor(0).repeat(call.ints(1))


@operator("Concat")
def concat(call: Call) -> torch.Tensor:
    """Side by side along an axis; parts without elements count for nothing."""
    axis = call.attribute("axis", 1 if call.version < 4 else 0)
    parts = [index for index in range(call.input_count) if 0 not in call.shape(index)] or [0]
    return call.tensor(parts[0]) if len(parts) == 1 else torch.cat([call.tensor(index) for index in parts], axis)


@operator("ConcatFromSequence")
def concat_from_sequence(call: Call) -> torch.Tensor:
    """Side by side along an axis, or along a new one."""
    parts = [call.tensor(index) for index in range(call.input_count)]
    axis = call.attribute("axis", 0)
    return torch.stack(parts, axis) if call.attribute("new_axis", 0) else torch.cat(parts, axis)


@operator("Split")
def split(call: Call) -> tuple[torch.Tensor, ...]:
    """Parts along an axis: of given sizes, or of equal ones, the last one smaller."""
    axis, sizes = call.attribute("axis", 0), call.listed("split", 1)
    length = call.shape(0)[axis]
    if sizes is None:
        count = call.output_count
        whole = -(-length // count)
        sizes = tuple(max(0, min(whole, length - at * whole)) for at in range(count))
    return tuple(torch.split(call.tensor(0), list(sizes), axis))


@operator("Slice")
def cut(call: Call) -> torch.Tensor:
    """A part along some axes; steps may be negative."""
    values, sizes = call.tensor(0), call.shape(0)
    if call.version < 10:
        starts, ends = call.sizes("starts"), call.sizes("ends")
        axes, steps = call.sizes("axes", tuple(range(len(starts)))), (1,) * len(starts)
    else:
        starts, ends = call.ints(1), call.ints(2)
        axes = call.ints(3) if call.has(3) else tuple(range(len(starts)))
        steps = call.ints(4) if call.has(4) else (1,) * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        values = _along(values, axis % len(sizes), range(*slice(start, end, step).indices(sizes[axis])))
    return values


def _along(values: torch.Tensor, axis: int, part: range) -> torch.Tensor:
    length = int(values.shape[axis])
    if part == range(length):
        return values
    if part.step > 0:
        index = (slice(None),) * axis + (slice(part.start, part.stop, part.step),)
        return values[index]
    backwards = values.flip(axis)  # torch has no negative steps
    index = (slice(None),) * axis + (slice(length - 1 - part.start, length - 1 - part.stop, -part.step),)
    return backwards[index]


@operator("DepthToSpace")
def depth_to_space(call: Call) -> torch.Tensor:
    """Channels become pixels: ``[N, C, H, W]`` -> ``[N, C / b^2, H b, W b]``."""
    values, block = call.tensor(0), call.attribute("blocksize", 1)
    if call.attribute("mode", "DCR") == "CRD":
        return torch.pixel_shuffle(values, block)
    batch, channels, height, width = call.shape(0)
    parts = values.reshape(batch, block, block, channels // block**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(batch, channels // block**2, height * block, width * block)


@operator("SpaceToDepth")
def space_to_depth(call: Call) -> torch.Tensor:
    """Pixels become channels: ``[N, C, H, W]`` -> ``[N, C b^2, H / b, W / b]``."""
    values, block = call.tensor(0), call.attribute("blocksize", 1)
    if call.attribute("mode", "DCR") == "CRD":
        return torch.pixel_unshuffle(values, block)
    batch, channels, height, width = call.shape(0)
    parts = values.reshape(batch, channels, height // block, block, width // block, block).permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(batch, channels * block**2, height // block, width // block)
