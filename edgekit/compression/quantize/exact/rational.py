"""Multipliers that leave nothing to rounding: fractions with an odd denominator.

A kernel turns an integer sum ``n`` into an output integer by rounding ``n * m``, with ``m = s_in * s_w / s_out`` in float32.
Executors differ in how they order these float operations and in what they do with ``k + 1/2``. If ``m = a / b`` in lowest terms
with ``b`` odd, then ``n * a / b`` is never ``k + 1/2`` (``2 n a`` is even, ``b (2 k + 1)`` odd), and the nearest it comes is
``1 / (2 b)``. Float32 computes ``n * m`` within ``128 * 2**-21.5`` of a step wherever the result is inside int8, so with
``b < 2**13`` every executor rounds to the same integer, whatever it does with ties. Such fractions lie so densely
that moving a scale by less than a percent is enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["ERROR_STEPS", "LARGEST_DENOMINATOR", "margin_steps", "nearby_multiplier", "odd_multipliers", "recognise"]

LARGEST_DENOMINATOR = 8191
"""At this denominator the nearest value to a tie is still farther away than :data:`ERROR_STEPS`."""

ERROR_STEPS = 128 * 2.0**-21.5
"""What float32 may be off inside int8's range: three scales, two roundings of the multiplier, one of the product, 2**-24 each."""

_SLACK = 0.008  # of the scale: how much wider a grid may become
_FEW = 511  # denominators up to this one are tried first: the wider margin costs nothing at most multipliers
_SAME = Fraction(1, 2**21)  # relative: two float32 roundings


def odd_multipliers(multipliers: Array) -> Array:
    """The nearest tie-free multipliers, none smaller: ``[C]``, float64.

    A larger multiplier is a wider weight scale: nothing is clipped. The denominator is the smallest that comes within 0.8 %.

    >>> [str(Fraction(float(m)).limit_denominator(5000)) for m in odd_multipliers(np.array([0.5, 0.01]))]
    ['63/125', '2/199']
    """
    return np.array([float(nearby_multiplier(float(value), larger=True)) for value in multipliers], np.float64)


def nearby_multiplier(value: float, *, larger: bool) -> Fraction:
    """The tie-free fraction with the smallest denominator within 0.8 % of ``value`` on one side; the nearest where there is none.

    Args:
        value: Positive.
        larger: Not smaller than ``value``; else not larger.
    """
    low, high = (value, value * (1 + _SLACK)) if larger else (value * (1 - _SLACK), value)
    for most in (_FEW, 8 * _FEW, LARGEST_DENOMINATOR):
        found = next(_between(low, high, most), None)
        if found is not None:
            return found
    numerator = max(1, round(value * LARGEST_DENOMINATOR))  # below 1/8191: the nearest there is
    return Fraction(numerator, LARGEST_DENOMINATOR)


def _between(low: float, high: float, most: int) -> Iterator[Fraction]:
    """Fractions in ``[low, high]`` with odd denominators, smallest first."""
    denominators = np.arange(1, most + 1, 2, dtype=np.float64)
    numerators = np.ceil(low * denominators - 1e-12)
    for at in np.flatnonzero((numerators > 0) & (numerators <= high * denominators)):
        yield Fraction(int(numerators[at]), int(denominators[at]))


def recognise(multiplier: Fraction) -> Fraction:
    """The simplest fraction that float32 scales cannot tell from ``multiplier``: a convergent of its continued fraction."""
    rest, before, last = multiplier, (0, 1), (1, 0)
    while True:
        whole = rest.numerator // rest.denominator
        before, last = last, (whole * last[0] + before[0], whole * last[1] + before[1])
        found = Fraction(*last)
        if abs(found - multiplier) <= multiplier * _SAME or rest == whole:
            return found
        rest = 1 / (rest - whole)


def margin_steps(multiplier: Fraction) -> float:
    """Steps between float32's worst error and the nearest tie: negative where executors may round differently.

    >>> margin_steps(Fraction(1, 99)) > 0
    True
    >>> margin_steps(Fraction(1, 128)) > 0
    False
    """
    if multiplier.denominator % 2 == 0:
        return -0.5
    return 0.5 / multiplier.denominator - ERROR_STEPS if multiplier.denominator > 1 else 0.5
