"""How a kernel slides over an input: pads, strides, dilations, and how many windows there are."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch.nn import functional as F  # noqa: N812

from edgekit.converters.sources.onnx.call import Call

__all__ = ["Windows", "pad_space", "windows_of"]


@dataclasses.dataclass(frozen=True)
class Windows:
    """A kernel over ``D`` axes of space.

    Args:
        kernel: Sizes.
        strides: Steps.
        dilations: Distances between taps.
        before: Pads at the start of each axis.
        after: Pads at the end of each axis, as the file has them.
        counts: Windows along each axis.
        overhang: What is read past ``after``, where the count is rounded up.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    counts: tuple[int, ...]
    overhang: tuple[int, ...]

    @property
    def symmetric(self) -> bool:
        """Whether both ends have the same pads and nothing hangs over: torch's own form."""
        return self.before == self.after and not any(self.overhang)

    @property
    def reach(self) -> tuple[int, ...]:
        """Pads at the end that cover every window."""
        return tuple(after + over for after, over in zip(self.after, self.overhang, strict=True))


def windows_of(call: Call, sizes: Sequence[int], kernel: Sequence[int]) -> Windows:
    """The windows of a convolution or pooling node.

    Args:
        call: The node.
        sizes: Sizes of the axes of space.
        kernel: Sizes of the kernel.
    """
    rank = len(sizes)
    strides = call.sizes("strides", (1,) * rank)
    dilations = call.sizes("dilations", (1,) * rank)
    spans = [(length - 1) * step + 1 for length, step in zip(kernel, dilations, strict=True)]
    before, after = _pads(call, sizes, spans, strides)
    up = bool(call.attribute("ceil_mode", 0))
    counts, overhang = [], []
    for at, (size, span, stride) in enumerate(zip(sizes, spans, strides, strict=True)):
        free = size + before[at] + after[at] - span
        count = (math.ceil if up else math.floor)(free / stride) + 1
        if up and (count - 1) * stride >= size + before[at]:
            count -= 1  # a window that would start in the pads at the end is none
        counts.append(count)
        overhang.append(max(0, (count - 1) * stride - free))
    return Windows(tuple(kernel), tuple(strides), tuple(dilations), before, after, tuple(counts), tuple(overhang))


def _pads(
    call: Call, sizes: Sequence[int], spans: Sequence[int], strides: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rank, automatic = len(sizes), call.attribute("auto_pad", "NOTSET")
    if automatic == "NOTSET":
        pads = call.sizes("pads", (0,) * (2 * rank))
        return tuple(pads[:rank]), tuple(pads[rank:])
    if automatic == "VALID":
        return (0,) * rank, (0,) * rank
    totals = [
        max(0, (-(-size // stride) - 1) * stride + span - size) for size, span, stride in zip(sizes, spans, strides, strict=True)
    ]
    small, large = tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)
    return (small, large) if automatic == "SAME_UPPER" else (large, small)


def pad_space(values: torch.Tensor, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> torch.Tensor:
    """Pads around the last axes; nothing where all are zero."""
    if not any(before) and not any(after):
        return values
    pads = [pad for pair in zip(reversed(list(before)), reversed(list(after)), strict=True) for pad in pair]
    return F.pad(values, pads, value=value)
