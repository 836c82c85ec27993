"""Statistics of paired comparisons: how sure one may be that two models, or two clocks, differ.

Everything here is a pure function of arrays; random resampling is seeded, so the same data gives the same interval.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = [
    "Ratio",
    "drop_interval",
    "highest_drop",
    "lowest_drop",
    "matched_bound",
    "mcnemar_p",
    "passing_power",
    "quantile_interval",
    "ratio_of_medians",
    "samples_to_decide",
]

_RESAMPLES = 10_000
_RESAMPLES_OF_REAL_SCORES = 2_000  # each costs as many draws as there are samples
_FEW_VALUES = 64
_CONFIDENCE_PERCENT = (2.5, 97.5)
_ONE_SIDED = 0.975
_HALVINGS = 60
_Z_95 = 1.959964  # normal quantile of 97.5 %


def drop_interval(differences: Array, *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of paired differences.

    Where scores are right or wrong, a difference is -1, 0 or 1: the score interval for matched proportions (Tango 1998,
    Statistics in Medicine 17:891), which keeps its promise with few and one-sided changes too, and says of ten samples on which
    both models agree that there may be a difference. For other scores: percentile bootstrap (Efron & Tibshirani 1993, ch. 13).

    Args:
        differences: ``[N]`` float score minus artifact score, sample by sample.
        seed: Seeds the resampling.

    >>> import numpy as np
    >>> drop_interval(np.zeros(4))[1] > 0.2, drop_interval(np.zeros(10_000))[1] < 0.001
    (True, True)
    """
    return lowest_drop(differences, confidence=_ONE_SIDED, seed=seed), highest_drop(differences, confidence=_ONE_SIDED, seed=seed)


def highest_drop(differences: Array, *, confidence: float, seed: int = 0) -> float:
    """One-sided upper bound of the mean of paired differences: what a non-inferiority test compares with its margin.

    A model is shown to be no worse than another by more than a margin where this bound is not above the margin (Piaggio et al.
    2012, JAMA 308:2594). The methods are those of :func:`drop_interval`.

    >>> import numpy as np
    >>> highest_drop(np.zeros(10_000), confidence=0.95) < 0.001
    True
    """
    return _bound(differences, confidence, seed)


def lowest_drop(differences: Array, *, confidence: float, seed: int = 0) -> float:
    """The other side of :func:`highest_drop`: the mean is not below this."""
    return _bound(differences, 1 - confidence, seed)


def _bound(differences: Array, quantile: float, seed: int) -> float:
    """The mean below which the truth lies with a probability of ``quantile``."""
    import numpy as np

    values = np.asarray(differences, np.float64)
    if np.isin(values, (-1.0, 0.0, 1.0)).all():
        z = statistics.NormalDist().inv_cdf(quantile)
        return matched_bound(int((values > 0).sum()), int((values < 0).sum()), values.size, z=z)
    return float(np.percentile(_resampled_means(values, seed), 100 * quantile))


def matched_bound(lost: int, gained: int, count: int, *, z: float) -> float:
    """Bound of the difference of two matched proportions, ``(lost - gained) / count``, by Tango's score statistic.

    Args:
        lost: Pairs that are right in the first and wrong in the second.
        gained: Pairs the other way round.
        count: All pairs.
        z: Normal quantile: 1.96 for the upper end of a 95 % interval, -1.96 for the lower.

    >>> round(matched_bound(12, 2, 50, z=-1.959964), 4), round(matched_bound(12, 2, 50, z=1.959964), 4)
    (0.0611, 0.3447)
    """
    low, high = -1.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _score_statistic(lost, gained, count, middle) > -z:  # falls as the difference grows
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _score_statistic(lost: int, gained: int, count: int, difference: float) -> float:
    """Tango's statistic: how far the counts are from a true difference, in standard deviations under it."""
    linear = -(lost + gained) + (2 * count - lost + gained) * difference
    constant = -gained * difference * (1 - difference)
    gaining = (math.sqrt(max(linear * linear - 8 * count * constant, 0.0)) - linear) / (4 * count)  # its likeliest share
    variance = count * (2 * gaining + difference * (1 - difference))
    distance = lost - gained - count * difference
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def _resampled_means(differences: Array, seed: int) -> Array:
    import numpy as np

    rng = np.random.default_rng(seed)
    values, counts = np.unique(differences, return_counts=True)
    size = int(differences.size)
    if values.size <= _FEW_VALUES:
        means: Array = rng.multinomial(size, counts / counts.sum(), _RESAMPLES) @ values / size
        return means
    return np.array([differences[rng.integers(0, size, size)].mean() for _ in range(_RESAMPLES_OF_REAL_SCORES)])


def mcnemar_p(gained: int, lost: int) -> float:
    """Exact two-sided McNemar test: is a change from wrong to right as likely as one from right to wrong?

    The smaller of the two counts under Binomial(gained + lost, 1/2), both tails (McNemar 1947; exact form in
    Fagerland, Lydersen & Laake 2013).

    >>> round(mcnemar_p(1, 9), 6)
    0.021484
    >>> mcnemar_p(0, 0)
    1.0
    """
    total = gained + lost
    logs = [
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) - total * math.log(2)
        for k in range(min(gained, lost) + 1)
    ]
    return min(1.0, 2.0 * math.fsum(math.exp(log) for log in logs))


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A ratio with its 95 % interval."""

    value: float
    low: float
    high: float


def ratio_of_medians(first: Array, second: Array, *, seed: int = 0) -> Ratio:
    """Median of ``first`` over median of ``second``, with a bootstrap interval over paired rounds.

    Rounds, not samples, are resampled: samples of one round share the machine's state of that moment and are far
    from independent, and both models of a round met the same state.

    Args:
        first: ``[R]`` one number a round (the round's median latency).
        second: ``[R]`` the other model's, same rounds.
        seed: Seeds the resampling.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    rows = rng.integers(0, first.size, (_RESAMPLES_OF_REAL_SCORES, first.size))
    resampled: Any = np.median(first[rows], axis=1) / np.median(second[rows], axis=1)
    low, high = np.percentile(resampled, _CONFIDENCE_PERCENT)
    return Ratio(float(np.median(first) / np.median(second)), float(low), float(high))


def quantile_interval(samples: Array, quantile: float) -> tuple[float, float]:
    """Distribution-free 95 % interval of a quantile by order statistics (normal approximation of the binomial rank).

    >>> import numpy as np
    >>> quantile_interval(np.arange(1000), 0.9)
    (880.0, 919.0)
    """
    import numpy as np

    ordered = np.sort(np.asarray(samples, np.float64))
    centre = ordered.size * quantile
    half = _Z_95 * math.sqrt(ordered.size * quantile * (1 - quantile))
    low = max(math.floor(centre - half) - 1, 0)
    high = min(math.ceil(centre + half), ordered.size - 1)
    return float(ordered[low]), float(ordered[high])


def passing_power(interval: tuple[float, float], *, limit: float) -> float:
    """How often a model that loses nothing would pass a limit with as many samples: its non-inferiority test's power.

    The spread of the mean is taken from the interval's width, as if it were normal; a result near 1 says that a failed or open
    gate is the model's doing, one near 0 that the samples are too few for the question.

    Args:
        interval: 95 % interval of the drop that was found.
        limit: The largest drop that is allowed, in the same unit.

    >>> round(passing_power((-1.0, 1.0), limit=1.0), 3), round(passing_power((-0.2, 0.4), limit=1.0), 3)
    (0.5, 1.0)
    """
    spread = (interval[1] - interval[0]) / (2 * _Z_95)
    return 1.0 if spread <= 0 else statistics.NormalDist().cdf(limit / spread - _Z_95)


def samples_to_decide(sample_count: int, *, estimate: float, interval: tuple[float, float], limit: float) -> int | None:
    """How many more samples would decide on which side of ``limit`` the estimate lies, if it stays where it is.

    An interval's half width shrinks with the square root of the number of samples.

    Returns:
        Additional samples, rounded up to two digits; None where the estimate stands on the limit itself.

    >>> samples_to_decide(400, estimate=0.0, interval=(-2.0, 2.0), limit=1.0)
    1200
    """
    margin = abs(limit - estimate)
    half_width = interval[1] - estimate if estimate < limit else estimate - interval[0]
    if margin == 0 or half_width <= 0:
        return None
    more = sample_count * ((half_width / margin) ** 2 - 1)
    if more <= 0:
        return None
    unit = 10 ** max(math.floor(math.log10(more)) - 1, 0)
    return int(math.ceil(more / unit) * unit)
