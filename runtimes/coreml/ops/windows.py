"""Blocks, windows and sequences: space into the batch and back, sliding windows, sequences of different lengths reversed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edgekit.core.errors import IntegrityError
from edgekit.runtimes.coreml.ops.table import Call, Kernel, register

__all__: list[str] = []


def _block(call: Call, cuts: str) -> tuple[int, int, tuple[int, ...]]:
    """Height and width of the blocks, and (before, after) of both axes in one row."""
    sizes, rows = call.integers("block_shape"), call.array(cuts)
    if len(sizes) != 2 or rows.shape != (2, 2) or min(sizes) < 1:  # height and width
        raise IntegrityError(f"{call}: block_shape {sizes} and {cuts} {list(rows.shape)}; expected two sizes and [2, 2].")
    return sizes[0], sizes[1], tuple(int(number) for number in rows.reshape(-1))


@register("space_to_batch")
def space_to_batch(call: Call) -> Kernel:
    """``[N, C, H, W]`` to ``[b0 b1 N, C, H / b0, W / b1]`` after padding; the batch is the faster part of the new one."""
    high, wide, (top, bottom, left, right) = _block(call, "paddings")

    def run(x: Tensor) -> Tensor:
        padded = functional.pad(x, (left, right, top, bottom))
        n, c, h, w = padded.shape
        parts = padded.reshape(n, c, h // high, high, w // wide, wide).permute(3, 5, 0, 1, 2, 4)
        return parts.reshape(high * wide * n, c, h // high, w // wide)

    return Kernel(run, "x")


@register("batch_to_space")
def batch_to_space(call: Call) -> Kernel:
    """The inverse of ``space_to_batch``, cut at the edges afterwards."""
    high, wide, (top, bottom, left, right) = _block(call, "crops")

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        parts = x.reshape(high, wide, n // (high * wide), c, h, w).permute(2, 3, 4, 0, 5, 1)
        whole = parts.reshape(n // (high * wide), c, h * high, w * wide)
        return whole[..., top : h * high - bottom, left : w * wide - right]

    return Kernel(run, "x")


@register("sliding_windows")
def sliding_windows(call: Call) -> Kernel:
    """Every window of ``size`` along ``axis``, ``stride`` apart: a new axis of that size behind it."""
    axis, size, stride = call.integer("axis"), call.integer("size"), call.integer("stride", 1)

    def run(x: Tensor) -> Tensor:
        place = axis % x.dim()
        return x.unfold(place, size, stride).movedim(-1, place + 1)

    return Kernel(run, "x")


@register("reverse_sequence")
def reverse_sequence(call: Call) -> Kernel:
    """The first ``lengths[i]`` values along ``seq_axis`` reversed, for each position ``i`` of ``batch_axis``."""
    sequence, batch = call.integer("seq_axis", 0), call.integer("batch_axis", 0)

    def run(x: Tensor, lengths: Tensor) -> Tensor:
        along, over = sequence % x.dim(), batch % x.dim()
        steps = torch.arange(x.shape[along])
        limits = lengths.long()[:, None]
        where = torch.where(steps < limits, limits - 1 - steps, steps)  # [batch, sequence]
        shape = [1] * x.dim()
        shape[over], shape[along] = where.shape
        ordered = where if over < along else where.t()
        return torch.gather(x, along, ordered.reshape(shape).expand(x.shape))

    return Kernel(run, "x", "lengths")
