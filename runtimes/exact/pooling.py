"""Mean over axes, average and maximum over windows.

============== =====================================================================================
rule           mean
============== =====================================================================================
ONNX Runtime   sum less zero points, one float32 multiplier ``s_in / (s_out * count)``, half to even
               (``mlas/lib/qlgavgpool.cpp``)
XNNPACK        the same with ``s_in / s_out * (1 / count)`` (``src/operators/reduce-nd.c``)
TFLite         optimised: sum *with* zero points by a 31-bit multiplier, rounded upward twice; the
               scaled zero point, *rounded to an integer*, is subtracted
               (``internal/optimized/integer_ops/mean.h``)
               reference: 31-bit multiplier divided by the count, rounded twice
               (``internal/reference/reduce.h``)
simulation     float32 mean, quantized
============== =====================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.runtimes.exact.elementwise import Operand
from edgekit.runtimes.exact.requantization import (
    Output,
    fixed_point,
    multiply_rounding_twice,
    multiply_rounding_upward,
    quantize_simulated,
)

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = [
    "Averager",
    "mean_by_fixed_point",
    "mean_by_float",
    "mean_by_ratio",
    "mean_by_rounded_zero_point",
    "mean_by_simulation",
]

Averager = Callable[["Array", Any, Operand, Output], "Array"]
"""Sums of steps from the zero point, how many values are in each, the data's grid, the output's grid -> integers."""


def mean_by_float(sums: Array, count: int, data: Operand, output: Output) -> Array:
    """ONNX Runtime's ``QLinearGlobalAveragePool``."""
    multiplier = data.scale / (output.scale * np.float32(count))
    return output.round(sums.astype(np.float32) * multiplier)


def mean_by_ratio(sums: Array, count: int, data: Operand, output: Output) -> Array:
    """XNNPACK's ``mean``."""
    multiplier = data.scale / output.scale * (np.float32(1.0) / np.float32(count))
    return output.round(sums.astype(np.float32) * multiplier)


def mean_by_rounded_zero_point(sums: Array, count: int, data: Operand, output: Output) -> Array:
    """TFLite's optimised kernel: the input's zero point on the output's grid becomes an integer, up to half a step off."""
    zero = np.float32(data.zero_point) * data.scale / output.scale
    bias = output.zero_point - int(np.trunc(zero + np.copysign(np.float32(0.5), zero)))
    multiplier, shift = fixed_point(float(data.scale / (np.float32(count) * output.scale)))
    whole = multiply_rounding_upward(sums + count * data.zero_point, multiplier, shift)
    placed: Array = np.clip(whole + bias, output.low, output.high).astype(output.dtype)
    return placed


def mean_by_fixed_point(sums: Array, count: int, data: Operand, output: Output) -> Array:
    """TFLite's own kernels: the multiplier is divided by the count, keeping as many bits as fit."""
    multiplier, shift = fixed_point(float(data.scale) / float(output.scale))
    bits = min(count.bit_length() - 1, 32, 31 + shift)
    multiplier, shift = (multiplier << bits) // count, shift - bits
    return output.place(multiply_rounding_twice(sums, multiplier, shift))


def average_half_away(sums: Array, counts: Array, data: Operand, output: Output) -> Array:
    """TFLite's ``AVERAGE_POOL_2D``: stored integers on one grid, half away from zero (``reference/integer_ops/pooling.h``)."""
    stored = sums + counts * data.zero_point
    halves = np.where(stored > 0, stored + counts // 2, stored - counts // 2)
    whole = np.where(halves >= 0, halves // counts, -(-halves // counts))
    placed: Array = np.clip(whole, output.low, output.high).astype(output.dtype)
    return placed


def average_by_float(sums: Array, counts: Array, data: Operand, output: Output) -> Array:
    """ONNX Runtime's ``QLinearAveragePool``: float32 mean of the dequantized values, quantized."""
    real = (sums * np.float64(data.scale) / counts).astype(np.float32)
    return output.round(real / output.scale)


def average_by_simulation(sums: Array, counts: Array, data: Operand, output: Output) -> Array:
    """The mean rounded to float32 once, quantized."""
    return quantize_simulated((sums * np.float64(data.scale) / counts).astype(np.float32), output)


def mean_by_simulation(sums: Array, count: int, data: Operand, output: Output) -> Array:
    """The mean rounded to float32 once, quantized."""
    return quantize_simulated((sums * np.float64(data.scale) / count).astype(np.float32), output)
