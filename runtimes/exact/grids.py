"""Between real numbers and integers, and from one grid to another: each runtime's own way.

Names say the arithmetic: ``dividing`` by the scale in float32 (ONNX Runtime), ``by_reciprocal`` or 8-bit ``by_ratio`` (XNNPACK),
``by_fixed_point`` and half ``away`` from zero (TFLite), ``simulated`` (the float graph).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgekit.runtimes.exact import requantization
from edgekit.runtimes.exact.requantization import Output, fixed_point

if TYPE_CHECKING:
    from edgekit.core.tensors import Array
    from edgekit.runtimes.exact.elementwise import Operand

__all__ = [
    "dequantize",
    "dequantize_in_two_products",
    "leaky_by_fixed_point",
    "leaky_by_ratios",
    "leaky_dividing",
    "leaky_simulated",
    "quantize_away",
    "quantize_by_reciprocal",
    "quantize_dividing",
    "requantize_by_fixed_point",
    "requantize_by_ratio",
    "requantize_dividing",
    "requantize_simulated",
    "softmax_dividing",
    "softmax_simulated",
]


def quantize_dividing(real: Array, output: Output) -> Array:
    """ONNX ``QuantizeLinear``: divided by the scale, half to even (``mlas/lib/quantize.cpp``)."""
    return output.round(real.astype(np.float32) / output.scale)


def quantize_by_reciprocal(real: Array, output: Output) -> Array:
    """XNNPACK's ``f32-qs8-vcvt``: times the float32 reciprocal of the scale, half to even."""
    return output.round(real.astype(np.float32) * (np.float32(1.0) / output.scale))


def quantize_away(real: Array, output: Output) -> Array:
    """TFLite's ``AffineQuantize``: divided by the scale, half away from zero (``internal/reference/quantize.h``)."""
    steps = real.astype(np.float32) / output.scale
    away = np.trunc(steps + np.copysign(np.float32(0.5), steps))
    limit = np.float32(2.0**24)
    return output.place(np.clip(away, -limit, limit))


def dequantize(data: Operand) -> Array:
    """Steps from the zero point times the scale."""
    return data.real


def dequantize_in_two_products(data: Operand) -> Array:
    """TFLite's optimised kernel: ``q * s + (-z * s)``, each rounded (``internal/optimized/optimized_ops.h``)."""
    offset = np.float32(-data.zero_point) * data.scale
    real: Array = data.values.astype(np.float32) * data.scale + offset
    return real


def requantize_dividing(data: Operand, output: Output) -> Array:
    """ONNX Runtime: dequantized and quantized again in float32."""
    return quantize_dividing(data.real, output)


def requantize_by_ratio(data: Operand, output: Output) -> Array:
    """XNNPACK's ``qs8-vcvt``: an 8-bit fixed-point ratio, rounded half upward (``xnn_init_qs8_cvt_scalar_params``)."""
    multiplier = int(np.rint(np.float32(256.0) * (data.scale / output.scale)))
    return output.place((data.steps * multiplier + 128) >> 8)


def requantize_by_fixed_point(data: Operand, output: Output) -> Array:
    """TFLite's ``Requantize`` (``internal/reference/requantize.h``)."""
    multiplier, shift = fixed_point(float(data.scale) / float(output.scale))
    return output.place(requantization.multiply_rounding_twice(data.steps, multiplier, shift))


def requantize_simulated(data: Operand, output: Output) -> Array:
    """Dequantized and quantized again, as a PT2E graph does."""
    return requantization.quantize_simulated(data.real, output)


def leaky_by_ratios(data: Operand, slope: float, output: Output) -> Array:
    """XNNPACK's ``qs8-vlrelu``: an 8-bit fixed-point ratio on either side, rounded half upward."""
    ratio = data.scale / output.scale
    multipliers = [int(np.rint(np.float32(256.0) * one)) for one in (ratio, ratio * np.float32(slope))]
    steps = data.steps
    return output.place((np.where(steps >= 0, steps * multipliers[0], steps * multipliers[1]) + 128) >> 8)


def leaky_by_fixed_point(data: Operand, slope: float, output: Output) -> Array:
    """TFLite's ``QuantizeLeakyRelu`` (``internal/reference/leaky_relu.h``)."""
    ratio = float(data.scale) / float(output.scale)
    pairs = [fixed_point(factor) for factor in (ratio, float(data.scale) * float(np.float32(slope)) / float(output.scale))]
    above, below = (requantization.multiply_rounding_twice(data.steps, *pair) for pair in pairs)
    return output.place(np.where(data.steps >= 0, above, below))


def leaky_dividing(data: Operand, slope: float, output: Output) -> Array:
    """ONNX Runtime's ``QLinearLeakyRelu``: float32, quantized."""
    return quantize_dividing(np.where(data.real < 0, data.real * np.float32(slope), data.real), output)


def leaky_simulated(data: Operand, slope: float, output: Output) -> Array:
    """float32 leaky ReLU, quantized."""
    return requantization.quantize_simulated(np.where(data.real < 0, data.real * np.float32(slope), data.real), output)


def softmax_simulated(data: Operand, output: Output, *, axis: int, beta: float) -> Array:
    """Softmax in float64, rounded to float32 once, quantized."""
    real = data.real.astype(np.float64) * beta
    powers = np.exp(real - real.max(axis, keepdims=True))
    return requantization.quantize_simulated((powers / powers.sum(axis, keepdims=True)).astype(np.float32), output)


def softmax_dividing(data: Operand, output: Output, *, axis: int, beta: float) -> Array:
    """ONNX Runtime's ``QLinearSoftmax``: its real value, divided by the scale, half to even."""
    real = data.real.astype(np.float64) * beta
    powers = np.exp(real - real.max(axis, keepdims=True))
    return quantize_dividing((powers / powers.sum(axis, keepdims=True)).astype(np.float32), output)
