"""Resizing and cropping of the last two axes.

Where an output position samples the input, for an axis of ``size_in`` resized to ``size_out``:

======================== =======================================================================
sampling mode            position of output ``i``, limited to ``[0, size_in - 1]``
======================== =======================================================================
``STRICT_ALIGN_CORNERS`` ``i * (size_in - 1) / (size_out - 1)``
``ALIGN_CORNERS``        the same; the middle of the input where ``size_out`` is 1
``DEFAULT``              ``i * (size_in - size_in / size_out) / (size_out - 1)``
``OFFSET_CORNERS``       ``(i + 0.5) * max(1, size_in - 1) / size_out``
``UNALIGN_CORNERS``      ``(i + 0.5) * size_in / size_out - 0.5``
======================== =======================================================================
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgekit.core.errors import IntegrityError, UnsupportedOpError
from edgekit.runtimes.coreml.ops.elementwise import torch_dtype
from edgekit.runtimes.coreml.ops.table import Call, Kernel, register

__all__ = ["positions"]


def positions(size_in: int, size_out: int, mode: str) -> Tensor:
    """Fractional input position of every output position, ``[size_out]``.

    Raises:
        IntegrityError: The sampling mode is unknown.
    """
    steps = torch.arange(size_out, dtype=torch.float64)
    if mode in {"STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"}:
        where = steps * ((size_in - 1) / max(1, size_out - 1))
        where = where + (size_in - 1) / 2 if mode == "ALIGN_CORNERS" and size_out == 1 else where
    elif mode == "DEFAULT":
        where = steps * ((size_in - size_in / size_out) / max(1, size_out - 1))
    elif mode == "OFFSET_CORNERS":
        where = (steps + 0.5) * (max(1, size_in - 1) / size_out)
    elif mode == "UNALIGN_CORNERS":
        where = (steps + 0.5) * (size_in / size_out) - 0.5
    else:
        raise IntegrityError(f"Unknown sampling mode '{mode}' of a resize operation.")
    return where.clamp(0, size_in - 1)


def _interpolate(x: Tensor, axis: int, where: Tensor) -> Tensor:
    low = where.floor().long()
    high = (low + 1).clamp(max=x.shape[axis] - 1)
    shape = [1] * x.dim()
    shape[axis] = where.numel()
    share = (where - low).to(torch.float32).reshape(shape)
    return torch.index_select(x, axis, low) * (1 - share) + torch.index_select(x, axis, high) * share


def _bilinear(height: Tensor, width: Tensor) -> Kernel:
    return Kernel(lambda x: _interpolate(_interpolate(x, x.dim() - 2, height), x.dim() - 1, width), "x")


def _pick(rows: Tensor, columns: Tensor) -> Kernel:
    return Kernel(lambda x: torch.index_select(torch.index_select(x, x.dim() - 2, rows), x.dim() - 1, columns), "x")


def _nearest(call: Call, height: int, width: int) -> Kernel:
    sizes = zip(call.shape("x")[-2:], (height, width), strict=True)
    rows, columns = ((torch.arange(size_out) * (size_in / size_out)).floor().long() for size_in, size_out in sizes)
    return _pick(rows, columns)


def _scaled(call: Call) -> tuple[int, int]:
    height, width = call.shape("x")[-2:]
    return int(call.number("scale_factor_height", 1.0) * height), int(call.number("scale_factor_width", 1.0) * width)


@register("upsample_nearest_neighbor")
def upsample_nearest_neighbor(call: Call) -> Kernel:
    """Every pixel repeated by the scale factors."""
    return _nearest(call, *_scaled(call))


@register("resize_nearest_neighbor")
def resize_nearest_neighbor(call: Call) -> Kernel:
    """The pixel at ``floor(i * size_in / size_out)``."""
    return _nearest(call, call.integer("target_size_height"), call.integer("target_size_width"))


@register("upsample_bilinear")
def upsample_bilinear(call: Call) -> Kernel:
    """Bilinear interpolation by scale factors: corners aligned, pixel centres aligned (the opposite by default), or neither."""
    aligned = call.flag("align_corners", default=True)
    mode = "UNALIGN_CORNERS" if call.flag("half_pixel_centers", default=not aligned) else "DEFAULT"
    mode = "STRICT_ALIGN_CORNERS" if aligned else mode
    (height, width), (new_height, new_width) = call.shape("x")[-2:], _scaled(call)
    return _bilinear(positions(height, new_height, mode), positions(width, new_width, mode))


@register("resize_bilinear")
def resize_bilinear(call: Call) -> Kernel:
    """Bilinear interpolation to a target size."""
    (height, width), mode = call.shape("x")[-2:], call.text("sampling_mode", "DEFAULT")
    new_height, new_width = call.integer("target_size_height", 1), call.integer("target_size_width", 1)
    return _bilinear(positions(height, new_height, mode), positions(width, new_width, mode))


@register("resize")
def resize(call: Call) -> Kernel:
    """Either interpolation of the last ``resized_dims`` axes to the sizes at the end of ``shape`` (iOS 17); 0 keeps a size.

    The nearest pixel is the one whose centre is nearest to the sampled position, the later of two: so coremltools' own tests.

    Raises:
        UnsupportedOpError: More than the last two axes change.
    """
    mode, before, count = call.text("sampling_mode", "DEFAULT"), call.shape("x"), call.integer("resized_dims")
    wanted = (*before[: len(before) - count], *call.integers("shape")[-count:])
    after = [size or known for size, known in zip(wanted, before, strict=True)]
    if after[:-2] != list(before[:-2]):
        raise UnsupportedOpError(f"{call}: resizes {list(before)} to {after}; only the last two axes can be resized.")
    where = [
        torch.arange(size_in, dtype=torch.float64) if position >= count else positions(size_in, size_out, mode)
        for position, size_in, size_out in zip((1, 0), before[-2:], after[-2:], strict=True)
    ]
    dtype = torch_dtype(call.outputs[0].dtype)
    if call.text("interpolation_mode", "LINEAR") == "LINEAR":
        blend = _bilinear(*where).function
        return Kernel(blend if dtype.is_floating_point else lambda x: blend(x.float()).to(dtype), "x")
    return _pick(*(torch.floor(at + 0.5).long().clamp(max=size - 1) for at, size in zip(where, before[-2:], strict=True)))


@register("crop")
def crop(call: Call) -> Kernel:
    """Rows and columns cut off at both ends."""
    (top, bottom), (left, right) = call.integers("crop_height"), call.integers("crop_width")
    return Kernel(lambda x: x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right], "x")
