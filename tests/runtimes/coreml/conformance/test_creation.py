"""Tensors from sizes and counters, running sums, and bands."""

from __future__ import annotations

import numpy as np
from coreml_cases import Draw, Example, booleans, both_of, conforms, floats, integers, one_of, shapes
from hypothesis import strategies as st


@conforms("shape")
def shape(draw: Draw, op: str) -> Example:
    x = floats(draw, shapes(draw, most=5))
    return Example(inputs={"x": x}, expected=np.array(x.shape, np.int32))


@conforms("fill")
def fill(draw: Draw, op: str) -> Example:
    sizes = shapes(draw)
    value = one_of(draw, np.float32(1.5), np.int32(-3), np.float16(0.25), True)
    if draw(st.booleans()):  # the sizes are computed at run time
        return Example(inputs={"shape": np.array(sizes, np.int32)}, constants={"value": value}, expected=np.full(sizes, value))
    x = floats(draw, (1,), dtype="float32")  # a program needs an input
    kind = type(value)

    def build(mb, x):
        return mb.fill(shape=np.array(sizes, np.int32), value=value), mb.identity(x=x)

    del kind
    return Example(inputs={"x": x}, expected=(np.full(sizes, value), x), build=build)


@conforms("fill_like")
def fill_like(draw: Draw, op: str) -> Example:
    x = one_of(draw, floats, integers)(draw, shapes(draw))
    value = one_of(draw, np.float32(1.5), np.int32(-3), np.float16(0.25), True)
    return Example(inputs={"ref_tensor": x}, constants={"value": value}, expected=np.full(x.shape, value))


@conforms("range_1d")
def range_1d(draw: Draw, op: str) -> Example:
    start, count = draw(st.integers(-5, 5)), draw(st.integers(1, 6))
    step = one_of(draw, 1, 2, 3, -1, -2)
    kind = one_of(draw, np.int32, np.float32)
    end = start + step * count - (np.sign(step) if abs(step) > 1 and draw(st.booleans()) else 0)
    expected = np.array([start + step * position for position in range(count)], kind)
    given = np.array([end], kind)

    def build(mb, end):
        bound = mb.squeeze(x=end, axes=[0])
        return mb.range_1d(start=kind(start), end=bound, step=kind(step))

    return Example(inputs={"end": given}, expected=expected, build=build)


@conforms("one_hot")
def one_hot(draw: Draw, op: str) -> Example:
    size = draw(st.integers(1, 5))
    indices = integers(draw, shapes(draw, most=3), 0, size - 1)
    on, off = one_of(draw, (np.float32(2), np.float32(-1)), (np.int32(7), np.int32(3)), (True, False))
    axis = draw(st.integers(-indices.ndim - 1, indices.ndim))
    picked = np.moveaxis(np.eye(size, dtype=bool)[indices], -1, axis)
    constants = {"one_hot_vector_size": size, "axis": axis, "on_value": on, "off_value": off}
    return Example(inputs={"indices": indices}, constants=constants, expected=np.where(picked, on, off))


@conforms("cumsum")
def cumsum(draw: Draw, op: str) -> Example:
    x = one_of(draw, floats, integers)(draw, shapes(draw))
    axis = draw(st.integers(-1, x.ndim - 1))
    exclusive, backwards = draw(st.booleans()), draw(st.booleans())
    moved = np.moveaxis(x.astype(np.float64), axis, 0)
    sums = np.zeros_like(moved)
    for at in range(len(moved)):
        if backwards:
            sums[at] = moved[at + exclusive :].sum(0)
        else:
            sums[at] = moved[: at + (not exclusive)].sum(0)
    return Example(
        inputs={"x": x}, constants={"axis": axis, "exclusive": exclusive, "reverse": backwards},
        expected=np.moveaxis(sums, 0, axis), atol=1e-5, inferred=not exclusive,  # its inference of exclusive sums raises
    )  # fmt: skip


@conforms("band_part")
def band_part(draw: Draw, op: str) -> Example:
    x = one_of(draw, floats, integers, booleans)(draw, shapes(draw, least=2))
    lower, upper = draw(st.integers(-1, 3)), draw(st.integers(-1, 3))
    keep = np.tri(*x.shape[-2:], k=upper if upper >= 0 else 99) - np.tri(*x.shape[-2:], k=-lower - 1 if lower >= 0 else -99)
    return Example(inputs={"x": x}, constants={"lower": lower, "upper": upper}, expected=x * keep.astype(x.dtype))


@conforms("non_zero")
def non_zero(draw: Draw, op: str) -> Example:
    x = one_of(draw, lambda d, s: integers(d, s, -1, 1), booleans)(draw, shapes(draw, most=3))
    expected = np.array([at for at in np.ndindex(x.shape) if x[at]], np.int32).reshape(-1, x.ndim)
    return Example(inputs={"x": x}, expected=expected)


test_conforms, test_conforms_widely = both_of(__name__)
