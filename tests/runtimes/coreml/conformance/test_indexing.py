"""Gathering, scattering and ordering, one position at a time."""

from __future__ import annotations

import numpy as np
from coreml_cases import Array, Draw, Example, axis_of, both_of, conforms, floats, integers, one_of, shapes
from hypothesis import strategies as st

NARROW = ("int8", "uint8", "int16", "uint16", "int32", "float32", "float16")


def values(draw: Draw, shape: tuple[int, ...], opset: str) -> Array:
    kind = one_of(draw, *NARROW) if opset == "iOS17" else one_of(draw, "int32", "float32", "float16")
    return floats(draw, shape, dtype=kind) if kind.startswith("float") else integers(draw, shape, 0, 99, dtype=kind)


def indices(draw: Draw, shape: tuple[int, ...], size: int, opset: str) -> Array:
    """Up to iOS 16 negative indices count from the end; narrow types can be cast to from iOS 17 on."""
    kind = one_of(draw, "int32", "int16", "uint16", "int8", "uint8") if opset == "iOS17" else "int32"
    low = 0 if opset == "iOS17" or kind.startswith("u") else -size
    return integers(draw, shape, low, size - 1, dtype=kind)


@conforms("gather")
def gather(draw: Draw, op: str, opset: str) -> Example:
    shape = shapes(draw, least=1, most=4)
    x = values(draw, shape, opset)
    batch = draw(st.integers(0, min(2, x.ndim - 1))) if opset != "iOS15" else 0
    axis = draw(st.integers(batch, x.ndim - 1))
    where = indices(draw, (*shape[:batch], *shapes(draw, most=2)), shape[axis], opset)
    at = where.astype(int)
    if batch:
        expected = np.stack([np.take(x[lead], at[lead], axis - batch) for lead in np.ndindex(shape[:batch])])
        expected = expected.reshape(*shape[:batch], *expected.shape[1:])
    else:
        expected = np.take(x, at, axis)
    constants = {"axis": axis - x.ndim if draw(st.booleans()) and not batch else axis}
    constants |= {"batch_dims": batch} if opset != "iOS15" else {}
    return Example(inputs={"x": x, "indices": where}, constants=constants, expected=expected, inferred=not batch)


@conforms("gather_along_axis")
def gather_along_axis(draw: Draw, op: str, opset: str) -> Example:
    shape = shapes(draw)
    x, axis = values(draw, shape, opset), axis_of(draw, len(shape))
    own = list(shape)
    own[axis] = draw(st.integers(1, 5))
    where = indices(draw, tuple(own), shape[axis], opset)
    expected = np.take_along_axis(x, where.astype(int), axis)
    return Example(inputs={"x": x, "indices": where}, constants={"axis": axis}, expected=expected)


@conforms("gather_nd")
def gather_nd(draw: Draw, op: str, opset: str) -> Example:
    shape = shapes(draw, least=2)
    x = values(draw, shape, opset)
    batch = draw(st.integers(0, x.ndim - 2)) if opset != "iOS15" else 0
    depth = draw(st.integers(1, x.ndim - batch))
    lead = (*shape[:batch], *shapes(draw, least=1, most=2))
    columns = [indices(draw, lead, shape[batch + axis], "iOS17" if opset == "iOS17" else opset) for axis in range(depth)]
    where = np.stack([column.astype(columns[0].dtype) for column in columns], axis=-1)
    if columns[0].dtype.kind == "u":
        where = np.abs(np.stack([column.astype(int) for column in columns], -1)).astype(columns[0].dtype)
        where = np.minimum(where, np.array(shape[batch : batch + depth]) - 1).astype(columns[0].dtype)
    expected = np.zeros((*lead, *shape[batch + depth :]), x.dtype)
    for at in np.ndindex(lead):
        expected[at] = x[(*at[:batch], *(int(i) for i in where[at]))]
    constants = {"batch_dims": batch} if opset != "iOS15" else {}
    return Example(inputs={"x": x, "indices": where}, constants=constants, expected=expected)


MODES = ("add", "sub", "mul", "div", "max", "min", "update")


def combine(mode: str, before: Array, update: Array) -> Array:
    functions = {
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "max": np.maximum, "min": np.minimum,
        "update": lambda _, new: new,
    }  # fmt: skip
    return functions[mode](before, update)


def scattered(draw: Draw, shape: tuple[int, ...]) -> tuple[Array, str]:
    mode = one_of(draw, *MODES)
    data = floats(draw, shape, 0.5, 2) if mode == "div" or draw(st.booleans()) else integers(draw, shape, -5, 5)
    return data, mode


def updates_for(draw: Draw, shape: tuple[int, ...], data: Array) -> Array:
    return floats(draw, shape, 0.5, 2, dtype=str(data.dtype)) if data.dtype.kind == "f" else integers(draw, shape, -5, 5)


@conforms("scatter")
def scatter(draw: Draw, op: str, opset: str) -> Example:
    data, mode = scattered(draw, shapes(draw))
    axis = axis_of(draw, data.ndim)
    size = data.shape[axis]
    count = draw(st.integers(1, size if mode == "update" else 5))
    where = np.random.default_rng(0).permutation(size)[:count] if mode == "update" else integers(draw, (count,), 0, size - 1)
    shape = list(data.shape)
    shape[axis] = count
    updates = updates_for(draw, tuple(shape), data)
    whole = np.moveaxis(data.astype(np.float64), axis, 0).copy()
    for position, target in enumerate(where):
        whole[target] = combine(mode, whole[target], np.moveaxis(updates.astype(np.float64), axis, 0)[position])
    where = where.astype(np.int32)
    if count % 2 == 0 and draw(st.booleans()):  # indices of two axes put two axes into the updates
        where, place = where.reshape(2, -1), axis % data.ndim
        updates = updates.reshape(*shape[:place], 2, -1, *shape[place + 1 :])
    inputs = {"data": data, "indices": where, "updates": updates}
    constants = {"axis": axis, "mode": mode} | ({"validate_indices": draw(st.booleans())} if opset == "iOS17" else {})
    return Example(inputs=inputs, constants=constants, expected=np.moveaxis(whole, 0, axis), rtol=1e-4)


@conforms("scatter_along_axis")
def scatter_along_axis(draw: Draw, op: str) -> Example:
    data, mode = scattered(draw, shapes(draw))
    axis = axis_of(draw, data.ndim)
    size = data.shape[axis]
    own = list(data.shape)
    own[axis] = draw(st.integers(1, size if mode == "update" else 5))
    if mode == "update":  # which of several updates of one place stays is not documented
        order = np.random.default_rng(0).random(data.shape).argsort(axis)
        where = np.take(order, range(own[axis]), axis).astype(np.int32)
    else:
        where = integers(draw, tuple(own), 0, size - 1)
    updates, whole = updates_for(draw, tuple(own), data), data.astype(np.float64)
    for at in np.ndindex(*own):
        target = list(at)
        target[axis] = where[at]
        whole[tuple(target)] = combine(mode, whole[tuple(target)], float(updates[at]))
    inputs = {"data": data, "indices": where, "updates": updates}
    return Example(inputs=inputs, constants={"axis": axis, "mode": mode}, expected=whole, rtol=1e-4, inferred=False)


@conforms("scatter_nd")
def scatter_nd(draw: Draw, op: str) -> Example:
    data, mode = scattered(draw, shapes(draw))
    depth = draw(st.integers(1, data.ndim))
    lead = data.shape[:depth]
    total = int(np.prod(lead))
    count = draw(st.integers(1, total if mode == "update" else 5))
    flat = np.random.default_rng(0).permutation(total)[:count] if mode == "update" else integers(draw, (count,), 0, total - 1)
    where = np.stack(np.unravel_index(flat, lead), -1).astype(np.int32)
    updates, whole = updates_for(draw, (count, *data.shape[depth:]), data), data.astype(np.float64)
    for position, target in enumerate(where):
        whole[tuple(target)] = combine(mode, whole[tuple(target)], updates[position].astype(np.float64))
    inputs = {"data": data, "indices": where, "updates": updates}
    return Example(inputs=inputs, constants={"mode": mode}, expected=whole, rtol=1e-4)


@conforms("topk")
def topk(draw: Draw, op: str, opset: str) -> Example:
    shape = shapes(draw)
    kind = one_of(draw, *NARROW) if opset == "iOS17" else one_of(draw, "int32", "float32", "float16")
    x = np.random.default_rng(draw(st.integers(0, 99))).permutation(int(np.prod(shape))).reshape(shape).astype(kind)  # all differ
    axis, ascending = axis_of(draw, x.ndim), draw(st.booleans())
    k = draw(st.integers(1, shape[axis]))
    moved = np.moveaxis(x, axis, -1)
    ranked = np.array(sorted(range(moved.shape[-1]), key=lambda i: i))  # positions, then sorted row by row
    order = np.zeros(moved.shape, int)
    for row in np.ndindex(moved.shape[:-1]):
        order[row] = sorted(ranked, key=lambda i, row=row: moved[row][i], reverse=not ascending)
    picked = np.moveaxis(np.take_along_axis(moved, order, -1)[..., :k], -1, axis)
    places = np.moveaxis(order[..., :k], -1, axis)
    constants = {"k": k, "axis": axis, "ascending": ascending}
    expected = (picked, places)
    if opset != "iOS15" and draw(st.booleans()):
        constants["return_indices"] = False
        expected = picked
    elif opset == "iOS17" and draw(st.booleans()):
        constants["output_indices_dtype"] = "uint16"
    # its inference negates unsigned values to rank them
    return Example(inputs={"x": x}, constants=constants, expected=expected, inferred=not kind.startswith("u"))


@conforms("argsort")
def argsort(draw: Draw, op: str) -> Example:
    shape = shapes(draw)
    kind = one_of(draw, "int32", "float32", "float16")
    x = np.random.default_rng(draw(st.integers(0, 99))).permutation(int(np.prod(shape))).reshape(shape).astype(kind)
    axis, ascending = axis_of(draw, x.ndim), draw(st.booleans())
    moved = np.moveaxis(x, axis, -1)
    expected = np.zeros(moved.shape, np.int32)
    for row in np.ndindex(moved.shape[:-1]):
        expected[row] = sorted(range(moved.shape[-1]), key=lambda i, row=row: moved[row][i], reverse=not ascending)
    return Example(inputs={"x": x}, constants={"axis": axis, "ascending": ascending}, expected=np.moveaxis(expected, -1, axis))


test_conforms, test_conforms_widely = both_of(__name__)
