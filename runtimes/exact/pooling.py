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
from typing import TYPE_CHECKING

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
    "WindowAverager",
    "mean_by_fixed_point",
    "mean_by_float",
    "mean_by_ratio",
    "mean_by_rounded_zero_point",
    "mean_by_simulation",
]

_LANES = 16
"""Channels that TFLite's vector kernel averages at once."""

Averager = Callable[["Array", int, Operand, Output], "Array"]
"""Sums of steps from the zero point, how many values are in each, the data's grid, the output's grid -> integers."""

WindowAverager = Callable[["Array", "Array", Operand, Output], "Array"]
"""Steps from the zero point ``[..., K]``, how many of the ``K`` are inside, the data's grid, the output's grid -> integers."""


def mean_by_float(sums: Array, count: int, data: Operand, output: Output) -> Array:
    """ONNX Runtime's ``QLinearGlobalAveragePool``."""
    multiplier = data.scale / (output.scale * np.float32(count))
    return output.round(sums.astype(np.float32) * multiplier)


def mean_by_ratio(sums: Array, count: int, data: Operand, output: Output) -> Array:
    """XNNPACK's ``mean``."""
    multiplier = data.scale / output.scale * (np.float32(1.0) / np.float32(count))
    return output.round(sums.astype(np.float32) * multiplier)


def mean_by_rounded_zero_point(sums: Array, count: int, data: Operand, output: Output) -> Array:
    """TFLite's optimised kernel: the input's zero point on the output's grid becomes an integer, up to half a step off.

    Sixteen channels at a time are computed by vector instructions; those left over are rounded away from zero.
    """
    zero = np.float32(data.zero_point) * data.scale / output.scale
    bias = output.zero_point - int(np.trunc(zero + np.copysign(np.float32(0.5), zero)))
    multiplier, shift = fixed_point(float(data.scale / (np.float32(count) * output.scale)))
    stored = sums + count * data.zero_point
    split = stored.shape[-1] // _LANES * _LANES
    whole = multiply_rounding_upward(stored[..., :split], multiplier, shift)
    rest = multiply_rounding_twice(stored[..., split:], multiplier, shift)
    placed: Array = np.clip(np.concatenate([whole, rest], axis=-1) + bias, output.low, output.high).astype(output.dtype)
    return placed


def mean_by_fixed_point(sums: Array, count: int, data: Operand, output: Output) -> Array:
    """TFLite's own kernels: the multiplier is divided by the count, keeping as many bits as fit."""
    multiplier, shift = fixed_point(float(data.scale) / float(output.scale))
    bits = min(count.bit_length() - 1, 32, 31 + shift)
    multiplier, shift = (multiplier << bits) // count, shift - bits
    return output.place(multiply_rounding_twice(sums, multiplier, shift))


def average_half_away(steps: Array, counts: Array, data: Operand, output: Output) -> Array:
    """TFLite's ``AVERAGE_POOL_2D``: stored integers on one grid, half away from zero (``reference/integer_ops/pooling.h``)."""
    stored = steps.sum(-1) + counts * data.zero_point
    halves = np.where(stored > 0, stored + counts // 2, stored - counts // 2)
    whole = np.where(halves >= 0, halves // counts, -(-halves // counts))
    placed: Array = np.clip(whole, output.low, output.high).astype(output.dtype)
    return placed


def average_by_float(steps: Array, counts: Array, data: Operand, output: Output) -> Array:
    """ONNX Runtime's ``QLinearAveragePool``: float32 values summed in order; the zero point is added before rounding."""
    total = np.zeros(steps.shape[:-1], np.float32)
    for at in range(steps.shape[-1]):
        total = total + steps[..., at].astype(np.float32) * data.scale
    rounded = np.rint(total / counts.astype(np.float32) / output.scale + np.float32(output.zero_point))
    placed: Array = np.clip(rounded, output.low, output.high).astype(output.dtype)
    return placed


def average_by_simulation(steps: Array, counts: Array, data: Operand, output: Output) -> Array:
    """The mean rounded to float32 once, quantized."""
    return quantize_simulated((steps.sum(-1) * np.float64(data.scale) / counts).astype(np.float32), output)


def mean_by_simulation(sums: Array, count: int, data: Operand, output: Output) -> Array:
    """The mean rounded to float32 once, quantized."""
    return quantize_simulated((sums * np.float64(data.scale) / count).astype(np.float32), output)
