"""Numbers with a unit, a distribution, and the evidence they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from edgekit.core.model import Record
from edgekit.core.quantiles import quantile_interval

__all__ = ["Distribution", "Evidence", "Measurement"]


class Evidence(StrEnum):
    """What a number rests on. Only ``measured`` may be called device latency."""

    MEASURED = "measured"
    """Real hardware named by the profile."""
    EMULATED = "emulated"
    """The device's instructions on another machine's processor: right numerics, wrong speed."""
    ESTIMATED = "estimated"
    """Computed by a model of the hardware."""
    REFERENCE = "reference"
    """The format's semantics executed by edgekit, not the vendor's kernels."""


class Distribution(Record):
    """Summary of repeated samples, all in the measurement's unit.

    Args:
        sample_count: How many samples there are.
        minimum: Smallest sample.
        p50: Median.
        p90: 90th percentile (linear interpolation).
        p99: 99th percentile.
        maximum: Largest sample.
        mean: Arithmetic mean.
        p50_interval: 95 % confidence interval of the median (distribution-free, by order statistics, made wider where neighbours
            are alike: :mod:`edgekit.core.quantiles`); the extremes where there are too few samples for one.
        p90_interval: The same of the 90th percentile; None where there are too few samples (36, if they are independent).
        p99_interval: The same of the 99th (368).
        samples: The samples in the order they were taken (thinned to at most 2,000).
    """

    sample_count: int
    minimum: float
    p50: float
    p90: float
    p99: float
    maximum: float
    mean: float
    p50_interval: tuple[float, float]
    p90_interval: tuple[float, float] | None = None
    p99_interval: tuple[float, float] | None = None
    samples: tuple[float, ...] = ()

    @classmethod
    def of(cls, samples: Sequence[float], *, kept: int = 2000) -> Distribution:
        """Summarise samples.

        >>> Distribution.of([1.0, 2.0, 3.0]).p50
        2.0
        """
        import numpy as np

        values = np.asarray(samples, np.float64)
        if values.size == 0:
            raise ValueError("a distribution needs at least one sample")
        ordered = np.sort(values)
        p50, p90, p99 = np.percentile(ordered, [50, 90, 99])
        step = max(1, -(-values.size // kept))
        return cls(
            sample_count=int(values.size),
            minimum=float(ordered[0]),
            p50=float(p50),
            p90=float(p90),
            p99=float(p99),
            maximum=float(ordered[-1]),
            mean=float(values.mean()),
            p50_interval=quantile_interval(values, 0.5) or (float(ordered[0]), float(ordered[-1])),
            p90_interval=quantile_interval(values, 0.9),
            p99_interval=quantile_interval(values, 0.99),
            samples=tuple(float(value) for value in values[::step]),
        )


class Measurement(Record):
    """One number found on one device.

    Args:
        name: What was measured, e.g. ``"latency"``, ``"cpu_time"``, ``"load_time"``, ``"peak_memory"``, ``"size"``.
        value: The headline (for a distribution: its median).
        unit: ``"ms"``, ``"bytes"``, ``"points"``, ``"share"`` ...
        evidence: What it rests on; shown wherever the number is shown.
        distribution: The samples behind it, where there are several.
        interval: 95 % interval of ``value`` where it is an estimate of its own (a ratio); a distribution carries its own.
        note: Anything a reader must know (threads, warm-up, interference).
    """

    name: str
    value: float
    unit: str
    evidence: Evidence
    distribution: Distribution | None = None
    interval: tuple[float, float] | None = None
    note: str = ""
