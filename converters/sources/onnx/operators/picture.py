"""Pictures sampled at places that are computed."""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812

from edgekit.converters.sources.onnx.call import Call
from edgekit.converters.sources.onnx.operators.table import operator

__all__: list[str] = []

_MODES = {"bilinear": "bilinear", "linear": "bilinear", "nearest": "nearest", "bicubic": "bicubic", "cubic": "bicubic"}


@operator("GridSample")
def grid_sample(call: Call) -> torch.Tensor:
    """Sampled at a grid of places between -1 and 1."""
    return F.grid_sample(
        call.tensor(0),
        call.tensor(1),
        mode=_MODES[call.attribute("mode", "linear")],
        padding_mode=call.attribute("padding_mode", "zeros"),
        align_corners=bool(call.attribute("align_corners", 0)),
    )


@operator("AffineGrid")
def affine_grid(call: Call) -> torch.Tensor:
    """Places that an affine map takes a grid to."""
    return F.affine_grid(call.tensor(0), list(call.ints(1)), align_corners=bool(call.attribute("align_corners", 0)))
