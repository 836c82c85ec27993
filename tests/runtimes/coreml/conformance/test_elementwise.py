"""Elementwise operations against numpy and scipy in float64."""

from __future__ import annotations

import numpy as np
import scipy.special
from coreml_cases import Array, Draw, Example, booleans, both_of, conforms, floats, integers, one_of, shapes, wide
from hypothesis import strategies as st

UNARY = {
    "abs": (np.abs, -4, 4), "acos": (np.arccos, -0.99, 0.99), "asin": (np.arcsin, -0.99, 0.99), "atan": (np.arctan, -4, 4),
    "atanh": (np.arctanh, -0.9, 0.9), "ceil": (np.ceil, -4, 4), "cos": (np.cos, -4, 4), "cosh": (np.cosh, -4, 4),
    "erf": (scipy.special.erf, -4, 4), "exp": (np.exp, -4, 4), "exp2": (np.exp2, -4, 4), "floor": (np.floor, -4, 4),
    "identity": (np.positive, -4, 4), "round": (np.rint, -4, 4), "sign": (np.sign, -4, 4), "sin": (np.sin, -4, 4),
    "sinh": (np.sinh, -4, 4), "sqrt": (np.sqrt, 0, 9), "square": (np.square, -4, 4), "tan": (np.tan, -1.2, 1.2),
    "tanh": (np.tanh, -4, 4),
}  # fmt: skip
OF_INTEGERS = {"abs", "sign", "square", "identity"}

ARITHMETIC = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "maximum": np.maximum, "minimum": np.minimum,
    "greater": np.greater, "greater_equal": np.greater_equal, "less": np.less, "less_equal": np.less_equal,
    "equal": np.equal, "not_equal": np.not_equal,
}  # fmt: skip
LOGIC = {"logical_and": np.logical_and, "logical_or": np.logical_or, "logical_xor": np.logical_xor}


def broadcast_pair(draw: Draw) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes numpy broadcasts; either may have fewer axes."""
    whole = shapes(draw)
    first, second = (tuple(1 if draw(st.integers(0, 3)) == 0 else size for size in whole) for _ in range(2))
    cut = draw(st.integers(0, len(whole) - 1))
    return (first[cut:], second) if draw(st.booleans()) else (first, second[cut:])


def split(draw: Draw, x: Array, y: Array) -> dict[str, dict[str, Array]]:
    """The second operand at run time, or written into the file."""
    return {"inputs": {"x": x}, "constants": {"y": y}} if draw(st.booleans()) else {"inputs": {"x": x, "y": y}}


@conforms(*UNARY)
def unary(draw: Draw, op: str) -> Example:
    function, low, high = UNARY[op]
    shape = shapes(draw, most=5)
    if op in OF_INTEGERS and draw(st.booleans()):
        x = integers(draw, shape)
        return Example(inputs={"x": x}, expected=function(x))
    x = floats(draw, shape, low, high)
    if op == "round" and draw(st.booleans()):
        x = (np.rint(x) + x.dtype.type(0.5)).astype(x.dtype)  # ties go to the even neighbour
    return Example(inputs={"x": x}, expected=function(wide(x)))


@conforms("logical_not")
def negation(draw: Draw, op: str) -> Example:
    x = booleans(draw, shapes(draw))
    return Example(inputs={"x": x}, expected=~x)


@conforms(*ARITHMETIC)
def arithmetic(draw: Draw, op: str) -> Example:
    first, second = broadcast_pair(draw)
    if draw(st.booleans()):
        x, y = integers(draw, first, -3, 3), integers(draw, second, -3, 3)
        return Example(**split(draw, x, y), expected=ARITHMETIC[op](x, y))
    x = floats(draw, first)
    y = floats(draw, second, dtype=str(x.dtype))
    if op in {"equal", "not_equal", "greater_equal", "less_equal"}:
        x, y = np.rint(x), np.rint(y)
    return Example(**split(draw, x, y), expected=ARITHMETIC[op](wide(x), wide(y)))


@conforms(*LOGIC)
def logic(draw: Draw, op: str) -> Example:
    first, second = broadcast_pair(draw)
    x, y = booleans(draw, first), booleans(draw, second)
    return Example(**split(draw, x, y), expected=LOGIC[op](x, y))


@conforms("real_div", "floor_div", "mod")
def division(draw: Draw, op: str) -> Example:
    first, second = broadcast_pair(draw)
    of_integers = draw(st.booleans())
    x = integers(draw, first) if of_integers else floats(draw, first)
    size = integers(draw, second, 1, 4) if of_integers else floats(draw, second, 0.5, 3, dtype=str(x.dtype))
    y = (size * np.where(booleans(draw, second), 1, -1)).astype(x.dtype)
    quotient = wide(x) / wide(y)
    found = {"real_div": np.trunc(quotient) if of_integers else quotient, "floor_div": np.floor(quotient)}
    # coremltools infers the quotient of integers by rounding down in one place and as a float in another
    return Example(
        **split(draw, x, y), expected=found.get(op, wide(x) - np.floor(quotient) * wide(y)), atol=1e-5,
        inferred=not of_integers,
    )  # fmt: skip


@conforms("pow")
def power(draw: Draw, op: str) -> Example:
    first, second = broadcast_pair(draw)
    if draw(st.booleans()):
        x, y = integers(draw, first, -4, 4), integers(draw, second, 0, 3)
        return Example(**split(draw, x, y), expected=x.astype(np.int64) ** y)
    x = floats(draw, first, 0.1, 3)
    y = floats(draw, second, -2, 2, dtype=str(x.dtype))
    return Example(**split(draw, x, y), expected=np.exp(wide(y) * np.log(wide(x))))


@conforms("log", "inverse", "rsqrt")
def with_epsilon(draw: Draw, op: str) -> Example:
    x = floats(draw, shapes(draw), 0.1, 4)
    given = draw(st.booleans())
    default = {"log": 1e-45, "inverse": 1e-4, "rsqrt": 1e-12}[op]
    epsilon = x.dtype.type(0.25) if given else x.dtype.type(default)
    whole = wide(x) + (float(epsilon) if given or op == "inverse" else 0)
    expected = {"log": np.log, "inverse": np.reciprocal, "rsqrt": lambda v: v**-0.5}[op](whole)
    return Example(inputs={"x": x}, constants={"epsilon": epsilon} if given else {}, expected=expected, atol=1e-5)


@conforms("clip", "threshold")
def limits(draw: Draw, op: str) -> Example:
    x = integers(draw, shapes(draw)) if op == "threshold" and draw(st.booleans()) else floats(draw, shapes(draw))
    low, high = x.dtype.type(-1), x.dtype.type(2)
    constants = {"alpha": low, "beta": high} if op == "clip" else {"alpha": low}
    expected = np.minimum(np.maximum(x, low), high) if op == "clip" else np.maximum(x, low)
    return Example(inputs={"x": x}, constants=constants, expected=expected)


@conforms("select")
def select(draw: Draw, op: str) -> Example:
    shape = shapes(draw)
    cond = booleans(draw, shape)
    kind = one_of(draw, "float32", "float16", "int32", "bool")
    parts = [np.asarray(integers(draw, shape, 0, 9), kind) for _ in range(2)]
    a, b = parts
    return Example(inputs={"cond": cond, "a": a, "b": b}, expected=np.choose(cond.astype(int), [b, a]))


TYPES = {"fp16": "float16", "fp32": "float32", "int32": "int32", "bool": "bool"}
NARROW = {"int8": "int8", "uint8": "uint8", "int16": "int16", "uint16": "uint16"}


@conforms("cast")
def cast(draw: Draw, op: str, opset: str) -> Example:
    known = TYPES if opset in {"iOS15", "iOS16"} else TYPES | NARROW
    source, wanted = one_of(draw, *known.values()), one_of(draw, *known)
    low = 0 if "u" in source or "u" in known[wanted] else -100
    x = integers(draw, shapes(draw), low, 100).astype(source)
    if source.startswith("float"):
        x = (x / 3).astype(source)  # a conversion to an integer cuts the fraction off
    return Example(inputs={"x": x}, constants={"dtype": wanted}, expected=x.astype(known[wanted]))


test_conforms, test_conforms_widely = both_of(__name__)
