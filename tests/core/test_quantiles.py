from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import pytest

from edgekit.core.measurement import Distribution
from edgekit.core.quantiles import correlation_time, fewest_samples, quantile_interval

RNG = np.random.default_rng(0)


def alike(count: int, correlation: float) -> Any:
    """Normal values of which neighbours are alike."""
    noise = RNG.standard_normal(count)
    values = np.empty(count)
    values[0] = noise[0]
    for at in range(1, count):
        values[at] = correlation * values[at - 1] + np.sqrt(1 - correlation**2) * noise[at]
    return values


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.99])
def test_an_interval_exists_from_the_fewest_samples_on(quantile: float) -> None:
    fewest = fewest_samples(quantile)
    assert quantile_interval(np.arange(fewest - 1), quantile) is None
    tail = max(quantile, 1 - quantile) ** fewest
    assert tail <= 0.025 < max(quantile, 1 - quantile) ** (fewest - 1)


@pytest.mark.parametrize(("count", "quantile"), [(50, 0.5), (400, 0.9), (600, 0.99)])
def test_intervals_hold_the_truth_as_often_as_they_say(count: int, quantile: float) -> None:
    truth = statistics.NormalDist().inv_cdf(quantile)
    found = [quantile_interval(RNG.standard_normal(count), quantile) for _ in range(300)]
    known = [one for one in found if one is not None]
    assert len(known) > 250
    assert np.mean([low <= truth <= high for low, high in known]) > 0.92


def test_intervals_of_samples_that_are_alike_hold_the_truth_too() -> None:
    truth = statistics.NormalDist().inv_cdf(0.9)
    found = [quantile_interval(alike(1000, 0.9), 0.9) for _ in range(100)]
    known = [one for one in found if one is not None]
    assert len(known) > 80
    assert np.mean([low <= truth <= high for low, high in known]) > 0.88


def test_correlation_time_is_that_of_the_series() -> None:
    assert correlation_time(RNG.standard_normal(4000)) == pytest.approx(1, abs=0.2)
    assert correlation_time(alike(4000, 0.8)) == pytest.approx((1 + 0.8) / (1 - 0.8), rel=0.4)
    assert correlation_time(np.ones(100)) == 1


def test_a_distribution_says_how_well_its_percentiles_are_known() -> None:
    found = Distribution.of(RNG.standard_normal(1000).tolist())
    for value, interval in ((found.p50, found.p50_interval), (found.p90, found.p90_interval), (found.p99, found.p99_interval)):
        assert interval is not None
        assert interval[0] <= value <= interval[1]
    few = Distribution.of([1.0, 2.0, 3.0])
    assert (few.p50_interval, few.p90_interval, few.p99_interval) == ((1.0, 3.0), None, None)


def test_distributions_written_before_percentiles_had_intervals_are_read() -> None:
    stored = Distribution.of([1.0, 2.0]).model_dump()
    del stored["p90_interval"], stored["p99_interval"]
    assert Distribution.parse(stored, source="old").p99_interval is None
