"""Running products, where a target knows running sums at most."""

from __future__ import annotations

import torch

from edgekit.converters.rewrites.rewrite import Rewrite

__all__ = ["REWRITES"]


def _cumprod(values: torch.Tensor, dim: int, *, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Doubling steps (Hillis and Steele, 1986): after step ``k`` every place holds the product of its last ``2**k`` values."""
    values = values if dtype is None else values.to(dtype)
    length, shift = int(values.shape[dim]), 1
    while shift < length:
        first, rest = values.narrow(dim, 0, shift), values.narrow(dim, shift, length - shift)
        values = torch.cat([first, rest * values.narrow(dim, 0, length - shift)], dim)
        shift *= 2
    return values


REWRITES = (
    Rewrite(
        name="cumprod-to-products",
        targets=("onnx", "tflite", "coreml"),
        because="torch.onnx (torch 2.13) and litert-torch 0.10 have no running product; coremltools 9 writes one as a scatter",
        operators=("aten.cumprod.default",),
        build=_cumprod,
    ),
)
