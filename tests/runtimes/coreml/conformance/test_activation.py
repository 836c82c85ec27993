"""Activations against their definitions in float64."""

from __future__ import annotations

import numpy as np
import scipy.special
from coreml_cases import Draw, Example, axis_of, both_of, conforms, floats, one_of, shapes, wide
from hypothesis import strategies as st

PLAIN = {
    "relu": lambda x: (x + np.abs(x)) / 2, "relu6": lambda x: np.clip(x, 0, 6), "sigmoid": scipy.special.expit,
    "silu": lambda x: x / (1 + np.exp(-x)), "softplus": lambda x: np.logaddexp(0, x), "softsign": lambda x: x / (1 + np.abs(x)),
}  # fmt: skip
ONE = {
    "elu": lambda x, a: np.where(x > 0, x, a * np.expm1(x)), "leaky_relu": lambda x, a: np.where(x > 0, x, a * x),
    "thresholded_relu": lambda x, a: x * (x >= a),
}  # fmt: skip
TWO = {
    "clamped_relu": lambda x, a, b: np.minimum(np.where(x >= 0, x, a * x), b), "linear_activation": lambda x, a, b: a * x + b,
    "scaled_tanh": lambda x, a, b: a * np.tanh(b * x), "sigmoid_hard": lambda x, a, b: np.minimum(np.maximum(a * x + b, 0), 1),
}  # fmt: skip


def number(draw: Draw, dtype: np.dtype, opset: str) -> np.generic:
    """A parameter; from iOS 17 on its type need not be the data's."""
    value = draw(st.integers(1, 20)) / 8  # exact in float16
    kinds = (np.float16, np.float32) if opset in {"iOS17", "iOS18"} else (dtype.type,)
    return one_of(draw, *kinds)(value)


@conforms(*PLAIN)
def plain(draw: Draw, op: str) -> Example:
    x = floats(draw, shapes(draw), -8, 8)
    return Example(inputs={"x": x}, expected=PLAIN[op](wide(x)))


@conforms(*ONE)
def one_parameter(draw: Draw, op: str, opset: str) -> Example:
    x = floats(draw, shapes(draw))
    alpha = number(draw, x.dtype, opset)
    return Example(inputs={"x": x}, constants={"alpha": alpha}, expected=ONE[op](wide(x), float(alpha)))


@conforms(*TWO)
def two_parameters(draw: Draw, op: str, opset: str) -> Example:
    x = floats(draw, shapes(draw))
    alpha, beta = number(draw, x.dtype, opset), number(draw, x.dtype, opset)
    beta = type(alpha)(beta)
    return Example(
        inputs={"x": x}, constants={"alpha": alpha, "beta": beta}, expected=TWO[op](wide(x), float(alpha), float(beta))
    )


@conforms("prelu", "softplus_parametric")
def by_channel(draw: Draw, op: str) -> Example:
    x = floats(draw, shapes(draw, least=3, most=5))
    count = x.shape[1]
    alpha, beta = floats(draw, (count,), 0.25, 2, dtype=str(x.dtype)), floats(draw, (count,), 0.25, 2, dtype=str(x.dtype))
    a, b = (wide(part).reshape(-1, *[1] * (x.ndim - 2)) for part in (alpha, beta))
    if op == "prelu":
        if x.ndim != 4:  # coremltools: values that differ need four axes
            alpha[:], a = alpha[0], wide(alpha[:1]).reshape(())
        return Example(inputs={"x": x}, constants={"alpha": alpha}, expected=np.maximum(wide(x), 0) + a * np.minimum(wide(x), 0))
    expected = a * np.log1p(np.exp(b * wide(x)))
    return Example(inputs={"x": x}, constants={"alpha": alpha, "beta": beta}, expected=expected)


@conforms("gelu")
def gelu(draw: Draw, op: str) -> Example:
    x = floats(draw, shapes(draw))
    mode, v = one_of(draw, "EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION", None), wide(x)
    expected = {
        "TANH_APPROXIMATION": 0.5 * v * (1 + np.tanh(np.sqrt(2 / np.pi) * (v + 0.044715 * v**3))),
        "SIGMOID_APPROXIMATION": v / (1 + np.exp(-1.702 * v)),
    }.get(mode, v * 0.5 * scipy.special.erfc(-v / np.sqrt(2)))
    return Example(inputs={"x": x}, constants={"mode": mode} if mode else {}, expected=expected, atol=1e-5)


@conforms("softmax")
def softmax(draw: Draw, op: str) -> Example:
    x = floats(draw, shapes(draw), -9, 9)
    axis = axis_of(draw, x.ndim)
    weights = np.exp(wide(x))
    return Example(inputs={"x": x}, constants={"axis": axis}, expected=weights / weights.sum(axis, keepdims=True))


test_conforms, test_conforms_widely = both_of(__name__)
