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
What XNNPACK does not take (products of two computed matrices, average pooling, softmax, 16-bit activations) runs in TFLite's
kernels there too. ONNX Runtime computes 16-bit activations in float32, in an order of its own.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from edgekit.runtimes.exact import elementwise, grids, pooling, requantization
from edgekit.runtimes.exact.elementwise import Elementwise, Operand
from edgekit.runtimes.exact.graph import Operation
from edgekit.runtimes.exact.pooling import Averager, WindowAverager
from edgekit.runtimes.exact.requantization import Output, Requantizer
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
        leaky_relu: Leaky ReLU, its slope below zero given.
        softmax: Softmax of integers.
        quantize: float32 -> integers.
        dequantize: Integers -> float32.
        wide: Rules for results of 16 bits, where they are others.
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
    leaky_relu: Callable[[Operand, float, Output], Array]
    softmax: Callable[..., Array]
    quantize: Callable[[Array, Output], Array]
    dequantize: Callable[[Operand], Array]
    wide: Rules | None = None

    def of(self, dtype: str) -> Rules:
        """The rules for results of a type."""
        return self.wide if self.wide is not None and dtype in {"int16", "uint16"} else self


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
    requantize=grids.requantize_dividing,
    rescaled_clamp=grids.requantize_dividing,
    leaky_relu=grids.leaky_dividing,
    softmax=grids.softmax_dividing,
    quantize=grids.quantize_dividing,
    dequantize=grids.dequantize,
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
    requantize=grids.requantize_by_fixed_point,
    rescaled_clamp=grids.requantize_by_fixed_point,
    leaky_relu=grids.leaky_by_fixed_point,
    softmax=grids.softmax_simulated,
    quantize=grids.quantize_away,
    dequantize=grids.dequantize,
)
_TFLITE_WIDE = dataclasses.replace(
    TFLITE_REFERENCE,
    convolution=requantization.by_short_multiplier,
    depthwise=requantization.by_short_multiplier,
    transposed=requantization.by_short_multiplier,
    matmul=requantization.by_short_multiplier,
)
"""16-bit activations, which XNNPACK does not take and no kernel is optimised for."""
TFLITE_REFERENCE = dataclasses.replace(TFLITE_REFERENCE, wide=_TFLITE_WIDE)
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
    requantize=grids.requantize_by_ratio,
    rescaled_clamp=grids.requantize_by_fixed_point,
    leaky_relu=grids.leaky_by_ratios,
    softmax=softmax,
    quantize=grids.quantize_by_reciprocal,
    dequantize=grids.dequantize,
    wide=_TFLITE_WIDE,
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
    dequantize=grids.dequantize_in_two_products,
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
    requantize=grids.requantize_simulated,
    rescaled_clamp=grids.requantize_simulated,
    leaky_relu=grids.leaky_simulated,
    softmax=grids.softmax_simulated,
    quantize=requantization.quantize_simulated,
    dequantize=grids.dequantize,
)
ONNX_RUNTIME = dataclasses.replace(
    ONNX_RUNTIME,
    wide=dataclasses.replace(
        ONNX_RUNTIME,
        convolution=requantization.by_simulation,
        depthwise=requantization.by_simulation,
        transposed=requantization.by_simulation,
        linear=requantization.by_simulation,
        matmul=requantization.by_simulation,
        add=elementwise.add_by_simulation,
        multiply=elementwise.multiply_by_simulation,
        mean=pooling.mean_by_simulation,
        spatial_mean=pooling.mean_by_simulation,
    ),
)
_WORDS: dict[object, str] = {
    requantization.by_float: "float32 multiplier, half to even",
    requantization.by_one_rounding: "fixed-point multiplier, rounded once upward",
    requantization.by_two_roundings: "fixed-point multiplier, rounded twice away from zero",
    requantization.by_two_upward: "fixed-point multiplier, rounded twice upward",
    requantization.by_two_upward_in_lanes: "fixed-point multiplier, rounded twice upward",
    requantization.by_short_multiplier: "15-bit multiplier, half upward",
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
    grids.requantize_dividing: "float32 division, half to even",
    grids.requantize_by_ratio: "8-bit fixed-point ratio, half upward",
    grids.requantize_by_fixed_point: "fixed-point multiplier, rounded twice away from zero",
    grids.requantize_simulated: "float32 graph",
    grids.quantize_dividing: "float32 division, half to even",
    grids.quantize_by_reciprocal: "float32 reciprocal, half to even",
    grids.quantize_away: "float32 division, half away from zero",
    requantization.quantize_simulated: "float32 graph",
    grids.leaky_by_ratios: "8-bit fixed-point ratios, half upward",
    grids.leaky_by_fixed_point: "fixed-point multipliers, rounded twice away from zero",
    grids.leaky_dividing: "float32 division, half to even",
    grids.leaky_simulated: "float32 graph",
    softmax: "table of float32 exponentials, half away from zero",
    grids.softmax_dividing: "float32 softmax, half to even",
    grids.softmax_simulated: "float32 graph",
}
_FIELD_OF = {
    "add": "add", "average_pool": "average", "concatenate": "requantize", "convolution": "convolution",
    "leaky_relu": "leaky_relu", "linear": "linear", "matmul": "matmul", "mean": "mean", "multiply": "multiply",
    "quantize": "quantize", "requantize": "requantize", "rescaled_clamp": "rescaled_clamp", "softmax": "softmax",
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
