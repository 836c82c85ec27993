"""Tensors made from sizes and counters, and running sums."""

from __future__ import annotations

import torch
from torch import Tensor

from edgekit.runtimes.coreml.ops.elementwise import torch_dtype
from edgekit.runtimes.coreml.ops.table import Call, Kernel, register

__all__: list[str] = []


@register("shape")
def shape(call: Call) -> Kernel:  # noqa: ARG001
    """Sizes of a tensor, as an int32 vector."""
    return Kernel(lambda x: torch.tensor(x.shape, dtype=torch.int32), "x")


@register("fill")
def fill(call: Call) -> Kernel:
    """A tensor of ``shape`` filled with ``value``."""
    value, dtype = call.number("value", 0.0), torch_dtype(call.outputs[0].dtype)
    return Kernel(lambda shape: torch.full(shape.tolist(), value, dtype=dtype), "shape")


@register("fill_like")
def fill_like(call: Call) -> Kernel:
    """A tensor shaped like another, filled with ``value``."""
    value, dtype = call.number("value", 0.0), torch_dtype(call.outputs[0].dtype)
    return Kernel(lambda reference: torch.full_like(reference, value, dtype=dtype), "ref_tensor")


@register("range_1d")
def range_1d(call: Call) -> Kernel:
    """``start``, ``start + step`` ... up to but without ``end``."""
    dtype = torch_dtype(call.outputs[0].dtype)

    def run(start: Tensor, end: Tensor, step: Tensor) -> Tensor:
        return torch.arange(start.item(), end.item(), step.item(), dtype=dtype)

    return Kernel(run, "start", "end", "step")


@register("one_hot")
def one_hot(call: Call) -> Kernel:
    """``on_value`` at each index along a new axis, ``off_value`` elsewhere (also for an index out of range)."""
    on, off, axis = call.number("on_value", 1.0), call.number("off_value", 0.0), call.integer("axis", -1)
    dtype = torch_dtype(call.outputs[0].dtype)
    positions = torch.arange(call.integer("one_hot_vector_size"))

    def run(indices: Tensor) -> Tensor:
        hit = indices.unsqueeze(-1) == positions
        return torch.where(hit, on, off).to(dtype).movedim(-1, axis)

    return Kernel(run, "indices")


@register("cumsum")
def cumsum(call: Call) -> Kernel:
    """Running sum along ``axis``; without the value itself if ``exclusive``, from the end if ``reverse``."""
    axis, exclusive, backwards = call.integer("axis", 0), call.flag("exclusive"), call.flag("reverse")

    def run(x: Tensor) -> Tensor:
        ordered = torch.flip(x, (axis,)) if backwards else x
        total = torch.cumsum(ordered, axis, dtype=x.dtype)
        total = total - ordered if exclusive else total
        return torch.flip(total, (axis,)) if backwards else total

    return Kernel(run, "x")
