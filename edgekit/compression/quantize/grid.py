"""Ranges -> scales and zero points, weights and biases -> integers. All arithmetic that decides a number is here.

TFLite 8-bit quantization specification: int8 affine activations that represent zero exactly, symmetric int8 weights
in [-127, 127] with one scale per output channel, int32 biases with scale ``s_input * s_weight[c]``.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgekit.core.errors import ContractError

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["Grid", "activation_grid", "bias_integers", "weight_grid"]

_LARGEST_BIAS = 2**30  # leaves the int32 accumulator as much room again


@dataclasses.dataclass(frozen=True)
class Grid:
    """``real = scale * (integer - zero_point)``, integers in ``[minimum, maximum]``; scale is an exact float32."""

    scale: float
    zero_point: int
    minimum: int = -128
    maximum: int = 127


def activation_grid(low: float, high: float) -> Grid:
    """The int8 affine grid that covers ``[low, high]`` and zero.

    >>> activation_grid(0.0, 6.0).zero_point
    -128
    >>> activation_grid(-1.0, 0.9921875) == Grid(scale=1 / 128, zero_point=0)
    True
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if high == low:  # a value that is always zero: any scale represents it
        return Grid(scale=1.0 / 128, zero_point=0)
    scale = float(np.float32((high - low) / 255.0))
    if scale < float(np.finfo(np.float32).tiny):
        return Grid(scale=1.0 / 128, zero_point=0)
    zero_point = int(np.clip(np.rint(-128 - low / scale), -128, 127))
    return Grid(scale=scale, zero_point=zero_point)


def weight_grid(weight: torch.Tensor, channel_axis: int, *, bias: torch.Tensor | None, input_scale: float) -> Array:
    """Symmetric float32 scales, one per channel, wide enough that every bias fits its int32 grid.

    Args:
        weight: Float weights, channels along ``channel_axis``.
        channel_axis: Output-channel axis.
        bias: ``[C]`` or None.
        input_scale: Scale of the layer's input.
    """
    others = [axis for axis in range(weight.ndim) if axis != channel_axis]
    largest = weight.abs().amax(dim=others).double().numpy() if others else weight.abs().double().numpy()
    scales = largest / 127.0
    floor = scales.max() if scales.max() > 0 else 1.0 / 128
    scales = np.where(scales > floor * 2.0**-24, scales, floor)  # an all-zero channel takes the widest channel's scale
    if bias is not None:
        scales = np.maximum(scales, bias.abs().double().numpy() / (input_scale * _LARGEST_BIAS))
    result: Array = scales.astype(np.float32)
    return result


def weight_integers(weight: torch.Tensor, scales: Array, channel_axis: int) -> torch.Tensor:
    """Weights rounded half to even on their grid, int8, same shape."""
    shape = [-1 if axis == channel_axis else 1 for axis in range(weight.ndim)]
    steps = torch.round(weight.double() / torch.from_numpy(scales).double().reshape(shape))
    return steps.clamp(-127, 127).to(torch.int8)


def bias_integers(bias: torch.Tensor, scales: Array, *, layer: str) -> torch.Tensor:
    """Biases rounded on the int32 grid ``scales`` (``[C]``, float32: the product the kernels use).

    Raises:
        ContractError: A bias does not fit.
    """
    steps = torch.round(bias.double() / torch.from_numpy(scales).double())
    if not bool((steps.abs() <= 2**31 - 1).all()):
        raise ContractError(
            f"Layer '{layer}': a bias of {float(bias.abs().max()):.3g} does not fit int32 at scale {float(scales.min()):.3g}."
            " Keep the layer float."
        )
    return steps.to(torch.int32)
