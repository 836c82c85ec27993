"""Confidence intervals of quantiles by order statistics, for samples that are not independent of their neighbours.

The rank of a quantile among ``n`` independent samples is binomial, whatever their distribution (David & Nagaraja 2003, *Order
Statistics*, section 7.1). Latencies taken one after another are alike; then ``n`` samples say as much as ``n / t`` independent
ones, ``t`` being the correlation time of "is it below the quantile" (Heidelberger & Lewis 1984, Operations Research 32:185),
summed over its initial positive pairs (Geyer 1992, Statistical Science 7:473).
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["correlation_time", "fewest_samples", "quantile_interval"]

_CONFIDENCE = 0.95
_FEWEST_FOR_CORRELATION = 40
_LONGEST_LAG = 1000
_SERIES_FOR_EXACT_RANKS = 2000


def fewest_samples(quantile: float, *, confidence: float = _CONFIDENCE) -> int:
    """The fewest independent samples whose smallest and largest enclose a quantile with the given confidence on each side.

    >>> fewest_samples(0.5), fewest_samples(0.9), fewest_samples(0.99)
    (6, 36, 368)
    """
    tail = (1 - confidence) / 2
    return max(math.ceil(math.log(tail) / math.log(max(quantile, 1 - quantile))), 1)


def quantile_interval(samples: Array, quantile: float, *, confidence: float = _CONFIDENCE) -> tuple[float, float] | None:
    """Interval of a quantile, distribution-free, of samples in the order they were taken.

    Args:
        samples: ``[n]``.
        quantile: Between 0 and 1.
        confidence: Of the interval, two-sided.

    Returns:
        Two of the samples, or None where there are too few of them for such an interval to exist.

    >>> import numpy as np
    >>> quantile_interval(np.random.default_rng(0).permutation(1000) * 1.0, 0.9)
    (879.0, 919.0)
    >>> quantile_interval(np.arange(35.0), 0.9) is None
    True
    """
    import numpy as np

    values = np.asarray(samples, np.float64)
    fewest = fewest_samples(quantile, confidence=confidence)
    if values.size < fewest:
        return None
    ordered = np.sort(values)
    time = correlation_time((values <= ordered[min(int(values.size * quantile), values.size - 1)]).astype(np.float64))
    effective = max(int(values.size / time), 1)
    if effective < fewest:
        return None
    low, high = ((rank - 0.5) * values.size / effective - 0.5 for rank in _ranks(effective, quantile, (1 - confidence) / 2))
    return float(ordered[math.floor(low)]), float(ordered[math.ceil(high)])


def correlation_time(series: Array) -> float:
    """How many neighbouring values say together as much as one independent value, at least 1.

    Args:
        series: ``[n]`` in the order it was taken.

    >>> import numpy as np
    >>> noise = np.random.default_rng(0).standard_normal(4000)
    >>> round(correlation_time(noise)), round(correlation_time(np.repeat(noise, 5)))
    (1, 5)
    """
    import numpy as np

    values = np.asarray(series, np.float64)
    if values.size < _FEWEST_FOR_CORRELATION:
        return 1.0
    centred = values - values.mean()
    if not centred.any():
        return 1.0
    size = 1 << (2 * values.size - 1).bit_length()
    power = np.abs(np.fft.rfft(centred, size)) ** 2
    lags = np.fft.irfft(power, size)[: min(values.size // 2, _LONGEST_LAG)]
    correlations = lags / lags[0]
    pairs = correlations[0 : correlations.size // 2 * 2].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs <= 0)
    kept = pairs[: negative[0]] if negative.size else pairs
    return float(max(2 * kept.sum() - 1, 1.0))


def _ranks(count: int, quantile: float, tail: float) -> tuple[int, int]:
    """Ranks (from 1) of the two order statistics between which a quantile lies but for ``tail`` on each side."""
    if count > _SERIES_FOR_EXACT_RANKS:
        half = statistics.NormalDist().inv_cdf(1 - tail) * math.sqrt(count * quantile * (1 - quantile))
        return max(math.floor(count * quantile - half), 1), min(math.ceil(count * quantile + half) + 1, count)
    log_q, log_p = math.log(quantile), math.log(1 - quantile)
    below = 0.0
    low, high = 1, count
    for rank in range(count + 1):  # below: probability that fewer than ``rank`` samples lie below the quantile
        if below <= tail:
            low = max(rank, 1)
        if below >= 1 - tail:
            high = max(rank, 1)
            break
        ways = math.lgamma(count + 1) - math.lgamma(rank + 1) - math.lgamma(count - rank + 1)
        below += math.exp(ways + rank * log_q + (count - rank) * log_p)
    return low, high
