"""Functions of one variable by a table of all integers, and softmax.

An 8-bit function is a table of 256 entries in every runtime; what differs is the arithmetic that fills it. Softmax sums float32
exponentials in a runtime's own order, so that its last bit is not modelled: an answer half-way between two integers may fall to
either side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edgekit.core.tensors import Array
    from edgekit.runtimes.exact.elementwise import Operand
    from edgekit.runtimes.exact.requantization import Output

__all__ = ["FUNCTIONS", "look_up", "softmax"]

_HALF = np.float32(0.5)


def _logistic(real: Array) -> Array:
    value: Array = 1.0 / (1.0 + np.exp(-real.astype(np.float64)))
    return value


def _tanh(real: Array) -> Array:
    value: Array = np.tanh(real.astype(np.float64))
    return value


def _hard_swish(real: Array) -> Array:
    wide = real.astype(np.float64)
    value: Array = wide * np.clip(wide + 3.0, 0.0, 6.0) / 6.0
    return value


def _hard_sigmoid(real: Array) -> Array:
    value: Array = np.clip(real.astype(np.float64) / 6.0 + 0.5, 0.0, 1.0)
    return value


def _relu(real: Array) -> Array:
    return np.maximum(real.astype(np.float64), 0.0)


def _gelu(real: Array) -> Array:
    wide = real.astype(np.float64)
    value: Array = 0.5 * wide * (1.0 + np.array([math.erf(one / math.sqrt(2.0)) for one in wide.tolist()]))
    return value


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": _gelu, "hard_sigmoid": _hard_sigmoid, "hard_swish": _hard_swish, "logistic": _logistic, "relu": _relu, "tanh": _tanh,
}  # fmt: skip
"""Name -> function of real numbers ``[256]``, in float64."""


def look_up(data: Operand, function: str, output: Output, quantize: Callable[[Array, Output], Array]) -> Array:
    """A function of every integer the type has, quantized; then the entries of the data.

    Args:
        data: 8-bit integers and their grid.
        function: Name in :data:`FUNCTIONS`.
        output: Grid of the result.
        quantize: The runtime's rounding of real numbers.
    """
    limits = np.iinfo(data.values.dtype)
    integers = np.arange(int(limits.min), int(limits.max) + 1)
    real = (integers - data.zero_point).astype(np.float32) * data.scale
    entries = quantize(FUNCTIONS[function](real).astype(np.float32), output)
    found: Array = entries[data.values.astype(np.int64) - int(limits.min)]
    return found


def softmax(data: Operand, output: Output, *, axis: int, beta: float) -> Array:
    """Softmax by a table of exponentials (``internal/optimized/optimized_ops.h``, ``PopulateSoftmaxLookupTable``).

    Exponentials of the distance from the largest value, summed in order, times ``1 / (sum * scale)``, half away from zero.
    """
    distance = data.values.astype(np.int64).max(axis, keepdims=True) - data.values.astype(np.int64)
    table = np.exp((-data.scale * np.float32(beta) * np.arange(256, dtype=np.float32)).astype(np.float64)).astype(np.float32)
    powers = np.moveaxis(table[distance], axis, -1)
    total = np.zeros(powers.shape[:-1], np.float32)
    for at in range(powers.shape[-1]):
        total = total + powers[..., at]
    steps = powers * (np.float32(1.0) / (total * output.scale))[..., None]
    return np.moveaxis(output.place(np.floor(steps + _HALF)), -1, axis)
