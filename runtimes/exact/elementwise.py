"""Sums, differences and products of two quantized tensors.

============== ===================================================================== ==============================
rule           sum                                                                   source
============== ===================================================================== ==============================
ONNX Runtime   ``fma(a, s_a/s_c, fma(b, s_b/s_c, fixed part))`` in float32           ``mlas/lib/intrinsics/avx2/
                                                                                     qladd_avx2.cpp``
XNNPACK        21-bit fixed point, one shift, ties upward                            ``microparams-init.c``,
                                                                                     ``qs8-vadd/*.c``
TFLite         three 31-bit fixed-point products, each rounded twice                 ``internal/reference/add.h``
simulation     float32 sum of both real values, quantized                            PT2E graph
============== ===================================================================== ==============================
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edgekit.runtimes.exact.requantization import (
    Output,
    by_float,
    fixed_point,
    multiply_rounding_twice,
    quantize_simulated,
)

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = [
    "Elementwise", "Operand", "add_by_fixed_point", "add_by_fma", "add_by_simulation", "add_by_three_products",
    "multiply_by_float", "multiply_by_float_ratio", "multiply_by_simulation", "multiply_by_two_roundings",
]  # fmt: skip

_TFLITE_SHIFT = {"int8": 20, "uint8": 20, "int16": 15}
"""Bits both operands are shifted up before they are scaled (``tensorflow/lite/kernels/add.cc``)."""


@dataclasses.dataclass(frozen=True)
class Operand:
    """One operand.

    Args:
        values: Integers as stored.
        scale: Of its grid.
        zero_point: Of its grid.
    """

    values: Array
    scale: np.float32
    zero_point: int

    @property
    def steps(self) -> Array:
        """int64 steps from the zero point."""
        steps: Array = self.values.astype(np.int64) - self.zero_point
        return steps

    @property
    def real(self) -> Array:
        """float32 real values."""
        real: Array = self.steps.astype(np.float32) * self.scale
        return real


Elementwise = Callable[[Operand, Operand, int, Output], "Array"]
"""Both operands, the sign of the second (1 or -1), the output's grid -> integers."""


def _fma(one: Array, other: np.float32, addend: Array) -> Array:
    """float32 ``one * other + addend``, rounded once: exact in float64, where a product of two float32 has 48 bits."""
    fused: Array = (one.astype(np.float64) * np.float64(other) + addend.astype(np.float64)).astype(np.float32)
    return fused


def add_by_fma(one: Operand, other: Operand, sign: int, output: Output) -> Array:
    """ONNX Runtime on x86: zero points go into one float32 constant; the second operand is added first."""
    ratios = one.scale / output.scale, np.float32(sign) * other.scale / output.scale
    scaled = [ratio * np.float32(operand.zero_point) for ratio, operand in zip(ratios, (one, other), strict=True)]
    constant = np.float32(output.zero_point) - _fma(np.asarray(np.float32(one.zero_point)), ratios[0], np.asarray(scaled[1]))
    sums = _fma(other.values.astype(np.float32), ratios[1], np.broadcast_to(constant, other.values.shape))
    sums = _fma(one.values.astype(np.float32), ratios[0], sums)
    limits = np.float32(output.low), np.float32(output.high)
    rounded: Array = np.rint(np.clip(sums, *limits)).astype(output.dtype)
    return rounded


def add_by_fixed_point(one: Operand, other: Operand, sign: int, output: Output) -> Array:
    """XNNPACK: multipliers of 21 bits with one exponent, rounded half upward by a bias before the shift."""
    ratios = one.scale / output.scale, other.scale / output.scale
    exponent = int(np.frexp(max(ratios))[1]) - 1
    shift = 20 - exponent
    multipliers = [int(np.rint(np.float32(np.ldexp(ratio, shift)))) for ratio in ratios]
    sums = one.steps * multipliers[0] + sign * other.steps * multipliers[1]
    return output.place((sums + (1 << (shift - 1))) >> shift)


def add_by_three_products(one: Operand, other: Operand, sign: int, output: Output) -> Array:
    """TFLite's own kernels: both operands on a common finer grid, then the sum to the output's."""
    bits = _TFLITE_SHIFT[output.dtype]
    twice = 2.0 * float(max(one.scale, other.scale))
    scaled = []
    for operand in (one, other):
        multiplier, shift = fixed_point(float(operand.scale) / twice)
        scaled.append(multiply_rounding_twice(operand.steps << bits, multiplier, shift))
    multiplier, shift = fixed_point(twice / ((1 << bits) * float(output.scale)))
    sums = multiply_rounding_twice(scaled[0] + sign * scaled[1], multiplier, shift)
    return output.place(sums)


def add_by_simulation(one: Operand, other: Operand, sign: int, output: Output) -> Array:
    """float32 sum of the dequantized operands, quantized."""
    return quantize_simulated(one.real + np.float32(sign) * other.real, output)


def _products(one: Operand, other: Operand) -> tuple[Array, Array]:
    return one.steps * other.steps, np.asarray([other.scale], np.float32)


def multiply_by_float(one: Operand, other: Operand, sign: int, output: Output) -> Array:  # noqa: ARG001  one signature
    """XNNPACK (``qs8-vmul/*-fp32``): exact product, one float32 multiplier, half to even."""
    products, weight = _products(one, other)
    return by_float(products, one.scale, weight, output)


def multiply_by_float_ratio(one: Operand, other: Operand, sign: int, output: Output) -> Array:  # noqa: ARG001
    """ONNX Runtime (``mlas/lib/qlmul.cpp``): the same multiplier; the zero point is added before rounding."""
    ratio = one.scale * other.scale / output.scale
    products = one.steps.astype(np.float32) * other.steps.astype(np.float32)
    steps = np.rint(np.float32(output.zero_point) + products * ratio)
    rounded: Array = np.clip(steps, output.low, output.high).astype(output.dtype)
    return rounded


def multiply_by_two_roundings(one: Operand, other: Operand, sign: int, output: Output) -> Array:  # noqa: ARG001
    """TFLite's own kernels (``internal/reference/integer_ops/mul.h``); the scales are multiplied in float32."""
    products = one.steps * other.steps
    factor = float(one.scale * other.scale / output.scale)
    multiplier, shift = fixed_point(factor)
    return output.place(multiply_rounding_twice(products, multiplier, shift))


def multiply_by_simulation(one: Operand, other: Operand, sign: int, output: Output) -> Array:  # noqa: ARG001
    """float32 product of the dequantized operands, quantized."""
    return quantize_simulated(one.real * other.real, output)
