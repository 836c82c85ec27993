"""Parity: what is called wrong about a file's answers, and what is not."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.core.parity import Arithmetic, difference_in_words

RIGHT = np.linspace(-2, 2, 64, dtype=np.float32)


@pytest.mark.parametrize(
    ("found", "arithmetic"),
    [(RIGHT + 1e-4, "float32"), (RIGHT + 0.05, "float16"), (RIGHT + 0.3, "int8"), (RIGHT, "float32")],
)
def test_rounding_is_no_error(found: np.ndarray, arithmetic: Arithmetic) -> None:
    assert difference_in_words([found], [RIGHT], arithmetic=arithmetic) == ""


@pytest.mark.parametrize(
    ("found", "arithmetic", "said"),
    [
        (RIGHT + 0.01, "float32", "of the largest value"),
        (RIGHT + 0.2, "float16", "of the largest value"),
        (RIGHT[::-1], "int8", "signal-to-noise"),
        (RIGHT[:32], "float32", "shape"),
        (np.where(RIGHT > 0, np.nan, RIGHT), "int8", "NaN"),
        (np.where(RIGHT > 0, np.inf, RIGHT), "float32", "infinity"),
    ],
)
def test_wrong_answers_are_described(found: np.ndarray, arithmetic: Arithmetic, said: str) -> None:
    assert said in difference_in_words([found], [RIGHT], arithmetic=arithmetic)


def test_one_wrong_sample_of_many_is_found() -> None:
    found = [RIGHT, RIGHT, RIGHT * 1.01, RIGHT]
    assert "of the largest value" in difference_in_words(found, [RIGHT] * 4, arithmetic="float32")


def test_the_same_infinities_and_nans_are_equal() -> None:
    masked = np.array([1.0, -np.inf, np.nan, 3.0], np.float32)
    assert difference_in_words([masked], [masked.copy()], arithmetic="float32") == ""


def test_indices_must_be_equal_but_for_ties() -> None:
    order = np.arange(200)
    swapped = order.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    assert difference_in_words([swapped], [order], arithmetic="float32") == ""
    assert "0% of its values" in difference_in_words([np.roll(order, 1)], [order], arithmetic="float32")
    assert "0% of its values" in difference_in_words([np.roll(order, 1)], [order], arithmetic="int8")
