"""Rounding rules against exact fractions and Python's unbounded integers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.runtimes.exact import requantization
from edgekit.runtimes.exact.requantization import (
    Output,
    by_float,
    by_simulation,
    by_two_upward_in_lanes,
    fixed_point,
    multiply_rounding_once,
    multiply_rounding_twice,
    multiply_rounding_upward,
)

WIDE = Output(np.float32(1.0), 0, -(2**31), 2**31 - 1, "int32")
SUMS = st.integers(-(2**26), 2**26)
FACTORS = st.floats(2.0**-14, 1.5, width=32, allow_nan=False)


def half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def half_away(value: Fraction) -> int:
    return half_up(value) if value >= 0 else -half_up(-value)


@given(FACTORS)
def test_fixed_point_is_the_nearest_31_bit_fraction(factor: float) -> None:
    multiplier, shift = fixed_point(factor)
    assert 2**30 <= multiplier < 2**31
    assert abs(Fraction(multiplier, 2**31) * Fraction(2) ** shift - Fraction(factor)) <= Fraction(factor) * Fraction(1, 2**31)


@given(SUMS, FACTORS)
def test_one_rounding_is_half_up_of_the_exact_product(value: int, factor: float) -> None:
    multiplier, shift = fixed_point(factor)
    exact = value * Fraction(multiplier, 2**31) * Fraction(2) ** shift
    assert int(multiply_rounding_once(np.array(value), multiplier, shift)) == half_up(exact)


@given(SUMS, FACTORS)
def test_two_roundings_round_the_product_and_then_the_shift(value: int, factor: float) -> None:
    multiplier, shift = fixed_point(factor)
    left, right = max(shift, 0), max(-shift, 0)
    product = Fraction((value << left) * multiplier, 2**31)
    # SaturatingRoundingDoublingHighMul adds half less one for negative products and truncates: ties go up, as for positive ones
    upward = Fraction(half_up(product), 2**right)
    assert int(multiply_rounding_upward(np.array(value), multiplier, shift)) == half_up(upward)
    assert int(multiply_rounding_twice(np.array(value), multiplier, shift)) == half_away(upward)


def test_what_tells_the_two_apart_is_a_negative_tie_in_the_shift() -> None:
    multiplier, shift = fixed_point(0.125)
    values = np.array([-4, -12, 4, 12])  # -0.5, -1.5, 0.5, 1.5
    assert multiply_rounding_upward(values, multiplier, shift).tolist() == [0, -1, 1, 2]
    assert multiply_rounding_twice(values, multiplier, shift).tolist() == [-1, -2, 1, 2]
    assert multiply_rounding_once(values, multiplier, shift).tolist() == [0, -1, 1, 2]


@given(SUMS, FACTORS)
def test_float_multiplier_rounds_float32_products_half_to_even(value: int, factor: float) -> None:
    [found] = by_float(np.array([value]), np.float32(1.0), np.array([factor], np.float32), WIDE)
    product = np.float32(value) * np.float32(factor)
    assert found == round(float(product))  # Python rounds half to even


@given(st.integers(-(2**20), 2**20), st.integers(2, 8))
def test_rules_that_round_once_agree_where_multipliers_are_powers_of_two_and_nothing_is_halfway(value: int, bits: int) -> None:
    factor = np.array([2.0**-bits], np.float32)
    rules = (by_float, by_simulation, requantization.by_one_rounding)
    found = {int(rule(np.array([2 * value + 1]), np.float32(1.0), factor, WIDE)[0]) for rule in rules}
    assert found == {round(Fraction(2 * value + 1, 2**bits))}


def test_two_roundings_make_one_of_a_quarter() -> None:
    factor = np.array([0.25], np.float32)
    for rule, expected in ((requantization.by_two_roundings, 1), (requantization.by_two_upward, 1), (by_float, 0)):
        assert rule(np.array([1]), np.float32(1.0), factor, WIDE).tolist() == [expected]


@given(st.integers(-(2**38), 2**38), FACTORS)
def test_sums_of_64_bits_take_a_multiplier_of_15_bits(value: int, factor: float) -> None:
    factor = factor / 2**16
    [found] = requantization.by_short_multiplier(np.array([value]), np.float32(1.0), np.array([factor], np.float32), WIDE)
    multiplier, shift = fixed_point(float(np.float32(factor)))
    short = Fraction(min((multiplier + 2**15) >> 16, 2**15 - 1), 2**15) * Fraction(2) ** shift
    assert found == half_up(value * short)
    assert abs(short / Fraction(float(np.float32(factor))) - 1) < Fraction(1, 2**14)


def test_channels_left_over_by_the_vector_code_are_rounded_away() -> None:
    sums = np.full((1, 6), -4)  # -0.5 each
    found = by_two_upward_in_lanes(sums, np.float32(0.125), np.ones(6, np.float32), WIDE)
    assert found.tolist() == [[0, 0, 0, 0, -1, -1]]


@pytest.mark.parametrize(("low", "high"), [(-128, 127), (-10, 100)])
def test_results_are_placed_and_clamped(low: int, high: int) -> None:
    output = Output(np.float32(0.5), -10, low, high, "int8")
    for rule in (by_float, by_simulation, requantization.by_two_roundings, requantization.by_two_upward):
        found = rule(np.array([-4000, 0, 3, 4000]), np.float32(1.0), np.ones(1, np.float32), output)
        assert found.dtype == np.int8
        assert found.tolist() == [low, -10, -4, high], rule
