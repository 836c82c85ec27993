"""How the range of one tensor is estimated from a stream of samples, in memory that does not depend on their number.

================ =======================================================================================
estimator        range
================ =======================================================================================
min-max          smallest to largest value seen
moving-average   mean of each sample's extremes; from sample 100 on an exponential mean
                 (Jacob et al., 2018, arXiv:1712.05877, section 3.1)
percentile       what holds 99.99 % of the magnitudes
mse              the clipping with the least squared error of rounding and saturation together
entropy          the clipping whose histogram in 8 bits diverges least from the tensor's own
================ =======================================================================================

The last three read one histogram (rules in :mod:`~edgekit.compression.quantize.calibrate.clipping`) whose bins are
``[k, k + 1) * 2**exponent``; when a value does not fit, the exponent grows and neighbours merge. Scaling by a power of two
is exact (short of underflow), counts are integers, and the exponent depends on the largest magnitude only: so neither
batching nor order changes a result. No estimator leaves ``[smallest, largest]`` value seen, hence none undoes a fused clamp.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import torch

from edgekit.compression.quantize.calibrate.clipping import Counts, Range, least_squared_error, percentile, smallest_divergence

if TYPE_CHECKING:
    from edgekit.core.recipe import Estimator

__all__ = ["Histogram", "MinMax", "MovingAverage", "Observer", "Range", "make_observer"]

_HALF = 4096  # bins on either side of zero: at least eight for each of 255 steps, so that a clipped grid is still resolved
_FINEST = -126  # exponent of the narrowest bin: that of the smallest normal float32
_MOST_VALUES = 2**14  # values of one sample that are counted; more are thinned out evenly
_AVERAGED_COUNT = 100  # as torch's MovingAverageMinMaxObserver (constant 0.01), without its debt to the first sample


class Observer(Protocol):
    """Watches one tensor."""

    extremes: Range
    """Smallest and largest value seen, exactly."""

    def update(self, samples: torch.Tensor) -> None:
        """Take in float32 ``[S, K]``: the tensor's values for ``S`` samples, in order.

        Raises:
            FloatingPointError: A value is NaN or infinite.
        """
        ...

    def range(self) -> Range:
        """The range as estimated so far, within :attr:`extremes`."""
        ...


class MinMax:
    """Smallest to largest value."""

    def __init__(self) -> None:
        self.extremes = Range()

    def update(self, samples: torch.Tensor) -> None:
        """Take in ``[S, K]``."""
        self.extremes.include(*_extremes(samples))

    def range(self) -> Range:
        """The extremes."""
        return dataclasses.replace(self.extremes)


class MovingAverage:
    """Mean of each sample's smallest and of its largest value: one update a sample, however they are batched."""

    def __init__(self) -> None:
        self.extremes = Range()
        self.mean = Range(0.0, 0.0)
        self.count = 0

    def update(self, samples: torch.Tensor) -> None:
        """Take in ``[S, K]``, sample by sample."""
        for sample in samples:
            low, high = _extremes(sample)
            self.extremes.include(low, high)
            self.count += 1
            weight = 1.0 / min(self.count, _AVERAGED_COUNT)
            self.mean.low += weight * (low - self.mean.low)
            self.mean.high += weight * (high - self.mean.high)

    def range(self) -> Range:
        """The mean extremes."""
        return dataclasses.replace(self.mean)


class Histogram:
    """Counts of a tensor's values, and the range that a rule chooses from them.

    Args:
        choose: Counts ``[N]``, width of a bin, and the extremes -> range.

    >>> watcher = Histogram(percentile)
    >>> watcher.update(torch.tensor([[0.0, 1.0, 2.0]]))
    >>> watcher.update(torch.tensor([[0.0, 900.0]]))
    >>> int(watcher.counts.sum()), watcher.width
    (5, 0.25)
    """

    def __init__(self, choose: Callable[[Counts, float, Range], Range]) -> None:
        self.choose = choose
        self.extremes = Range()
        self.counts = torch.zeros(2 * _HALF, dtype=torch.int64)
        self.exponent = _FINEST

    @property
    def width(self) -> float:
        """Width of a bin."""
        return 2.0**self.exponent

    def update(self, samples: torch.Tensor) -> None:
        """Take in ``[S, K]``. The extremes are exact; of many values, evenly spaced ones are counted."""
        low, high = _extremes(samples)
        self.extremes.include(low, high)
        self._grow(max(-low, high))
        bins = torch.floor(_thinned(samples).mul(2.0**-self.exponent)).to(torch.int32).add_(_HALF)
        self.counts += torch.bincount(bins.reshape(-1), minlength=2 * _HALF)

    def range(self) -> Range:
        """What the rule chooses."""
        return self.choose(self.counts.numpy(), self.width, dataclasses.replace(self.extremes))

    def _grow(self, magnitude: float) -> None:
        """Merge bins until ``magnitude`` fits."""
        all_merged = int(math.log2(_HALF))
        needed = math.frexp(magnitude)[1] - all_merged
        if magnitude <= 0.0 or needed <= self.exponent:
            return
        sums = self.counts.reshape(-1, 2 ** min(needed - self.exponent, all_merged)).sum(1)
        self.counts = torch.zeros_like(self.counts)
        self.counts[_HALF - len(sums) // 2 : _HALF + len(sums) // 2] = sums
        self.exponent = needed


def make_observer(estimator: Estimator) -> Observer:
    """A new observer of the kind a recipe names.

    >>> watcher = make_observer("min-max")
    >>> watcher.update(torch.tensor([[-1.0, 3.0]]))
    >>> watcher.range()
    Range(low=-1.0, high=3.0)
    """
    return _OBSERVERS[estimator]()


_OBSERVERS: dict[Estimator, Callable[[], Observer]] = {
    "min-max": MinMax,
    "moving-average": MovingAverage,
    "percentile": functools.partial(Histogram, percentile),
    "mse": functools.partial(Histogram, least_squared_error),
    "entropy": functools.partial(Histogram, smallest_divergence),
}


def _extremes(values: torch.Tensor) -> tuple[float, float]:
    low, high = (float(end) for end in torch.aminmax(values))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise FloatingPointError
    return low, high


def _thinned(samples: torch.Tensor) -> torch.Tensor:
    """At most ``_MOST_VALUES`` of each row, evenly spaced. The stride shares no factor with any axis, so no channel is missed."""
    count = samples.shape[1]
    stride = -(-count // _MOST_VALUES)
    while math.gcd(stride, count) > 1:
        stride += 1
    return samples if stride == 1 else samples[:, ::stride]
