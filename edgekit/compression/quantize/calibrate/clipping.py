"""Histogram of a tensor -> the range worth representing: the rules behind the estimators that clip.

Each rule takes the counts of bins ``[(k - N / 2) * width, (k - N / 2 + 1) * width)`` and the exact extremes, and returns a
range for an 8-bit grid, 255 steps. Zero is always representable, as in every grid of :mod:`~edgekit.compression.quantize.grid`.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["Range", "least_squared_error", "percentile", "smallest_divergence"]

_STEPS = 255
_KEPT_SHARE = 0.9999
_CLIPPINGS = 2.0 ** (-np.arange(64) / 12)  # from all of the range to a fortieth of it
_COARSE = 4

Counts = NDArray[np.int64]


@dataclasses.dataclass
class Range:
    """Smallest and largest value seen."""

    low: float = float("inf")
    high: float = float("-inf")

    def include(self, low: float, high: float) -> None:
        """Widen to hold ``[low, high]``."""
        self.low, self.high = min(self.low, low), max(self.high, high)


def percentile(counts: Counts, width: float, extremes: Range) -> Range:
    """The range that holds 99.99 % of the magnitudes (Wu et al., 2020, arXiv:2004.09602, section 4.1)."""
    half = len(counts) // 2
    magnitudes = counts[half:] + counts[half - 1 :: -1]
    last = int(np.argmax(np.cumsum(magnitudes) >= _KEPT_SHARE * magnitudes.sum()))
    if not magnitudes[last + 1 :].any():
        return extremes
    bound = (last + 1) * width
    return Range(max(extremes.low, -bound), min(extremes.high, bound))


def least_squared_error(counts: Counts, width: float, extremes: Range) -> Range:
    """The clipping of least expected squared error, over a grid of clippings of both ends.

    A value within the range is off by ``step**2 / 12`` in the mean, one nearer to zero than half a step by its own square (so
    the zeros that ReLU makes cost nothing), one beyond an end by its distance to it (Banner et al., 2019, arXiv:1810.05723).
    """
    low, high = min(extremes.low, 0.0), max(extremes.high, 0.0)
    ends = [end * _CLIPPINGS if end else np.zeros(1) for end in (low, high)]
    lows, highs = (grid.reshape(-1) for grid in np.meshgrid(*ends, indexing="ij"))
    steps = (highs - lows) / _STEPS
    middles = (np.arange(len(counts)) - len(counts) // 2 + 0.5) * width
    sums = [np.concatenate([[0.0], np.cumsum(counts * middles**power)]) for power in range(3)]
    begin, end, near_begin, near_end = (
        np.searchsorted(middles, edge) for edge in (lows, highs, np.maximum(-steps / 2, lows), np.minimum(steps / 2, highs))
    )
    rounded = (sums[0][end] - sums[0][begin]) - (sums[0][near_end] - sums[0][near_begin])
    error = steps**2 / 12 * rounded + (sums[2][near_end] - sums[2][near_begin])
    error += sums[2][begin] - 2 * lows * sums[1][begin] + lows**2 * sums[0][begin]
    count, total, square = (values[-1] - values[end] for values in sums)
    error += square - 2 * highs * total + highs**2 * count
    best = int(np.argmin(error))
    return Range(max(extremes.low, float(lows[best])), min(extremes.high, float(highs[best])))


def smallest_divergence(counts: Counts, width: float, extremes: Range) -> Range:
    """The clipping whose histogram in 255 steps diverges least (Kullback-Leibler) from the tensor's own.

    Migacz, "8-bit inference with TensorRT", GTC 2017; arXiv:2004.09602, section 4.1. Both ends are clipped at one magnitude.
    The bin of zero, which ReLU fills, is taken to hold what the bins beside it hold, or it would decide alone.
    """
    magnitude = max(-extremes.low, extremes.high)
    half = len(counts) // 2
    smoothed = counts.astype(np.float64)
    smoothed[half] = smoothed[half + 1] if extremes.low >= 0 else (smoothed[half - 1] + smoothed[half + 1]) / 2
    found: dict[int, tuple[float, Range]] = {}

    def look(places: range) -> int:
        """Try some of the clippings; the place of the best so far."""
        for place in places:
            clipping = float(_CLIPPINGS[place]) * magnitude
            chosen = Range(max(extremes.low, -clipping), min(extremes.high, clipping))
            begin, end = half + math.floor(chosen.low / width), half + math.ceil(chosen.high / width)
            if end - begin < _STEPS:
                break
            found[place] = _divergence(smoothed, max(begin, 0), min(end, len(counts))), chosen
        return min(found, key=lambda place: found[place][0], default=0)

    near = look(range(0, len(_CLIPPINGS), _COARSE))  # coarsely, then around the best
    best = look(range(max(near - _COARSE + 1, 0), min(near + _COARSE, len(_CLIPPINGS))))
    return found[best][1] if found else extremes


def _divergence(counts: NDArray[np.float64], begin: int, end: int) -> float:
    """KL divergence of the clipped tensor (the clipped part piled on the end bins) from its own histogram in 255 steps."""
    inside = counts[begin:end]
    clipped = inside.copy()
    clipped[0] += counts[:begin].sum()
    clipped[-1] += counts[end:].sum()
    step = np.arange(end - begin) * _STEPS // (end - begin)
    filled = inside > 0
    sums, sizes = (np.bincount(step, values, minlength=_STEPS) for values in (inside, filled))
    coarse = np.where(filled, (sums / np.maximum(sizes, 1))[step], 0.0)
    held = clipped > 0
    if not held.any() or not coarse.any():
        return math.inf
    own, other = clipped[held] / clipped.sum(), np.maximum(coarse[held] / coarse.sum(), 1e-12)
    return float((own * np.log(own / other)).sum())
