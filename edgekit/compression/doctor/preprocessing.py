"""Do the samples look like the task's declared preprocessing says?

Understood are ``range`` (of the values before normalisation), ``mean`` and ``std``, one number or one per channel: a sample is
``(value - mean) / std``. Several inputs: the same under each input's name. Everything else in the description is left alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.calibration import Finding, InputStatistics

__all__ = ["check_preprocessing"]

_SLACK = 0.1  # of the declared range: resampling overshoots
_UNLIKE = 0.5  # mean distance per channel from mean 0 and standard deviation 1 from which raw data is suspected

Floats = NDArray[np.float64]


def check_preprocessing(statistics: InputStatistics, declared: Mapping[str, Any]) -> list[Finding]:
    """Compare one input's range and mean with the declared preprocessing.

    Args:
        statistics: Of the calibration data.
        declared: ``task.preprocessing``, or its part for this input.
    """
    count = len(statistics.mean)
    mean, std = _per_channel(declared.get("mean"), count), _per_channel(declared.get("std"), count)
    bounds = _bounds(declared.get("range"))
    problem = ""
    if mean is not None and std is not None and (std > 0).all():
        problem = _not_normalised(statistics, mean, std)
    if not problem and bounds is not None:
        shift, scale = (np.zeros(count) if mean is None else mean), (np.ones(count) if std is None else std)
        problem = _out_of_range(statistics, (bounds[0] - shift) / scale, (bounds[1] - shift) / scale, bounds)
    if not problem:
        return []
    return [
        Finding(
            kind="preprocessing",
            serious=True,
            layers=(statistics.name,),
            message=f"Input '{statistics.name}' does not look as task.preprocessing declares it: {problem}"
            " Prepare calibration data as the device will, or correct the declaration.",
        )
    ]


def _per_channel(value: Any, count: int) -> Floats | None:
    """One number for each channel; None where the declaration says something else."""
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not all(isinstance(one, int | float) for one in values) or len(values) not in {1, count}:
        return None
    return np.broadcast_to(np.array(values, np.float64), count)


def _bounds(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        return None
    low, high = value
    return (float(low), float(high)) if isinstance(low, int | float) and isinstance(high, int | float) and low < high else None


def _not_normalised(statistics: InputStatistics, mean: Floats, std: Floats) -> str:
    """The samples fit the statistics of raw data much better than those of normalised data."""
    raw = _distance(statistics, mean, std)
    normalised = _distance(statistics, np.zeros_like(mean), np.ones_like(std))
    if normalised <= _UNLIKE or raw >= normalised / 2:
        return ""
    return (
        f"the mean of its channels is {_rounded(statistics.mean)} and their standard deviation {_rounded(statistics.std)}, as"
        f" before the declared normalisation (mean {_rounded(mean)}, std {_rounded(std)}); after it they should be near 0 and 1."
    )


def _distance(statistics: InputStatistics, mean: Floats, std: Floats) -> float:
    own_mean, own_std = np.array(statistics.mean), np.maximum(np.array(statistics.std), 1e-12)
    return float((np.abs(own_mean - mean) / std + np.abs(np.log(own_std / std))).mean())


def _out_of_range(statistics: InputStatistics, low: Floats, high: Floats, bounds: tuple[float, float]) -> str:
    width = high - low
    beyond = np.maximum(np.array(statistics.high) - high, low - np.array(statistics.low)) / width
    at = int(np.argmax(beyond))
    if beyond[at] <= _SLACK:
        return ""
    largest = max(abs(statistics.low[at]), abs(statistics.high[at]))
    looks = f" It looks like 0 to 255, not scaled to {bounds[0]:g} to {bounds[1]:g}." if _is_byte_like(largest, bounds) else ""
    return (
        f"channel {at} reaches from {statistics.low[at]:.3g} to {statistics.high[at]:.3g}, the declaration allows"
        f" {low[at]:.3g} to {high[at]:.3g}.{looks}"
    )


def _is_byte_like(largest: float, bounds: tuple[float, float]) -> bool:
    return bounds[1] <= 1.0 and largest > 64 and not math.isinf(largest)


def _rounded(values: Sequence[float] | Floats) -> str:
    shown = ", ".join(f"{value:.3g}" for value in list(values)[:4])
    return f"({shown}{', …' if len(values) > 4 else ''})"
