from __future__ import annotations

import math

import numpy as np
import pytest

from edgekit.core.paired import highest_drop, matched_bound
from edgekit.device_tests.paired import drop_interval, mcnemar_p, quantile_interval, ratio_of_medians, samples_to_decide


@pytest.mark.parametrize(
    ("gained", "lost", "expected"),
    [
        (0, 0, 1.0),
        (5, 5, 1.0),
        (0, 5, 2 / 2**5),
        (2, 8, 2 * (1 + 10 + 45) / 2**10),
        (8, 2, 2 * (1 + 10 + 45) / 2**10),
        (0, 2000, 0.0),
    ],
)
def test_mcnemar_is_the_exact_binomial_tail(gained: int, lost: int, expected: float) -> None:
    assert mcnemar_p(gained, lost) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_mcnemar_of_large_counts_agrees_with_the_normal_approximation() -> None:
    statistic = (abs(5100 - 4900) - 1) / math.sqrt(10_000)
    assert mcnemar_p(4900, 5100) == pytest.approx(math.erfc(statistic / math.sqrt(2)), rel=1e-3)


def test_drop_interval_agrees_with_the_normal_interval_of_many_samples() -> None:
    differences = np.array([1.0] * 300 + [-1.0] * 200 + [0.0] * 9500)
    half_width = 1.96 * differences.std() / 100
    assert drop_interval(differences) == pytest.approx((0.01 - half_width, 0.01 + half_width), abs=4e-4)


def test_drop_interval_of_real_scores_agrees_with_the_normal_interval() -> None:
    differences = np.random.default_rng(1).normal(0.02, 0.1, 2000)
    half_width = 1.96 * differences.std() / math.sqrt(2000)
    assert drop_interval(differences) == pytest.approx(
        (differences.mean() - half_width, differences.mean() + half_width), abs=5e-4
    )


def test_drop_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    truth, covered, trials = 0.02, 0, 300
    for _ in range(trials):
        differences = rng.choice([1.0, -1.0, 0.0], size=200, p=[0.05, 0.03, 0.92])
        low, high = drop_interval(differences)
        covered += low <= truth <= high
    assert covered / trials > 0.92


@pytest.mark.parametrize("sample_count", [5, 50, 500, 5000])
def test_agreement_on_all_samples_proves_no_more_than_their_number(sample_count: int) -> None:
    low, high = drop_interval(np.zeros(sample_count))
    assert high == pytest.approx(-low, rel=0.2)
    assert 1.0 / sample_count < high < 4.0 / sample_count  # between a hopeful and the exact ("rule of three") bound


def test_intervals_are_the_same_each_time() -> None:
    differences = np.random.default_rng(3).normal(size=300)
    assert drop_interval(differences, seed=5) == drop_interval(differences, seed=5)
    assert drop_interval(differences, seed=5) != drop_interval(differences, seed=6)


def test_ratio_of_medians_finds_a_known_ratio_under_shared_disturbance() -> None:
    rng = np.random.default_rng(0)
    load = 1 + rng.exponential(0.5, 200)  # what both models of a round suffer
    ratio = ratio_of_medians(2.0 * load * rng.normal(1, 0.01, 200), load * rng.normal(1, 0.01, 200))
    assert ratio.low < 2.0 < ratio.high
    assert ratio.value == pytest.approx(2.0, rel=0.05)


def test_quantile_interval_covers_the_quantile() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        low, high = quantile_interval(rng.normal(size=400), 0.9)
        covered += low <= 1.2815516 <= high
    assert covered / 300 > 0.92


def test_quantile_interval_of_few_samples_is_their_range() -> None:
    assert quantile_interval(np.array([3.0, 1.0, 2.0]), 0.9) == (1.0, 3.0)


@pytest.mark.parametrize(
    ("estimate", "interval", "limit", "expected"),
    [
        (0.0, (-2.0, 2.0), 1.0, 1200),
        (2.0, (0.5, 3.5), 1.0, 500),
        (1.0, (0.0, 2.0), 1.0, None),
        (0.0, (-0.5, 0.5), 1.0, None),
    ],
)
def test_samples_to_decide(estimate: float, interval: tuple[float, float], limit: float, expected: int | None) -> None:
    assert samples_to_decide(400, estimate=estimate, interval=interval, limit=limit) == expected


def test_samples_to_decide_rounds_up_to_two_digits() -> None:
    assert samples_to_decide(1000, estimate=0.0, interval=(-1.1, 1.1111), limit=1.0) == 240


@pytest.mark.parametrize(
    ("lost", "gained", "count"), [(12, 2, 50), (3, 9, 40), (1, 0, 44), (0, 0, 25), (53, 16, 300), (200, 5, 200 + 5)]
)
def test_a_matched_bound_is_where_the_score_test_turns(lost: int, gained: int, count: int) -> None:
    """Against the statistic with the restricted likelihood maximised by search instead of by formula."""
    for z in (-1.959964, 1.959964, 1.281552):
        bound = matched_bound(lost, gained, count, z=z)
        q = np.linspace(max(0.0, -bound), min(1.0, 1 - bound) if bound > 0 else 1.0, 400_001)
        q = q[(2 * q + bound <= 1) & (q + bound >= 0)]  # share of gained; of lost: q + bound
        rest = np.clip(1 - 2 * q - bound, 1e-300, None)
        terms = [
            n * np.log(np.clip(p, 1e-300, None)) for n, p in ((gained, q), (lost, q + bound), (count - lost - gained, rest)) if n
        ]
        best = q[np.argmax(sum(terms))]
        variance = count * (2 * best + bound * (1 - bound))
        statistic = (lost - gained - count * bound) / math.sqrt(variance)
        assert statistic == pytest.approx(-z, abs=0.02), (z, bound)


def test_few_one_sided_changes_do_not_pass_too_often() -> None:
    """A true drop of one point, all of it losses: at most one set in twenty may show less than a point."""
    random = np.random.default_rng(0)
    passes = sum(highest_drop((random.random(1000) < 0.01).astype(float), confidence=0.975) < 0.01 for _ in range(2000))
    assert passes / 2000 < 0.05
