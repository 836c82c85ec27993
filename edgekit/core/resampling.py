"""Pictures made larger or smaller, with the arithmetic of Pillow and torchvision written out.

Resizing is separable: one matrix for the columns, one for the rows. With ``antialias`` the filter is widened by the reduction
and the numbers are Pillow's own (``libImaging/Resample.c``): weights on a grid of 2**-22, a picture of bytes rounded after
the columns and again after the rows. Without, two (bilinear) or four (bicubic) neighbours are weighed whatever the
reduction, and the result is rounded once, half to even, as ``torch.nn.functional.interpolate`` followed by ``round``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["Interpolation", "centre", "resize", "shorter_side", "weights"]

Interpolation = Literal["bilinear", "bicubic", "nearest"]

_WEIGHT_BITS = 22  # Resample.c: PRECISION_BITS = 32 - 8 - 2
_PILLOW_CUBIC, _TORCH_CUBIC = -0.5, -0.75


def shorter_side(height: int, width: int, length: int) -> tuple[int, int]:
    """Height and width once the shorter side has ``length`` pixels; the longer is cut to whole pixels, as torchvision does.

    >>> shorter_side(300, 451, 224)
    (224, 336)
    """
    if height <= width:
        return length, int(length * width / height)
    return int(length * height / width), length


def centre(size: int, wanted: int) -> int:
    """First pixel of ``wanted`` in the middle of ``size``, as torchvision's ``center_crop`` rounds it.

    >>> centre(256, 224), centre(227, 224)
    (16, 2)
    """
    return round((size - wanted) / 2)


def weights(size: int, wanted: int, *, interpolation: Interpolation, antialias: bool) -> Array:
    """How much of each pixel goes into each new one: float64 ``[wanted, size]``, rows add up to 1 (to 2**-22 with antialias).

    >>> weights(4, 2, interpolation="bilinear", antialias=False).tolist()
    [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
    """
    import numpy as np

    found = np.zeros((wanted, size))
    ratio = size / wanted
    for row in range(wanted):
        centre_at = (row + 0.5) * ratio
        if interpolation == "nearest":
            found[row, min(int(centre_at), size - 1)] = 1.0
        elif antialias:
            _widened(found[row], centre_at, max(ratio, 1.0), interpolation)
        else:
            _neighbours(found[row], centre_at - 0.5, interpolation)
    return found


def resize(picture: Array, height: int, width: int, *, interpolation: Interpolation, antialias: bool) -> Array:
    """A picture of bytes in another size.

    Args:
        picture: uint8 ``[H, W, C]``.
        height: Of the result.
        width: Of the result.
        interpolation: Filter.
        antialias: Widen the filter where the picture becomes smaller.

    Returns:
        uint8 ``[height, width, C]``.
    """
    import numpy as np

    exact = antialias and interpolation != "nearest"
    values = picture.astype(np.float64)
    if picture.shape[1] != width:
        columns = weights(picture.shape[1], width, interpolation=interpolation, antialias=antialias)
        values = np.einsum("hwc,vw->hvc", values, columns, optimize=True)
        values = _bytes_of_pillow(values) if exact else values
    if picture.shape[0] != height:
        rows = weights(picture.shape[0], height, interpolation=interpolation, antialias=antialias)
        values = np.einsum("hwc,vh->vwc", values, rows, optimize=True)
        values = _bytes_of_pillow(values) if exact else values
    resized: Array = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return resized


def _bytes_of_pillow(values: Array) -> Array:
    """Half is rounded up: weights have 22 binary places, so the sums are exact in float64."""
    import numpy as np

    rounded: Array = np.clip(np.floor(values + 0.5), 0, 255)
    return rounded


def _widened(row: Array, centre_at: float, ratio: float, interpolation: Interpolation) -> None:
    """Resample.c, ``precompute_coeffs`` and ``normalize_coeffs_8bpc``: the filter stretched by the reduction."""
    kernel, reach = _kernel(interpolation, _PILLOW_CUBIC)
    support = reach * ratio
    first = max(int(centre_at - support + 0.5), 0)
    last = min(int(centre_at + support + 0.5), len(row))
    raw = [kernel((at - centre_at + 0.5) / ratio) for at in range(first, last)]
    total = sum(raw)
    for at, value in zip(range(first, last), raw, strict=True):
        row[at] = math.trunc(math.copysign(0.5, value) + value / total * 2**_WEIGHT_BITS) / 2**_WEIGHT_BITS


def _neighbours(row: Array, position: float, interpolation: Interpolation) -> None:
    """Two or four pixels around a position; beyond the border the last pixel counts again."""
    kernel, reach = _kernel(interpolation, _TORCH_CUBIC)
    if interpolation == "bilinear":
        position = max(position, 0.0)  # torch clamps the source index for bilinear, not for bicubic
    first = math.floor(position) - int(reach) + 1
    for at in range(first, first + 2 * int(reach)):
        row[min(max(at, 0), len(row) - 1)] += kernel(at - position)


def _kernel(interpolation: Interpolation, sharpness: float) -> tuple[Callable[[float], float], float]:
    """A filter and how far it reaches to either side."""
    if interpolation == "bilinear":
        return lambda x: max(1.0 - abs(x), 0.0), 1.0

    def cubic(x: float) -> float:
        x = abs(x)
        if x < 1.0:
            return ((sharpness + 2.0) * x - (sharpness + 3.0)) * x * x + 1.0
        return (((x - 5.0) * x + 8.0) * x - 4.0) * sharpness if x < 2.0 else 0.0

    return cubic, 2.0
