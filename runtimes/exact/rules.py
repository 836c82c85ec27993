"""One set of rounding rules per runtime.

========================= ==================== ==================== ==================== ====================
operation                 ONNX Runtime (x86)   XNNPACK              TFLite               simulation
========================= ==================== ==================== ==================== ====================
convolution, linear       float32, to even     float32, to even     fixed, see below     float32 graph
add                       float32 fma          21-bit fixed point   3 fixed products     float32 graph
multiply                  float32, to even     float32, to even     fixed, 2 roundings   float32 graph
mean                      float32, to even     float32, to even     fixed, see below     float32 graph
quantize                  divide, to even      reciprocal, to even  divide, away         reciprocal, to even
========================= ==================== ==================== ==================== ====================

TFLite's kernels round twice in fixed point: ties upward where a kernel is optimised, away from zero in reference kernels and in
products of two computed matrices. Its reference FULLY_CONNECTED rounds once. Its optimised mean also rounds the zero point.
What XNNPACK does not take (products of two computed matrices, average pooling, softmax) runs in TFLite's kernels there too.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from edgekit.runtimes.exact import elementwise, pooling, requantization
from edgekit.runtimes.exact.elementwise import Elementwise, Operand
from edgekit.runtimes.exact.graph import Operation
from edgekit.runtimes.exact.pooling import Averager, WindowAverager
from edgekit.runtimes.exact.requantization import Output, Requantizer, fixed_point
from edgekit.runtimes.exact.table import softmax

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgekit.core.tensors import Array

__all__ = ["ONNX_RUNTIME", "RULES", "SIMULATION", "TFLITE", "TFLITE_REFERENCE", "XNNPACK", "Rules", "describe"]


@dataclasses.dataclass(frozen=True)
class Rules:
    """How one runtime rounds.

    Args:
        name: Of the rule set.
        convolution: Sums of a convolution.
        depthwise: Sums of a depthwise convolution.
        transposed: Sums of a transposed convolution.
        linear: Sums of a matrix product with constant weights.
        matmul: Sums of a product of two computed matrices.
        add: Sum or difference of two tensors.
        multiply: Product of two tensors.
        mean: Mean over axes.
        spatial_mean: Mean over both middle axes of four, which are kept.
        average: Average over windows.
        requantize: Integers from one grid to another.
        rescaled_clamp: The same with a clamp, ``RELU`` between two grids.
        softmax: Softmax of integers.
        quantize: float32 -> integers.
        dequantize: Integers -> float32.
    """

    name: str
    convolution: Requantizer
    depthwise: Requantizer
    transposed: Requantizer
    linear: Requantizer
    matmul: Requantizer
    add: Elementwise
    multiply: Elementwise
    mean: Averager
    spatial_mean: Averager
    average: WindowAverager
    requantize: Callable[[Operand, Output], Array]
    rescaled_clamp: Callable[[Operand, Output], Array]
    softmax: Callable[..., Array]
    quantize: Callable[[Array, Output], Array]
    dequantize: Callable[[Operand], Array]


def _quantize_dividing(real: Array, output: Output) -> Array:
    """ONNX ``QuantizeLinear``: divided by the scale, half to even (``mlas/lib/quantize.cpp``)."""
    return output.round(real.astype(np.float32) / output.scale)


def _quantize_by_reciprocal(real: Array, output: Output) -> Array:
    """XNNPACK's ``f32-qs8-vcvt``: times the float32 reciprocal of the scale, half to even."""
    return output.round(real.astype(np.float32) * (np.float32(1.0) / output.scale))


def _quantize_away(real: Array, output: Output) -> Array:
    """TFLite's ``AffineQuantize``: divided by the scale, half away from zero (``internal/reference/quantize.h``)."""
    steps = real.astype(np.float32) / output.scale
    away = np.trunc(steps + np.copysign(np.float32(0.5), steps))
    limit = np.float32(2.0**24)
    return output.place(np.clip(away, -limit, limit))


def _dequantize(data: Operand) -> Array:
    """Steps from the zero point times the scale."""
    return data.real


def _dequantize_in_two_products(data: Operand) -> Array:
    """TFLite's optimised kernel: ``q * s + (-z * s)``, each rounded (``internal/optimized/optimized_ops.h``)."""
    offset = np.float32(-data.zero_point) * data.scale
    real: Array = data.values.astype(np.float32) * data.scale + offset
    return real


def _requantize_dividing(data: Operand, output: Output) -> Array:
    return _quantize_dividing(data.real, output)


def _requantize_by_ratio(data: Operand, output: Output) -> Array:
    """XNNPACK's ``qs8-vcvt``: an 8-bit fixed-point ratio, rounded half upward (``xnn_init_qs8_cvt_scalar_params``)."""
    multiplier = int(np.rint(np.float32(256.0) * (data.scale / output.scale)))
    return output.place((data.steps * multiplier + 128) >> 8)


def _requantize_by_fixed_point(data: Operand, output: Output) -> Array:
    """TFLite's ``Requantize`` (``internal/reference/requantize.h``)."""
    multiplier, shift = fixed_point(float(data.scale) / float(output.scale))
    return output.place(requantization.multiply_rounding_twice(data.steps, multiplier, shift))


def _requantize_simulated(data: Operand, output: Output) -> Array:
    return requantization.quantize_simulated(data.real, output)


def _softmax_simulated(data: Operand, output: Output, *, axis: int, beta: float) -> Array:
    real = data.real.astype(np.float64) * beta
    powers = np.exp(real - real.max(axis, keepdims=True))
    return requantization.quantize_simulated((powers / powers.sum(axis, keepdims=True)).astype(np.float32), output)


def _softmax_dividing(data: Operand, output: Output, *, axis: int, beta: float) -> Array:
    real = data.real.astype(np.float64) * beta
    powers = np.exp(real - real.max(axis, keepdims=True))
    return _quantize_dividing((powers / powers.sum(axis, keepdims=True)).astype(np.float32), output)


ONNX_RUNTIME = Rules(
    name="ONNX Runtime",
    convolution=requantization.by_float,
    depthwise=requantization.by_float,
    transposed=requantization.by_float,
    linear=requantization.by_float,
    matmul=requantization.by_float,
    add=elementwise.add_by_fma,
    multiply=elementwise.multiply_by_float_ratio,
    mean=pooling.mean_by_float,
    spatial_mean=pooling.mean_by_float,
    average=pooling.average_by_float,
    requantize=_requantize_dividing,
    rescaled_clamp=_requantize_dividing,
    softmax=_softmax_dividing,
    quantize=_quantize_dividing,
    dequantize=_dequantize,
)
XNNPACK = Rules(
    name="XNNPACK",
    convolution=requantization.by_float,
    depthwise=requantization.by_float,
    transposed=requantization.by_float,
    linear=requantization.by_float,
    matmul=requantization.by_two_roundings,
    add=elementwise.add_by_fixed_point,
    multiply=elementwise.multiply_by_float,
    mean=pooling.mean_by_ratio,
    spatial_mean=pooling.mean_by_ratio,
    average=pooling.average_half_away,
    requantize=_requantize_by_ratio,
    rescaled_clamp=_requantize_by_fixed_point,
    softmax=softmax,
    quantize=_quantize_by_reciprocal,
    dequantize=_dequantize,
)
TFLITE_REFERENCE = Rules(
    name="TFLite reference kernels",
    convolution=requantization.by_two_roundings,
    depthwise=requantization.by_two_roundings,
    transposed=requantization.by_two_roundings,
    linear=requantization.by_one_rounding,
    matmul=requantization.by_two_roundings,
    add=elementwise.add_by_three_products,
    multiply=elementwise.multiply_by_two_roundings,
    mean=pooling.mean_by_fixed_point,
    spatial_mean=pooling.mean_by_fixed_point,
    average=pooling.average_half_away,
    requantize=_requantize_by_fixed_point,
    rescaled_clamp=_requantize_by_fixed_point,
    softmax=_softmax_simulated,
    quantize=_quantize_away,
    dequantize=_dequantize,
)
TFLITE = dataclasses.replace(
    TFLITE_REFERENCE,
    name="TFLite built-in kernels",
    convolution=requantization.by_two_upward,
    depthwise=requantization.by_two_upward_in_lanes,
    transposed=requantization.by_two_upward_in_lanes,
    linear=requantization.by_two_upward,
    spatial_mean=pooling.mean_by_rounded_zero_point,
    softmax=softmax,
    dequantize=_dequantize_in_two_products,
)
SIMULATION = Rules(
    name="simulation",
    convolution=requantization.by_simulation,
    depthwise=requantization.by_simulation,
    transposed=requantization.by_simulation,
    linear=requantization.by_simulation,
    matmul=requantization.by_simulation,
    add=elementwise.add_by_simulation,
    multiply=elementwise.multiply_by_simulation,
    mean=pooling.mean_by_simulation,
    spatial_mean=pooling.mean_by_simulation,
    average=pooling.average_by_simulation,
    requantize=_requantize_simulated,
    rescaled_clamp=_requantize_simulated,
    softmax=_softmax_simulated,
    quantize=requantization.quantize_simulated,
    dequantize=_dequantize,
)
_WORDS: dict[object, str] = {
    requantization.by_float: "float32 multiplier, half to even",
    requantization.by_one_rounding: "fixed-point multiplier, rounded once upward",
    requantization.by_two_roundings: "fixed-point multiplier, rounded twice away from zero",
    requantization.by_two_upward: "fixed-point multiplier, rounded twice upward",
    requantization.by_two_upward_in_lanes: "fixed-point multiplier, rounded twice upward",
    requantization.by_simulation: "float32 graph",
    elementwise.add_by_fma: "float32 fused multiply-add, half to even",
    elementwise.add_by_fixed_point: "21-bit fixed point, half upward",
    elementwise.add_by_three_products: "three fixed-point products, each rounded twice",
    elementwise.add_by_simulation: "float32 graph",
    elementwise.multiply_by_float: "float32 multiplier, half to even",
    elementwise.multiply_by_float_ratio: "float32 multiplier, zero point added before rounding",
    elementwise.multiply_by_two_roundings: "fixed-point multiplier, rounded twice away from zero",
    elementwise.multiply_by_simulation: "float32 graph",
    pooling.mean_by_float: "float32 multiplier, half to even",
    pooling.mean_by_ratio: "float32 multiplier, half to even",
    pooling.mean_by_fixed_point: "fixed-point multiplier, rounded twice away from zero",
    pooling.mean_by_rounded_zero_point: "fixed-point multiplier, zero point rounded",
    pooling.mean_by_simulation: "float32 graph",
    pooling.average_half_away: "integer division, half away from zero",
    pooling.average_by_float: "float32 mean, half to even",
    pooling.average_by_simulation: "float32 graph",
    _requantize_dividing: "float32 division, half to even",
    _requantize_by_ratio: "8-bit fixed-point ratio, half upward",
    _requantize_by_fixed_point: "fixed-point multiplier, rounded twice away from zero",
    _requantize_simulated: "float32 graph",
    _quantize_dividing: "float32 division, half to even",
    _quantize_by_reciprocal: "float32 reciprocal, half to even",
    _quantize_away: "float32 division, half away from zero",
    requantization.quantize_simulated: "float32 graph",
    softmax: "table of float32 exponentials, half away from zero",
    _softmax_dividing: "float32 softmax, half to even",
    _softmax_simulated: "float32 graph",
}
_FIELD_OF = {
    "add": "add", "average_pool": "average", "concatenate": "requantize", "convolution": "convolution", "linear": "linear",
    "matmul": "matmul", "rescaled_clamp": "rescaled_clamp",
    "mean": "mean", "multiply": "multiply", "quantize": "quantize", "requantize": "requantize", "softmax": "softmax",
    "table": "quantize", "transposed_convolution": "transposed",
}  # fmt: skip


def describe(rules: Rules, operation: Operation) -> str:
    """How a set of rules rounds in one operation, in words.

    >>> describe(XNNPACK, Operation("ADD", "add", ("a", "b"), ("c",)))
    '21-bit fixed point, half upward'
    >>> describe(XNNPACK, Operation("RESHAPE", "reshape", ("a",), ("b",)))
    'moves integers'
    """
    if operation.kernel not in _FIELD_OF:
        return "moves integers" if operation.kernel else ""
    field = _FIELD_OF[operation.kernel]
    if operation.kernel == "mean" and set(operation.options.get("axes") or ()) == {1, 2} and operation.options.get("keepdims"):
        field = "spatial_mean"
    if operation.kernel == "convolution" and operation.options.get("depthwise_layout"):
        field = "depthwise"
    return _WORDS[getattr(rules, field)]


RULES = {rules.name: rules for rules in (ONNX_RUNTIME, XNNPACK, TFLITE, TFLITE_REFERENCE, SIMULATION)}
"""All of them by name."""
