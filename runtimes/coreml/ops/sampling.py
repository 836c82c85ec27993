"""Sampling a picture at given positions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edgekit.core.errors import UnsupportedOpError
from edgekit.runtimes.coreml.ops.table import Call, Kernel, register

__all__: list[str] = []

_PADDING = {"constant": "zeros", "border": "border", "reflection": "reflection", "symmetric": "reflection"}
_REFLECTS = {"reflection": True, "symmetric": False}
"""Padding that mirrors at the centres of the border pixels (corners aligned) or at their edges."""


@register("resample")
def resample(call: Call) -> Kernel:
    """``x [B, C, H, W]`` at ``coordinates [B, H_out, W_out, 2]``, given as (x, y).

    Raises:
        UnsupportedOpError: A constant border other than zero, or a mirror that torch has not for these corners.
    """
    mode, padding = call.text("sampling_mode", "bilinear"), call.text("padding_mode", "constant")
    unit, aligned = call.text("coordinates_mode", "unnormalized"), call.flag("align_corners")
    if padding not in _PADDING or _REFLECTS.get(padding, aligned) is not aligned:
        raise UnsupportedOpError(f"{call}: padding '{padding}' with align_corners={aligned} has no reference kernel.")
    if padding == "constant" and call.number("padding_value", 0.0) != 0:
        raise UnsupportedOpError(f"{call}: a border of anything but zeros has no reference kernel.")

    def run(x: Tensor, coordinates: Tensor) -> Tensor:
        grid = _normalized(coordinates.to(torch.float32), x.shape[-1], x.shape[-2], unit, aligned=aligned)
        return functional.grid_sample(x, grid, mode=mode, padding_mode=_PADDING[padding], align_corners=aligned)

    return Kernel(run, "x", "coordinates")


def _normalized(coordinates: Tensor, width: int, height: int, unit: str, *, aligned: bool) -> Tensor:
    """Positions from -1 to 1, as torch takes them."""
    if unit == "normalized_minus_one_to_one":
        return coordinates
    if unit == "normalized_zero_to_one":
        return coordinates * 2 - 1
    sizes = torch.tensor([width, height], dtype=torch.float32)
    return coordinates * 2 / (sizes - 1).clamp(min=1) - 1 if aligned else (coordinates * 2 + 1) / sizes - 1
