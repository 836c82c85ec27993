"""Branches, loops and lists: programs around each operation, and what plain Python makes of the same."""

from __future__ import annotations

import numpy as np
from coreml_cases import Draw, Example, both_of, conforms, floats, integers, one_of, shapes, wide
from hypothesis import strategies as st

MIL = {"float16": "fp16", "float32": "fp32"}


def scalar(mb, x):
    """A number out of a vector of one: model inputs have an axis at least."""
    return mb.squeeze(x=x, axes=[0])


@conforms("cond")
def cond(draw: Draw, op: str) -> Example:
    x, y = (floats(draw, shape, dtype="float32") for shape in [shapes(draw, most=3)] * 2)
    level = np.array([one_of(draw, -1.0, 0.5, 2.0)], np.float32)
    nested, weight = draw(st.booleans()), floats(draw, x.shape, dtype="float32")

    def build(mb, x, y, level):
        outer = mb.mul(x=x, y=y)  # a value of the block around, read inside

        def first():
            if not nested:
                return mb.add(x=outer, y=weight), y
            deeper = mb.greater(x=scalar(mb, level), y=1.0)
            return mb.cond(pred=deeper, _true_fn=lambda: (mb.add(x=outer, y=weight), y), _false_fn=lambda: (outer, x))

        return mb.cond(
            pred=mb.greater(x=scalar(mb, level), y=0.0), _true_fn=first, _false_fn=lambda: (mb.sub(x=x, y=weight), mb.relu(x=y))
        )

    a, b, w = wide(x), wide(y), wide(weight)
    expected = (a * b, a) if nested and level[0] <= 1 else (a * b + w, b)
    expected = expected if level[0] > 0 else (a - w, np.maximum(b, 0))
    return Example(inputs={"x": x, "y": y, "level": level}, expected=expected, build=build)


@conforms("while_loop")
def while_loop(draw: Draw, op: str) -> Example:
    x = floats(draw, shapes(draw, most=3), dtype=one_of(draw, "float32", "float16"))
    count, swap = np.array([draw(st.integers(0, 5))], np.int32), draw(st.booleans())
    step = x.dtype.type(0.25)

    def build(mb, x, count):
        end = scalar(mb, count)

        def body(i, a, b):
            first, second = mb.add(x=a, y=step), mb.mul(x=b, y=step)
            return (mb.add(x=i, y=1), second, first) if swap else (mb.add(x=i, y=1), first, second)

        return mb.while_loop(
            _cond=lambda i, a, b: mb.less(x=i, y=end), _body=body, loop_vars=(mb.identity(x=np.int32(0)), x, mb.identity(x=x))
        )

    a = b = x
    for _ in range(count[0]):
        first, second = (a + step).astype(x.dtype), (b * step).astype(x.dtype)
        a, b = (second, first) if swap else (first, second)
    return Example(inputs={"x": x, "count": count}, expected=(count.reshape(()), a, b), build=build)


@conforms("make_list", "list_write", "list_read", "list_length")
def lists(draw: Draw, op: str) -> Example:
    x = floats(draw, shapes(draw, most=3))
    length, grows = draw(st.integers(1, 4)), draw(st.booleans())
    at = draw(st.integers(0, length + 2 if grows else length - 1))

    def build(mb, x, index):
        made = mb.make_list(init_length=length, dynamic_length=grows, elem_shape=x.shape, dtype=MIL[str(expected[0].dtype)])
        there = scalar(mb, index)
        twice = mb.list_write(ls=mb.list_write(ls=made, index=there, value=x), index=there, value=mb.add(x=x, y=x))
        return mb.list_read(ls=twice, index=there), mb.identity(x=mb.list_length(ls=twice))

    expected = (x + x, np.array(max(length, at + 1), np.int32))
    return Example(inputs={"x": x, "index": np.array([at], np.int32)}, expected=expected, build=build)


@conforms("list_gather", "list_scatter")
def many(draw: Draw, op: str) -> Example:
    length, count = draw(st.integers(2, 6)), draw(st.integers(1, 4))
    x = floats(draw, (count, *shapes(draw, most=2)), dtype="float32")
    places = np.array(draw(st.permutations(range(max(length, count))))[:count], np.int32)
    picked = integers(draw, (draw(st.integers(1, 5)),), 0, length - 1)

    def build(mb, x, places, picked):
        made = mb.make_list(init_length=max(length, count), dynamic_length=False, elem_shape=x.shape[1:], dtype="fp32")
        return mb.list_gather(ls=mb.list_scatter(ls=made, indices=places, value=x), indices=picked)

    held = np.zeros((max(length, count), *x.shape[1:]), np.float32)
    held[places] = x
    return Example(inputs={"x": x, "places": places, "picked": picked}, expected=held[picked], build=build)


@conforms("const")
def const(draw: Draw, op: str) -> Example:
    x = floats(draw, shapes(draw, most=3), dtype="float32")
    held = floats(draw, x.shape, dtype="float32")
    return Example(inputs={"x": x}, expected=wide(x) + wide(held), build=lambda mb, x: mb.add(x=x, y=mb.const(val=held)))


test_conforms, test_conforms_widely = both_of(__name__)
