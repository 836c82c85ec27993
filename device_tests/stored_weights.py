"""Which constant of a file is which weight of the contract, found by what it holds, in any layout.

A weight that is there unchanged is found by its integers. One that was altered, or left in float, is the constant of the same
sizes that resembles it most, so that the audit can name the layer and say what became of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgekit.core.stored import StoredConstant

if TYPE_CHECKING:
    from edgekit.core.contract import TensorQuantization
    from edgekit.core.tensors import Array
    from edgekit.device_tests.claims import Claim

__all__ = ["decode", "find", "same_scales", "snr_db"]

_RESEMBLES_DB = 6.0
"""Below, the difference is more than half of the weight itself."""
_LIMIT_DB = 200.0  # equal floats have no noise; JSON has no infinity
_ROUNDING = 2.0**-10
"""Scales that were rounded to float16 differ by at most half of this."""


def find(claim: Claim, constants: Sequence[StoredConstant], *, taken: Iterable[str]) -> tuple[StoredConstant, Array] | None:
    """The constant that is a weight, with its stored values in the program's layout.

    Args:
        claim: The weight.
        constants: Of the file.
        taken: Names that are other weights already; only an equal one may be used twice.
    """
    used = set(taken)
    equal = [pair for constant in constants for pair in _equal(claim, constant)]
    if equal:
        fitting = [pair for pair in equal if same_scales(claim.entry, pair[0])] or equal
        return min(fitting, key=lambda pair: pair[0].name in used)
    expected = decode(claim.entry, claim.values, None)
    ranked = [
        (snr_db(expected, decode(claim.entry, values, constant)), constant.name, constant, values)
        for constant in constants
        if constant.name not in used
        for values in _layouts(constant.values, claim.values.shape)
    ]
    best = max(ranked, key=lambda row: row[:2], default=None)
    return (best[2], best[3]) if best is not None and best[0] >= _RESEMBLES_DB else None


def _equal(claim: Claim, constant: StoredConstant) -> Iterator[tuple[StoredConstant, Array]]:
    values = constant.values
    if (values.dtype.kind == "f") != (claim.values.dtype.kind == "f"):
        return
    orders = list(_layouts(values, claim.values.shape))
    if not orders or np.count_nonzero(values - _offset(constant)) != np.count_nonzero(claim.values):
        return  # quick; to compare element by element in every order is not
    for moved in orders:
        if np.array_equal(moved - _offset(constant), claim.values):
            yield constant, moved
            return


def _offset(constant: StoredConstant) -> Array:
    """What unsigned storage adds to every integer."""
    if constant.grid is None or constant.values.dtype.kind == "f":
        return np.zeros((), constant.values.dtype)
    zeros = np.unique(constant.grid.zero_point)
    return zeros.astype(np.int16).reshape(()) if zeros.size == 1 else np.zeros((), np.int16)


def _layouts(values: Array, shape: tuple[int, ...]) -> Iterator[Array]:
    """A constant's values in a given shape: every order of axes that fits, axes of one aside, zeros it was filled up with cut."""
    values = _without_filling(values, shape)
    wanted = tuple(size for size in shape if size != 1)
    squeezed = values.reshape([size for size in values.shape if size != 1])
    if sorted(squeezed.shape) != sorted(wanted):
        return
    for axes in itertools.permutations(range(len(wanted))):
        if tuple(squeezed.shape[axis] for axis in axes) == wanted:
            yield squeezed.transpose(axes).reshape(shape)


def _without_filling(values: Array, shape: tuple[int, ...]) -> Array:
    """A convolution's weights without input channels of zeros, with which ONNX Runtime's fast kernel is reached."""
    alike = values.ndim == len(shape) > 2 and (values.shape[0], *values.shape[2:]) == (shape[0], *shape[2:])
    if alike and values.shape[1] > shape[1] and not values[:, shape[1] :].any():
        return values[:, : shape[1]]
    return values


def same_scales(entry: TensorQuantization, constant: StoredConstant) -> bool:
    """Whether a constant's grid is the contract's, up to a rounding to float16; blocks may lie in either order."""
    if constant.grid is None:
        return not entry.scale
    expected, found = np.asarray(entry.scale, np.float32), constant.grid.scale
    if found.size != expected.size:
        return False
    return any(np.allclose(order, expected, rtol=_ROUNDING, atol=0.0) for order in _scale_orders(found, entry))


def _scale_orders(scale: Array, entry: TensorQuantization) -> list[Array]:
    if entry.block_size is None or scale.size % entry.shape[0]:
        return [scale]
    return [scale, scale.reshape(-1, entry.shape[0]).T.reshape(-1)]


def decode(entry: TensorQuantization, values: Array, constant: StoredConstant | None) -> Array:
    """Real weights ``[O, I, ...]`` as float64.

    Args:
        entry: The contract's entry: shape, channel axis, block size.
        values: Stored values in the program's layout.
        constant: Brings the file's own scales; None: the contract's.
    """
    if values.dtype.kind == "f" or (constant is not None and constant.grid is None):
        return values.astype(np.float64)
    offset = _offset(constant) if constant is not None else np.zeros((), np.int16)
    integers = values.astype(np.float64) - offset.astype(np.float64)
    scale = np.asarray(entry.scale, np.float64)
    if constant is not None and constant.grid is not None:
        orders = _scale_orders(constant.grid.scale, entry)
        scale = next((order for order in orders if np.allclose(order, entry.scale, rtol=_ROUNDING)), orders[0]) if (
            constant.grid.scale.size == len(entry.scale)
        ) else constant.grid.scale.astype(np.float64)  # fmt: skip
    return integers * _spread(scale.astype(np.float64), entry)


def _spread(scale: Array, entry: TensorQuantization) -> Array:
    """Scales in a shape that multiplies the weight's."""
    shape = entry.shape
    if scale.size == 1:
        return scale.reshape((1,) * len(shape))
    axis = entry.channel_axis or 0
    if scale.size == shape[axis]:
        return scale.reshape([-1 if place == axis else 1 for place in range(len(shape))])
    if scale.size % shape[0] == 0 and len(shape) > 1:
        blocks = scale.reshape(shape[0], -1)
        repeated = np.repeat(blocks, -(-shape[1] // blocks.shape[1]), axis=1)[:, : shape[1]]
        return repeated.reshape(shape[0], shape[1], *(1,) * (len(shape) - 2))
    return np.ones((1,) * len(shape))  # scales that fit nothing: the comparison will say so


def snr_db(source: Array, stored: Array, *, fit_channels: bool = False) -> float:
    """Signal-to-noise ratio of a stored weight in decibels, at most 200.

    Args:
        source: Float weight ``[O, I, ...]``.
        stored: The decoded one, same shape.
        fit_channels: First multiply the source's output and input channels by the factors that fit best: equalization and
            smoothing move such factors between layers without changing the function.
    """
    signal, found = source.astype(np.float64), stored.astype(np.float64)
    if fit_channels and signal.ndim >= 2:
        signal = _fitted(signal, found)
    noise = float(np.square(signal - found).sum())
    power = float(np.square(signal).sum())
    if noise == 0.0:
        return _LIMIT_DB
    return float(min(_LIMIT_DB, 10 * np.log10(max(power, 1e-300) / noise)))


def _fitted(source: Array, stored: Array, *, rounds: int = 20) -> Array:
    """``source * a[o] * b[i]`` nearest to ``stored``, by alternating least squares."""
    for _ in range(rounds):
        for axis in (0, 1):
            others = tuple(place for place in range(source.ndim) if place != axis)
            power = np.square(source).sum(axis=others, keepdims=True)
            factor = (source * stored).sum(axis=others, keepdims=True) / np.where(power == 0, 1, power)
            source = source * factor
    return source
