"""How an integer sum becomes an integer of the output's grid: the rounding that runtimes do differently.

============================ ================================================================ =========================
rule                         arithmetic                                                       ties
============================ ================================================================ =========================
:func:`by_float`             ``float32(sum) * float32(s_in * s_w / s_out)``                   to even
:func:`by_two_roundings`     31-bit fixed-point product, rounded; then shifted, rounded       away from zero, twice
:func:`by_two_upward`        the same with vector instructions                                upward, twice
:func:`by_one_rounding`      31-bit fixed-point product and shift in 64 bits, rounded once    upward
:func:`by_short_multiplier`  64-bit sum times a 15-bit multiplier, shifted, rounded once      upward
:func:`by_simulation`        ``float32(sum * s_in * s_w) * float32(1 / s_out)``               to even
============================ ================================================================ =========================
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = [
    "Output", "Requantizer", "by_float", "by_one_rounding", "by_short_multiplier", "by_simulation", "by_two_roundings",
    "by_two_upward", "by_two_upward_in_lanes", "fixed_point", "multiply_rounding_once", "multiply_rounding_twice",
    "multiply_rounding_upward", "quantize_simulated",
]  # fmt: skip

_FRACTION_BITS = 31
_LARGEST_SHORTENED = 0x7FFF0000
_LANES = 4
"""Channels that a Neon instruction requantizes at once."""


@dataclasses.dataclass(frozen=True)
class Output:
    """The grid a result is put on.

    Args:
        scale: Of the grid.
        zero_point: Of the grid.
        low: Smallest integer that comes out: of the type, or of a fused activation.
        high: Largest integer.
        dtype: Element type.
    """

    scale: np.float32
    zero_point: int
    low: int
    high: int
    dtype: str

    def place(self, steps: Array) -> Array:
        """Integers for whole steps from the zero point."""
        placed: Array = np.clip(steps.astype(np.int64) + self.zero_point, self.low, self.high).astype(self.dtype)
        return placed

    def round(self, steps: Array) -> Array:
        """Integers for steps from the zero point in float32, clamped before they are rounded half to even."""
        kept = np.clip(steps, np.float32(self.low - self.zero_point), np.float32(self.high - self.zero_point))
        return self.place(np.rint(kept))


Requantizer = Callable[["Array", np.float32, "Array", Output], "Array"]
"""Sums ``[..., C]``, scale of the data, scales of the weights ``[1]`` or ``[C]``, output's grid -> integers."""


def by_float(sums: Array, data: np.float32, weights: Array, output: Output) -> Array:
    """One float32 multiplier per channel, result rounded half to even.

    ONNX Runtime (``onnxruntime/core/mlas/lib/quantize.cpp``, ``MlasRequantizeOutput``; multiplier as in
    ``core/providers/cpu/quantization/qlinearconv.cc``) and XNNPACK (``src/qs8-gemm/*-minmax-fp32-*``; multiplier as in
    ``src/operators/convolution-nhwc.c``) do the same.
    """
    multiplier = np.float32(data) * weights.astype(np.float32) / output.scale
    return output.round(sums.astype(np.float32) * multiplier)


def by_simulation(sums: Array, data: np.float32, weights: Array, output: Output) -> Array:
    """Quantize the real value: what a float graph between quantize and dequantize nodes means.

    The real value is rounded to float32 once, so that no order of summation is favoured; the quantize node multiplies with
    the scale's float32 reciprocal (``torch.ops.quantized_decomposed.quantize_per_tensor``).
    """
    real = (sums * (np.float64(data) * weights.astype(np.float64))).astype(np.float32)
    return quantize_simulated(real, output)


def quantize_simulated(real: Array, output: Output) -> Array:
    """float32 real values -> integers as a PT2E quantize node makes them."""
    steps = np.rint(real.astype(np.float32) * (np.float32(1.0) / output.scale))
    limit = np.float32(2.0**24)
    return output.place(np.clip(steps, -limit, limit))


def by_two_roundings(sums: Array, data: np.float32, weights: Array, output: Output) -> Array:
    """TFLite's reference arithmetic (``tensorflow/lite/kernels/internal/common.h``, ``MultiplyByQuantizedMultiplier``)."""
    return output.place(_by_fixed_point(sums, data, weights, output, multiply_rounding_twice))


def by_one_rounding(sums: Array, data: np.float32, weights: Array, output: Output) -> Array:
    """TFLite's reference ``FULLY_CONNECTED`` with a scale per channel, as ai-edge-litert 2.3 is built."""
    return output.place(_by_fixed_point(sums, data, weights, output, multiply_rounding_once))


def by_two_upward(sums: Array, data: np.float32, weights: Array, output: Output) -> Array:
    """The arithmetic of TFLite's optimised kernels, which are written in Neon's rounding instructions on x86 too."""
    return output.place(_by_fixed_point(sums, data, weights, output, multiply_rounding_upward))


def by_two_upward_in_lanes(sums: Array, data: np.float32, weights: Array, output: Output) -> Array:
    """The same four channels at a time; channels left over are rounded away from zero, by scalar code."""
    made = by_two_upward(sums, data, weights, output)
    split = sums.shape[-1] // _LANES * _LANES
    if split < sums.shape[-1]:
        made[..., split:] = by_two_roundings(sums, data, weights, output)[..., split:]
    return made


def by_short_multiplier(sums: Array, data: np.float32, weights: Array, output: Output) -> Array:
    """TFLite with 16-bit activations: 64-bit sums, and a multiplier cut to 15 bits so that the product fits (``common.cc``)."""
    pairs = [fixed_point(float(np.float64(data) * np.float64(weight) / np.float64(output.scale))) for weight in weights]
    multipliers, shifts = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    short = np.where(multipliers < _LARGEST_SHORTENED, (multipliers + (1 << 15)) >> 16, (1 << 15) - 1)
    total = 15 - shifts
    return output.place((sums.astype(np.int64) * short + (np.int64(1) << (total - 1))) >> total)


def _by_fixed_point(
    sums: Array, data: np.float32, weights: Array, output: Output, multiply: Callable[[Array, Array, Array], Array]
) -> Array:
    factors = [float(np.float64(data) * np.float64(weight) / np.float64(output.scale)) for weight in weights]
    pairs = [fixed_point(factor) for factor in factors]
    multipliers, shifts = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    return multiply(sums.astype(np.int64), multipliers, shifts)


def fixed_point(factor: float) -> tuple[int, int]:
    """A positive factor as ``multiplier / 2^31 * 2^shift`` with the multiplier in ``[2^30, 2^31)``.

    TFLite's ``QuantizeMultiplier`` (``tensorflow/lite/kernels/internal/quantization_util.cc``); the fraction is rounded half away
    from zero.

    >>> fixed_point(0.75), fixed_point(1.0)
    ((1610612736, 0), (1073741824, 1))
    """
    if factor == 0.0:
        return 0, 0
    fraction, shift = math.frexp(factor)
    multiplier = math.floor(fraction * 2.0**_FRACTION_BITS + 0.5)
    if multiplier == 1 << _FRACTION_BITS:
        multiplier, shift = multiplier // 2, shift + 1
    if shift < -_FRACTION_BITS:
        return 0, 0
    return multiplier, shift


def multiply_rounding_twice(values: Array, multiplier: Array | int, shift: Array | int) -> Array:
    """Fixed-point product rounded to 32 bits, then shifted right, rounded again: both half away from zero.

    gemmlowp's ``SaturatingRoundingDoublingHighMul`` and ``RoundingDivideByPOT``; the first rounds a negative tie towards zero, as
    its C++ does by truncating division.
    """
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    product = (values << left) * multiplier
    nudge = np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    shifted = product + nudge
    high = np.where(shifted >= 0, shifted >> _FRACTION_BITS, -((-shifted) >> _FRACTION_BITS))  # C++ division truncates
    mask = (np.int64(1) << right) - 1
    threshold = (mask >> 1) + (high < 0)
    rounded: Array = (high >> right) + ((high & mask) > threshold)
    return rounded


def multiply_rounding_once(values: Array, multiplier: Array | int, shift: Array | int) -> Array:
    """Fixed-point product and shift in 64 bits, rounded half upward."""
    total = _FRACTION_BITS - shift
    rounded: Array = (values * multiplier + (np.int64(1) << (total - 1))) >> total
    return rounded


def multiply_rounding_upward(values: Array, multiplier: Array | int, shift: Array | int) -> Array:
    """Fixed-point product and shift, each rounded half upward: Neon's ``vqrdmulh`` and ``vrshl``.

    ``ruy/kernel_avx2_fma.cc`` and ``ruy/kernel_avx512.cc`` do the same for matrix products; what TFLite writes in Neon intrinsics
    is built for x86 through NEON_2_SSE.
    """
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    high = ((values << left) * multiplier + (1 << 30)) >> _FRACTION_BITS
    nudge = (np.int64(1) << right) >> 1
    rounded: Array = (high + nudge) >> right
    return rounded
