"""Operations that only move values, against numpy's indexing."""

from __future__ import annotations

import numpy as np
from coreml_cases import Array, Draw, Example, axis_of, both_of, conforms, floats, integers, one_of, shapes
from hypothesis import assume
from hypothesis import strategies as st

OLD = ("float32", "float16", "int32", "bool")
NEW = (*OLD, "int8", "uint8", "int16", "uint16")


def values(draw: Draw, shape: tuple[int, ...], opset: str = "iOS15") -> Array:
    kind = one_of(draw, *(NEW if opset in {"iOS17", "iOS18"} else OLD))
    return floats(draw, shape, dtype=kind) if kind.startswith("float") else integers(draw, shape, 0, 99).astype(kind)


@conforms("reshape")
def reshape(draw: Draw, op: str, opset: str) -> Example:
    x = values(draw, shapes(draw), opset)
    parts = [size for size in x.shape for size in ([size] if size < 4 else [2, 2])]
    wanted = draw(st.permutations(parts)) if draw(st.booleans()) else [x.size]
    asked = list(wanted)
    if draw(st.booleans()):
        asked[draw(st.integers(0, len(asked) - 1))] = -1
    elif len(wanted) == x.ndim and wanted[0] == x.shape[0]:
        asked[0] = 0
    return Example(inputs={"x": x}, constants={"shape": asked}, expected=x.ravel().reshape(wanted), inferred=x.size > 1)


@conforms("reshape_like")
def reshape_like(draw: Draw, op: str, opset: str) -> Example:
    first, second = floats(draw, shapes(draw, most=2)), floats(draw, shapes(draw, most=2))
    x = values(draw, (first.size * second.size,), opset)
    expected = x.reshape(first.shape + second.shape)

    def build(mb, x, ref_tensors):
        return mb.reshape_like(x=x, ref_tensors=ref_tensors, begins=(0, 0), ends=(first.ndim, 0), end_masks=(False, True))

    return Example(inputs={"x": x, "ref_tensors": [first, second]}, expected=expected, build=build)


@conforms("transpose")
def transpose(draw: Draw, op: str, opset: str) -> Example:
    x = values(draw, shapes(draw, most=5), opset)
    order = draw(st.permutations(range(x.ndim)))
    expected = np.zeros([x.shape[axis] for axis in order], x.dtype)
    for at in np.ndindex(x.shape):
        expected[tuple(at[axis] for axis in order)] = x[at]
    named = [axis - x.ndim if draw(st.booleans()) else axis for axis in order]
    return Example(inputs={"x": x}, constants={"perm": named}, expected=expected)


@conforms("expand_dims")
def expand_dims(draw: Draw, op: str, opset: str) -> Example:
    x = values(draw, shapes(draw, most=3), opset)
    count = draw(st.integers(1, 2))
    rank = x.ndim + count
    axes = sorted(draw(st.sets(st.integers(0, rank - 1), min_size=count, max_size=count)))
    rest = iter(x.shape)
    expected = x.reshape([1 if axis in axes else next(rest) for axis in range(rank)])
    named = [axis - rank if draw(st.booleans()) else axis for axis in axes]
    return Example(inputs={"x": x}, constants={"axes": named}, expected=expected)


@conforms("squeeze")
def squeeze(draw: Draw, op: str, opset: str) -> Example:
    shape = [draw(st.integers(2, 4)), *(one_of(draw, 1, 2) for _ in range(3))]
    x = values(draw, tuple(shape), opset)
    ones = [axis for axis, size in enumerate(shape) if size == 1]
    if not ones or draw(st.booleans()):
        return Example(inputs={"x": x}, expected=x.reshape([size for size in shape if size != 1]))
    axes = sorted(draw(st.sets(st.sampled_from(ones), min_size=1)))
    expected = x.reshape([size for axis, size in enumerate(shape) if axis not in axes])
    named = [axis - x.ndim if draw(st.booleans()) else axis for axis in axes]
    return Example(inputs={"x": x}, constants={"axes": named}, expected=expected)


@conforms("flatten2d")
def flatten2d(draw: Draw, op: str) -> Example:
    x = values(draw, shapes(draw, least=2))
    axis = draw(st.integers(-x.ndim + 1, x.ndim - 1))
    rows = int(np.prod(x.shape[: axis % x.ndim]))
    return Example(inputs={"x": x}, constants={"axis": axis}, expected=x.reshape(rows, -1))


@conforms("concat", "stack")
def join(draw: Draw, op: str) -> Example:
    shape, count = shapes(draw), draw(st.integers(1, 3))
    kind = one_of(draw, "float32", "float16", "int32", "bool")
    axis = axis_of(draw, len(shape))
    interleaved = op == "concat" and draw(st.booleans())
    parts = []
    for _ in range(count):
        own = list(shape)
        if op == "concat" and not interleaved:
            own[axis] = draw(st.integers(1, 3))
        parts.append(integers(draw, own, 0, 9).astype(kind))
    if op == "stack":
        axis = draw(st.integers(-len(shape) - 1, len(shape)))
        whole = np.zeros((count, *shape), kind)
        whole[:] = parts
        return Example(inputs={"values": parts}, constants={"axis": axis}, expected=np.moveaxis(whole, 0, axis))
    moved = [np.moveaxis(part, axis, 0) for part in parts]
    rows = (
        [row for group in zip(*moved, strict=True) for row in group] if interleaved else [row for part in moved for row in part]
    )
    expected = np.moveaxis(np.array(rows), 0, axis)
    return Example(inputs={"values": parts}, constants={"axis": axis, "interleave": interleaved}, expected=expected)


@conforms("split")
def split(draw: Draw, op: str) -> Example:
    shape = list(shapes(draw))
    axis = axis_of(draw, len(shape))
    even = draw(st.booleans())
    sizes = (
        [draw(st.integers(1, 3))] * draw(st.integers(2, 3)) if even else draw(st.lists(st.integers(1, 3), min_size=2, max_size=3))
    )
    shape[axis] = sum(sizes)
    x = values(draw, tuple(shape))
    moved, start, expected = np.moveaxis(x, axis, 0), 0, []
    for size in sizes:
        expected.append(np.moveaxis(moved[start : start + size], 0, axis))
        start += size
    constants = {"num_splits": len(sizes), "axis": axis} if even else {"split_sizes": sizes, "axis": axis}
    return Example(inputs={"x": x}, constants=constants, expected=tuple(expected))


@conforms("tile")
def tile(draw: Draw, op: str) -> Example:
    x = values(draw, shapes(draw, most=3))
    reps = [draw(st.integers(1, 3)) for _ in x.shape]
    grid = np.ix_(*(np.arange(size * count) % size for size, count in zip(x.shape, reps, strict=True)))
    return Example(inputs={"x": x}, constants={"reps": reps}, expected=x[grid])


@conforms("reverse")
def reverse(draw: Draw, op: str, opset: str) -> Example:
    x = values(draw, shapes(draw), opset)
    axes = sorted(draw(st.sets(st.integers(0, x.ndim - 1), min_size=1))) if draw(st.booleans()) else None
    turned = range(x.ndim) if axes is None else axes
    expected = x[tuple(slice(None, None, -1 if axis in turned else 1) for axis in range(x.ndim))]
    named = {} if axes is None else {"axes": [axis - x.ndim if draw(st.booleans()) else axis for axis in axes]}
    return Example(inputs={"x": x}, constants=named, expected=expected)


@conforms("pad")
def pad(draw: Draw, op: str) -> Example:
    mode = one_of(draw, "constant", "reflect", "replicate")
    x = floats(draw, tuple(draw(st.integers(2, 4)) for _ in range(draw(st.integers(1, 4)))))
    count = draw(st.integers(1, min(2, x.ndim) if mode != "constant" else x.ndim))
    pairs = [tuple(draw(st.integers(0, x.shape[axis] - 1)) for _ in range(2)) for axis in range(x.ndim - count, x.ndim)]
    whole = [(0, 0)] * (x.ndim - count) + pairs
    constants = {"pad": [amount for pair in pairs for amount in pair], "mode": mode}
    sources = []
    for size, (before, after) in zip(x.shape, whole, strict=True):
        at = np.arange(-before, size + after)
        bounce = np.abs(np.mod(at + size - 1, 2 * (size - 1)) - (size - 1))
        sources.append(bounce if mode == "reflect" else np.clip(at, 0, size - 1))
    expected = x[np.ix_(*sources)]
    if mode == "constant":
        value = constants["constant_val"] = x.dtype.type(1.5)
        inside = np.zeros(expected.shape, bool)
        inside[tuple(slice(before, before + size) for (before, _), size in zip(whole, x.shape, strict=True))] = True
        expected = np.where(inside, expected, value)
    return Example(inputs={"x": x}, constants=constants, expected=expected)


def window(draw: Draw, shape: tuple[int, ...]) -> tuple[dict[str, list], tuple]:
    """Arguments of a slice, and the index numpy takes for it."""
    given = {name: [] for name in ("begin", "end", "stride", "begin_mask", "end_mask", "squeeze_mask")}
    index = []
    for size in shape:
        step = one_of(draw, 1, 1, 2, -1, -2)
        first, last = draw(st.integers(0, size - 1)), draw(st.integers(0, size))
        low, high = min(first, last), max(first, last)
        if step < 0:
            begin, end = high - (high == size), low - 1  # a first position before the start cannot be written: the mask is
        else:
            begin, end = low, max(high, low + 1)
        no_begin, no_end, single = (draw(st.integers(0, 3)) == 0 for _ in range(3))
        single = single and not no_begin
        no_end = (no_end or end < 0) and not single
        negative = draw(st.booleans())
        given["begin"].append(begin - size if negative else begin)
        given["end"].append(0 if end < 0 else end - size if negative and end < size else end)
        given["stride"].append(1 if single else step)
        given["begin_mask"].append(no_begin)
        given["end_mask"].append(no_end)
        given["squeeze_mask"].append(single)
        index.append(begin if single else slice(None if no_begin else begin, None if no_end else end, step))
    return given, tuple(index)


@conforms("slice_by_index")
def slice_by_index(draw: Draw, op: str, opset: str) -> Example:
    x = values(draw, shapes(draw), opset)
    given, index = window(draw, x.shape)
    assume(not all(given["squeeze_mask"]) and x[index].size)
    return Example(inputs={"x": x}, constants=given, expected=x[index])


@conforms("slice_update")
def slice_update(draw: Draw, op: str, opset: str) -> Example:
    x = values(draw, shapes(draw), opset)
    given, index = window(draw, x.shape)
    assume(not all(given["squeeze_mask"]) and x[index].size)
    update = integers(draw, x[index].shape, 0, 9).astype(x.dtype)
    expected = x.copy()
    expected[index] = update
    return Example(inputs={"x": x, "update": update}, constants=given, expected=expected)


@conforms("slice_by_size")
def slice_by_size(draw: Draw, op: str, opset: str) -> Example:
    x = values(draw, shapes(draw), opset)
    begin = [draw(st.integers(0, size - 1)) for size in x.shape]
    size = [draw(st.integers(1, whole - first)) for whole, first in zip(x.shape, begin, strict=True)]
    rest = [draw(st.integers(0, 3)) == 0 for _ in size]
    index = tuple(slice(b, None if r else b + s) for b, s, r in zip(begin, size, rest, strict=True))
    constants = {"size": [-1 if r else s for s, r in zip(size, rest, strict=True)]}
    if draw(st.booleans()) and not any(rest):
        return Example(inputs={"x": x, "begin": np.array(begin, np.int32)}, constants=constants, expected=x[index])
    return Example(inputs={"x": x}, constants={"begin": begin, **constants}, expected=x[index])


@conforms("pixel_shuffle", "pixel_unshuffle", "depth_to_space", "space_to_depth")
def blocks(draw: Draw, op: str) -> Example:
    n, c, h, w, b = (draw(st.integers(1, 3)) for _ in range(5))
    b = max(b, 2)
    wide, deep = (n, c, h * b, w * b), (n, c * b * b, h, w)
    spread = op in {"pixel_shuffle", "depth_to_space"}
    x = floats(draw, deep if spread else wide)
    expected = np.zeros(wide if spread else deep, x.dtype)
    for i, j, y, z in np.ndindex(n, c, h * b, w * b):
        row, column = y % b, z % b
        channel = j * b * b + row * b + column if op.startswith("pixel") else (row * b + column) * c + j
        here, there = (i, j, y, z), (i, channel, y // b, z // b)
        expected[here if spread else there] = x[there if spread else here]
    name = {"pixel_shuffle": "upscale_factor", "pixel_unshuffle": "downscale_factor"}.get(op, "block_size")
    return Example(inputs={"x": x}, constants={name: np.uint32(b) if op == "pixel_unshuffle" else b}, expected=expected)


test_conforms, test_conforms_widely = both_of(__name__)
