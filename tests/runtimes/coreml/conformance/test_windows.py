"""Blocks, windows and sequences, element by element."""

from __future__ import annotations

import numpy as np
from coreml_cases import Draw, Example, axis_of, both_of, conforms, floats, integers, one_of, shapes
from hypothesis import strategies as st


@conforms("space_to_batch")
def space_to_batch(draw: Draw, op: str) -> Example:
    high, wide = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    (top, left), (h, w) = ([draw(st.integers(0, 2)) for _ in range(2)], [draw(st.integers(1, 4)) for _ in range(2)])
    bottom, right = -(h + top) % high, -(w + left) % wide
    x = floats(draw, (draw(st.integers(1, 2)), 2, h, w))
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    parts = [padded[:, :, i::high, j::wide] for i in range(high) for j in range(wide)]
    constants = {"block_shape": np.int32([high, wide]), "paddings": np.int32([[top, bottom], [left, right]])}
    return Example(inputs={"x": x}, constants=constants, expected=np.concatenate(parts))


@conforms("batch_to_space")
def batch_to_space(draw: Draw, op: str) -> Example:
    high, wide, n = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    x = floats(draw, (n * high * wide, 2, draw(st.integers(2, 4)), draw(st.integers(2, 4))))
    crops = np.int32([[draw(st.integers(0, 1)) for _ in range(2)] for _ in range(2)])
    whole = np.zeros((n, 2, x.shape[2] * high, x.shape[3] * wide), x.dtype)
    for i in range(high):
        for j in range(wide):
            at = (i * wide + j) * n
            whole[:, :, i::high, j::wide] = x[at : at + n]
    (top, bottom), (left, right) = crops
    expected = whole[:, :, top : whole.shape[2] - bottom, left : whole.shape[3] - right]
    return Example(inputs={"x": x}, constants={"block_shape": np.int32([high, wide]), "crops": crops}, expected=expected)


@conforms("sliding_windows")
def sliding_windows(draw: Draw, op: str) -> Example:
    x = one_of(draw, floats, integers)(draw, shapes(draw, most=4, sizes=5))
    axis = axis_of(draw, x.ndim)
    size, stride = draw(st.integers(1, x.shape[axis])), draw(st.integers(1, 3))
    starts = range(0, x.shape[axis] - size + 1, stride)
    place = axis % x.ndim
    expected = np.stack([np.take(x, range(start, start + size), place) for start in starts], place)
    return Example(inputs={"x": x}, constants={"axis": axis, "size": size, "stride": stride}, expected=expected)


@conforms("reverse_sequence")
def reverse_sequence(draw: Draw, op: str) -> Example:
    x = one_of(draw, floats, integers)(draw, shapes(draw, least=2, most=4))
    sequence, batch = draw(st.permutations(range(x.ndim)))[:2]
    lengths = integers(draw, (x.shape[batch],), 0, x.shape[sequence])
    expected = x.copy()
    for position in np.ndindex(x.shape):
        length = lengths[position[batch]]
        if position[sequence] < length:
            source = list(position)
            source[sequence] = length - 1 - position[sequence]
            expected[position] = x[tuple(source)]
    axes = {"seq_axis": one_of(draw, sequence, sequence - x.ndim), "batch_axis": batch}
    return Example(inputs={"x": x, "lengths": lengths}, constants=axes, expected=expected)


test_conforms, test_conforms_widely = both_of(__name__)
