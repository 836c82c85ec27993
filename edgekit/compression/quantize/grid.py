"""Ranges -> scales and zero points, weights and biases -> integers. All arithmetic that decides a number is here.

TFLite 8-bit quantization specification: int8 affine activations that represent zero exactly, symmetric int8 weights
in [-127, 127] with one scale per output channel, int32 biases with scale ``s_input * s_weight[c]``.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from edgekit.core.errors import ContractError

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["Grid", "activation_grid", "bias_integers", "covering_scales", "half_weights", "weight_grid", "wide_grid"]

_LARGEST_INT8 = 127
_LARGEST_INT16 = 32767
_LARGEST_BIAS = 2**30  # leaves the int32 accumulator as much room again


@dataclasses.dataclass(frozen=True)
class Grid:
    """``real = scale * (integer - zero_point)``, integers in ``[minimum, maximum]``; scale is an exact float32."""

    scale: float
    zero_point: int
    minimum: int = -128
    maximum: int = 127

    @property
    def dtype(self) -> Literal["int8", "int16"]:
        """The narrowest type that holds the integers."""
        return "int16" if self.maximum > _LARGEST_INT8 else "int8"


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


def wide_grid(low: float, high: float, *, is_fixed: bool = False) -> Grid:
    """The symmetric int16 grid (zero point 0) that covers ``[low, high]``: activations of TFLite's 16x8 kernels.

    Args:
        low: Smallest value.
        high: Largest value.
        is_fixed: The range is known beforehand (softmax, sigmoid, tanh): the scale is then a power of two over 32768,
            as the TFLite quantization specification asks.

    >>> wide_grid(0.0, 0.99609375, is_fixed=True).scale == 1 / 32768
    True
    """
    largest = max(-low, high, 0.0)
    if is_fixed:
        scale = 2.0 ** float(np.ceil(np.log2(largest))) / (_LARGEST_INT16 + 1)
    else:
        scale = float(np.float32(largest / _LARGEST_INT16))
    if scale < float(np.finfo(np.float32).tiny):
        scale = 1.0 / (_LARGEST_INT16 + 1)
    return Grid(scale=scale, zero_point=0, minimum=-_LARGEST_INT16 - 1, maximum=_LARGEST_INT16)


def covering_scales(rows: torch.Tensor, *, minimum: int, maximum: int) -> Array:
    """The finest float32 scale for each row that clips nothing: for weights beside which nothing else is quantized.

    Args:
        rows: ``[R, K]``: what shares a scale.
        minimum: Smallest integer, negative.
        maximum: Largest integer.
    """
    high, low = rows.amax(1).double().numpy(), rows.amin(1).double().numpy()
    scales = np.maximum(high / maximum, low / minimum)
    floor = scales.max(initial=0.0) if scales.max(initial=0.0) > 0 else 1.0 / 128
    result: Array = np.where(scales > floor * 2.0**-24, scales, floor).astype(np.float32)
    return result


def half_weights(weight: torch.Tensor, *, layer: str) -> torch.Tensor:
    """Weights as float16.

    Raises:
        ContractError: One is beyond float16's range.
    """
    half = weight.to(torch.float16)
    if not bool(torch.isfinite(half).all()):
        raise ContractError(
            f"Layer '{layer}': a weight of {float(weight.abs().max()):.6g} is beyond float16's range (65504)."
            f" Keep the layer float (keep_float = ['{layer}'])."
        )
    return half


def weight_grid(
    weight: torch.Tensor, channel_axis: int, *, bias: torch.Tensor | None, input_scale: float, largest: int = 127
) -> Array:
    """Symmetric float32 scales, one per channel, wide enough that every bias fits its int32 grid.

    Args:
        weight: Float weights, channels along ``channel_axis``.
        channel_axis: Output-channel axis.
        bias: ``[C]`` or None.
        input_scale: Scale of the layer's input.
        largest: Largest integer: 127, or 7 for int4.
    """
    others = [axis for axis in range(weight.ndim) if axis != channel_axis]
    widest = weight.abs().amax(dim=others).double().numpy() if others else weight.abs().double().numpy()
    scales = widest / largest
    floor = scales.max() if scales.max() > 0 else 1.0 / 128
    scales = np.where(scales > floor * 2.0**-24, scales, floor)  # an all-zero channel takes the widest channel's scale
    if bias is not None:
        scales = np.maximum(scales, bias.abs().double().numpy() / (input_scale * _LARGEST_BIAS))
    result: Array = scales.astype(np.float32)
    return result


def weight_integers(
    weight: torch.Tensor, scales: Array, channel_axis: int, *, minimum: int = -127, maximum: int = 127
) -> torch.Tensor:
    """Weights rounded half to even on their grid, as int8 tensor (whatever the range), same shape."""
    shape = [-1 if axis == channel_axis else 1 for axis in range(weight.ndim)]
    steps = torch.round(weight.double() / torch.from_numpy(scales).double().reshape(shape))
    return steps.clamp(minimum, maximum).to(torch.int8)


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
