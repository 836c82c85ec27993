"""Reductions against numpy, axis by axis."""

from __future__ import annotations

import functools

import numpy as np
from coreml_cases import Array, Draw, Example, axis_of, both_of, conforms, floats, integers, one_of, shapes, wide
from hypothesis import strategies as st

REDUCTIONS = {
    "reduce_sum": np.add.reduce, "reduce_prod": np.multiply.reduce, "reduce_max": np.maximum.reduce,
    "reduce_min": np.minimum.reduce,
    "reduce_mean": lambda x, axis: np.add.reduce(x, axis) / x.shape[axis],
    "reduce_l1_norm": lambda x, axis: np.add.reduce(np.abs(x), axis),
    "reduce_l2_norm": np.hypot.reduce,
    "reduce_log_sum_exp": np.logaddexp.reduce,
}  # fmt: skip
OF_INTEGERS = {"reduce_sum", "reduce_prod", "reduce_max", "reduce_min", "reduce_l1_norm", "reduce_sum_square"}


def chosen(draw: Draw, rank: int) -> list[int] | None:
    """Some axes, counted from either end; None for all."""
    if draw(st.integers(0, 3)) == 0:
        return None
    axes = draw(st.lists(st.integers(0, rank - 1), min_size=1, max_size=rank, unique=True))
    return [axis - rank if draw(st.booleans()) else axis for axis in axes]


def one_by_one(function: object, x: Array, axes: list[int], keep: bool) -> Array:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = function(x, axis)
        x = np.expand_dims(x, axis) if keep else x
    return x


@conforms(*REDUCTIONS, "reduce_sum_square", "reduce_log_sum")
def over_axes(draw: Draw, op: str) -> Example:
    shape = shapes(draw)
    whole = op in OF_INTEGERS and draw(st.booleans())
    x = integers(draw, shape, -3, 3) if whole else floats(draw, shape, 0.5 if op == "reduce_log_sum" else -2, 2)
    axes, keep = chosen(draw, x.ndim), draw(st.booleans())
    over = axes or list(range(x.ndim))
    after = {"reduce_log_sum": np.log}.get(op, lambda v: v)
    before = np.square if op == "reduce_sum_square" else np.positive
    values = before(x.astype(np.int64) if whole else wide(x))
    expected = after(one_by_one(REDUCTIONS.get(op, np.add.reduce), values, over, keep))
    constants = {"keep_dims": keep} | ({} if axes is None else {"axes": axes})
    if not keep and len(over) == x.ndim:  # a model output has an axis
        build = functools.partial(_with_axis, op=op, constants=constants)
        return Example(inputs={"x": x}, expected=expected.reshape(1), build=build, rtol=1e-4, atol=1e-4)
    return Example(inputs={"x": x}, constants=constants, expected=expected, rtol=1e-4, atol=1e-4)


def _with_axis(mb, x, *, op, constants):
    return mb.expand_dims(x=getattr(mb, op)(x=x, **constants), axes=[0])


@conforms("reduce_argmax", "reduce_argmin")
def argument(draw: Draw, op: str, opset: str) -> Example:
    shape = shapes(draw, least=2)
    x = one_of(draw, integers, floats)(draw, shape)
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(x.size)
    x = order.reshape(shape).astype(x.dtype)  # no two alike: which of equal values is taken is not documented
    axis, keep = axis_of(draw, x.ndim), draw(st.booleans())
    best = np.sort(np.moveaxis(x, axis, -1), -1)[..., -1 if op == "reduce_argmax" else 0]
    position = np.argwhere(np.moveaxis(x, axis, -1) == best[..., None])[:, -1].reshape(best.shape)
    expected = np.expand_dims(position, axis) if keep else position
    constants = {"axis": axis, "keep_dims": keep}
    kind = "int32"
    if opset == "iOS17" and draw(st.booleans()):
        kind = constants["output_dtype"] = one_of(draw, "int32", "uint16")
    return Example(inputs={"x": x}, constants=constants, expected=expected.astype(kind))


test_conforms, test_conforms_widely = both_of(__name__)
