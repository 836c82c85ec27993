"""Pads around a tensor."""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812

from edgekit.converters.sources.onnx.call import Call
from edgekit.converters.sources.onnx.operators.table import operator

__all__: list[str] = []


@operator("Pad", grows=True)
def pad(call: Call) -> torch.Tensor:
    """By a number, by the edge, by a reflection or around; negative pads cut."""
    rank, mode = len(call.shape(0)), call.attribute("mode", "constant")
    pads = call.sizes("pads") or call.sizes("paddings") if call.version < 11 else call.ints(1)
    axes = [axis % rank for axis in call.ints(3)] if call.has(3) else list(range(rank))
    pairs = {axis: (pads[at], pads[at + len(axes)]) for at, axis in enumerate(axes) if (pads[at], pads[at + len(axes)]) != (0, 0)}
    values = call.tensor(0)
    if not pairs:
        return values
    if mode == "constant":
        return _by_number(call, values, pairs)
    if mode in {"reflect", "edge"} and values.dtype.is_floating_point and rank in {3, 4} and _fits(call.shape(0), pairs):
        order = [length for axis in range(rank - 1, 1, -1) for length in pairs.get(axis, (0, 0))]
        return F.pad(values, order, mode="reflect" if mode == "reflect" else "replicate")
    for axis, (before, after) in pairs.items():
        length = call.shape(0)[axis]
        where = [_source(position, length, mode) for position in range(-before, length + after)]
        values = values.index_select(axis, call.computed(f"axis_{axis}", lambda where=where: torch.tensor(where)))  # type: ignore[misc]
    return values


def _by_number(call: Call, values: torch.Tensor, pairs: dict[int, tuple[int, int]]) -> torch.Tensor:
    number = call.attribute("value", 0.0) if call.version < 11 else call.scalar(2, 0.0)
    first = min(pairs)
    order = [length for axis in range(len(call.shape(0)) - 1, first - 1, -1) for length in pairs.get(axis, (0, 0))]
    if values.dtype == torch.bool:
        return F.pad(values.to(torch.uint8), order, value=int(number)).to(torch.bool)
    return F.pad(values, order, value=number)


def _fits(sizes: tuple[int, ...], pairs: dict[int, tuple[int, int]]) -> bool:
    """Whether torch's own pads do: of the last axes, not negative, and smaller than what they mirror."""
    return all(axis >= 2 and 0 <= before < sizes[axis] and 0 <= after < sizes[axis] for axis, (before, after) in pairs.items())


def _source(position: int, length: int, mode: str) -> int:
    """Which element stands at a position outside."""
    if mode == "edge":
        return min(max(position, 0), length - 1)
    if mode == "wrap":
        return position % length
    period = max(1, 2 * (length - 1))
    inside = position % period
    return inside if inside < length else period - inside


@operator("CenterCropPad")
def center_crop_pad(call: Call) -> torch.Tensor:
    """Cut or padded with zeros to a size, the middle kept."""
    rank, wanted = len(call.shape(0)), call.ints(1)
    axes = call.attribute("axes", tuple(range(rank)))
    values = call.tensor(0)
    for axis, size in zip((axis % rank for axis in axes), wanted, strict=True):
        length = int(values.shape[axis])
        if size < length:
            values = values.narrow(axis, (length - size) // 2, size)
        elif size > length:
            before = (size - length) // 2
            values = F.pad(values, [0, 0] * (rank - 1 - axis) + [before, size - length - before])
    return values
