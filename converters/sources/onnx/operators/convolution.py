"""Convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812

from edgekit.converters.sources.onnx.call import Call
from edgekit.converters.sources.onnx.operators.table import operator
from edgekit.converters.sources.onnx.operators.windows import Windows, pad_space, windows_of

__all__ = ["convolve"]

_CONVOLUTIONS: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@operator("Conv")
def convolution(call: Call) -> torch.Tensor:
    """Convolution over one to three axes: ``[N, C, …]`` by ``[O, C / groups, …]``."""
    bias = call.weight(2, "bias") if call.has(2) else None
    return convolve(call, call.tensor(0), call.weight(1), bias)


def convolve(call: Call, values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Convolution with the node's attributes.

    Raises:
        UnsupportedOpError: It is over more than three axes.
    """
    sizes, kernel = [int(size) for size in values.shape[2:]], [int(size) for size in weight.shape[2:]]
    if len(sizes) not in _CONVOLUTIONS:
        raise call.unsupported(f"slides over {len(sizes)} axes; torch has it for 1 to 3", "Write it as several of fewer axes.")
    windows = windows_of(call, sizes, kernel)
    pads = windows.before
    if not windows.symmetric:
        values, pads = pad_space(values, windows.before, windows.after), (0,) * len(sizes)
    apply = _CONVOLUTIONS[len(sizes)]
    result: torch.Tensor = apply(values, weight, bias, windows.strides, pads, windows.dilations, call.attribute("group", 1))
    return result


@operator("ConvTranspose")
def transposed_convolution(call: Call) -> torch.Tensor:
    """Transposed convolution: ``[N, C, …]`` by ``[C, O / groups, …]``; pads cut the result.

    Raises:
        UnsupportedOpError: It is over more than three axes.
    """
    values, weight = call.tensor(0), call.weight(1)
    bias = call.weight(2, "bias") if call.has(2) else None
    sizes, kernel = call.shape(0)[2:], call.shape(1)[2:]
    if len(sizes) not in _TRANSPOSED:
        raise call.unsupported(f"slides over {len(sizes)} axes; torch has it for 1 to 3", "Write it as several of fewer axes.")
    form = _transposed_form(call, sizes, kernel)
    apply, groups = _TRANSPOSED[len(sizes)], call.attribute("group", 1)
    fits = all(extra < max(step, tap) for extra, step, tap in zip(form.overhang, form.strides, form.dilations, strict=True))
    if form.before == form.after and fits and min(form.before) >= 0:
        result: torch.Tensor = apply(values, weight, bias, form.strides, form.before, form.overhang, groups, form.dilations)
        return result
    none = (0,) * len(sizes)
    whole: torch.Tensor = apply(values, weight, None, form.strides, none, none, groups, form.dilations)
    after = tuple(extra - pad for extra, pad in zip(form.overhang, form.after, strict=True))
    whole = pad_space(whole, tuple(-pad for pad in form.before), after)
    return whole if bias is None else whole + bias.reshape(-1, *[1] * len(sizes))


def _transposed_form(call: Call, sizes: Sequence[int], kernel: Sequence[int]) -> Windows:
    """Pads and output padding, from any of the ways to give them."""
    rank = len(sizes)
    strides = call.sizes("strides", (1,) * rank)
    dilations = call.sizes("dilations", (1,) * rank)
    extra = call.sizes("output_padding", (0,) * rank)
    wanted, automatic = call.sizes("output_shape"), call.attribute("auto_pad", "NOTSET")
    pads = call.sizes("pads", (0,) * (2 * rank))
    before, after = list(pads[:rank]), list(pads[rank:])
    spans = [(length - 1) * step + 1 for length, step in zip(kernel, dilations, strict=True)]
    if wanted or automatic in {"SAME_UPPER", "SAME_LOWER"}:
        wanted = wanted[-rank:] or tuple(size * stride for size, stride in zip(sizes, strides, strict=True))
        for at in range(rank):
            total = strides[at] * (sizes[at] - 1) + extra[at] + spans[at] - wanted[at]
            small = total // 2
            before[at], after[at] = (small, total - small) if automatic == "SAME_UPPER" else (total - small, small)
    return Windows(tuple(kernel), tuple(strides), tuple(dilations), tuple(before), tuple(after), tuple(wanted), tuple(extra))


@operator("Col2Im")
def column_to_image(call: Call) -> torch.Tensor:
    """Blocks put back where they came from, overlaps added: ``[N, C prod(block), L]`` -> ``[N, C, …]``.

    Raises:
        UnsupportedOpError: The picture has not two axes of space.
    """
    image, block = call.ints(1), call.ints(2)
    if len(image) != 2:
        raise call.unsupported(f"makes pictures of {len(image)} axes; torch has it for 2", "Write it otherwise.")
    pads = call.attribute("pads", (0, 0, 0, 0))
    whole = (image[0] + pads[0] + pads[2], image[1] + pads[1] + pads[3])
    steps, taps = call.attribute("strides", (1, 1)), call.attribute("dilations", (1, 1))
    made = F.fold(call.tensor(0), whole, block, dilation=taps, stride=steps)
    return made[:, :, pads[0] : pads[0] + image[0], pads[1] : pads[1] + image[1]]
