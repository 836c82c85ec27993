"""Integers on activations: every step of the grid, ties to the even neighbour, both ends."""

from __future__ import annotations

import numpy as np
from coreml_cases import Draw, Example, both_of, conforms, floats, integers, one_of, shapes
from hypothesis import strategies as st


def grid(draw: Draw, shape: tuple[int, ...], kind: str, dtype: str) -> tuple[dict, np.ndarray, np.ndarray]:
    """Scale and zero point of a tensor or a channel, as arguments and ready to broadcast."""
    per_channel = draw(st.booleans())
    count = (shape[1],) if per_channel else ()
    scale = np.asarray(2.0 ** integers(draw, count, -4, 0), dtype)  # powers of two: the quotient is exact
    zero = integers(draw, count, 0, 100).astype(kind) if draw(st.booleans()) else None
    spread = (1, -1, *[1] * (len(shape) - 2)) if per_channel else ()
    given = {"scale": scale if per_channel else scale[()]} | (
        {} if zero is None else {"zero_point": zero if per_channel else zero[()]}
    )
    given |= {"axis": one_of(draw, 1, 1 - len(shape))} if per_channel else {}
    offset = np.zeros(count) if zero is None else zero.astype(np.float64)
    return given, scale.astype(np.float64).reshape(spread), offset.reshape(spread)


@conforms("quantize")
def quantize(draw: Draw, op: str) -> Example:
    shape = shapes(draw, least=2)
    dtype, kind = one_of(draw, "float32", "float16"), one_of(draw, "int8", "uint8")
    given, scale, offset = grid(draw, shape, kind, dtype)
    x = (floats(draw, shape, -40, 40, dtype="float32") * 4).round() / 4 * np.broadcast_to(scale, shape)
    x = x.astype(dtype)
    steps = x.astype(np.float64) / scale
    low = np.floor(steps)
    even = np.where(low % 2 == 0, low, low + 1)
    nearest = np.where(steps - low == 0.5, even, np.floor(steps + 0.5))
    limits = (-128, 127) if kind == "int8" else (0, 255)
    expected = np.clip(nearest + offset, *limits)
    return Example(inputs={"input": x}, constants={**given, "output_dtype": kind}, expected=expected)


@conforms("dequantize")
def dequantize(draw: Draw, op: str) -> Example:
    shape = shapes(draw, least=2)
    dtype, kind = one_of(draw, "float32", "float16"), one_of(draw, "int8", "uint8")
    given, scale, offset = grid(draw, shape, kind, dtype)
    x = integers(draw, shape, *((-128, 127) if kind == "int8" else (0, 255)), dtype="int32").astype(kind)
    return Example(inputs={"input": x}, constants=given, expected=(x.astype(np.float64) - offset) * scale)


test_conforms, test_conforms_widely = both_of(__name__)
