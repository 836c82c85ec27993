"""A weight is found by what it holds, in any layout; errors are measured against the weight it came from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgekit.core.contract import TensorQuantization
from edgekit.core.stored import Grid, StoredConstant
from edgekit.device_tests.claims import Claim
from edgekit.device_tests.stored_weights import decode, find, same_scales, snr_db

RANDOM = np.random.default_rng(0)


def claim(shape: tuple[int, ...], *, block_size: int | None = None, dtype: Any = "int8") -> Claim:
    """Random integers; one scale a channel, or a block."""
    count = shape[0] if block_size is None else shape[0] * shape[1] // block_size
    entry = TensorQuantization(
        name="a.weight", role="weight", op="conv2d", layer="a", shape=shape, dtype=dtype, channel_axis=0, block_size=block_size,
        scale=tuple(float(value) for value in RANDOM.uniform(0.01, 0.02, count).astype(np.float32)), zero_point=(0,) * count,
        minimum=-127, maximum=127, node="w",
    )  # fmt: skip
    values = RANDOM.integers(-127, 128, shape).astype(np.int8)
    return Claim(entry, values, "integer", 1, decode(entry, values, None))


def stored(one: Claim, values: Any, *, name: str = "w", offset: int = 0) -> StoredConstant:
    scale = np.asarray(one.entry.scale, np.float32)
    grid = Grid("int8", scale, np.full(scale.size, offset), one.entry.block_size)
    return StoredConstant(name, values, "int8", grid)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((6, 3, 2, 5), (0, 2, 3, 1)),
        ((6, 3, 2, 5), (2, 3, 1, 0)),
        ((6, 1, 3, 3), (1, 2, 3, 0)),
        ((6, 4), (1, 0)),
        ((6, 4, 3), (0, 2, 1)),
    ],
)
def test_every_layout_is_recognised(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    one = claim(shape)
    constant = stored(one, np.ascontiguousarray(one.values.transpose(axes)))
    found = find(one, [stored(claim(shape), claim(shape).values, name="other"), constant], taken=())
    assert found is not None and found[0] is constant
    np.testing.assert_array_equal(found[1], one.values)


def test_input_channels_of_zeros_are_seen_through() -> None:
    one = claim((6, 3, 2, 2))
    padded = np.concatenate([one.values, np.zeros((6, 5, 2, 2), np.int8)], axis=1)
    found = find(one, [stored(one, padded)], taken=())
    assert found is not None
    np.testing.assert_array_equal(found[1], one.values)


def test_an_altered_weight_is_the_one_that_resembles_it() -> None:
    one = claim((6, 4))
    altered = one.values.copy()
    altered[0, 0] ^= 3
    found = find(one, [stored(claim((6, 4)), claim((6, 4)).values, name="other"), stored(one, altered)], taken=())
    assert found is not None and found[0].name == "w"


def test_nothing_is_taken_for_a_weight_that_is_not_there() -> None:
    one = claim((6, 4))
    assert find(one, [stored(claim((6, 4)), claim((6, 4)).values), stored(one, claim((5, 4)).values)], taken=()) is None


def test_blocks_in_either_order_decode_alike() -> None:
    one = claim((4, 8), block_size=4)
    moved = np.asarray(one.entry.scale, np.float32).reshape(4, 2).T.reshape(-1)
    constant = StoredConstant("w", one.values, "int8", Grid("int8", moved, np.zeros(8), 4))
    assert same_scales(one.entry, constant)
    np.testing.assert_allclose(decode(one.entry, one.values, constant), one.source, rtol=1e-6)


def test_other_scales_are_told() -> None:
    one = claim((4, 8))
    grid = Grid("int8", np.asarray(one.entry.scale, np.float32) * np.float32(1.01), np.zeros(4))
    assert not same_scales(one.entry, StoredConstant("w", one.values, "int8", grid))


def test_error_is_that_of_rounding() -> None:
    """A uniform error of a step (variance step^2 / 12) against a uniform signal of 2 * 127 steps: 20 log10(254) dB."""
    source = RANDOM.uniform(-1, 1, (64, 1024))
    step = 1 / 127
    assert snr_db(source, np.round(source / step) * step) == pytest.approx(20 * np.log10(254), abs=0.2)
    assert snr_db(source, source) == 200.0


def test_factors_between_channels_are_no_error() -> None:
    source = RANDOM.standard_normal((8, 6, 3, 3))
    moved = source * RANDOM.uniform(0.2, 5, (8, 1, 1, 1)) * RANDOM.uniform(0.2, 5, (1, 6, 1, 1))
    assert snr_db(source, moved) < 10
    assert snr_db(source, moved, fit_channels=True) > 100
    assert snr_db(source, RANDOM.standard_normal((8, 6, 3, 3)), fit_channels=True) < 6
