"""What examining a task's calibration data found. The doctor writes these records, the report reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from edgekit.core.model import Record

__all__ = ["RENDERERS", "CalibrationReport", "CurvePoint", "Finding", "InputStatistics", "TensorRange"]

RENDERERS: dict[str, Callable[[CalibrationReport], str]] = {}
"""How a notebook shows a report, by MIME type; ``edgekit.report`` enters itself. Empty, a report shows as its fields."""

FindingKind = Literal[
    "leakage", "duplicates", "not-stable", "preprocessing", "shift", "constant-input", "outlier-sample", "outliers",
    "dead-channels",
]  # fmt: skip


class Finding(Record):
    """One thing about the data that a person should know.

    Args:
        kind: What it is.
        serious: The data should not be used like this; else it is advice.
        layers: Values or inputs it concerns, the worst first; empty if it concerns the samples themselves.
        samples: Positions of calibration samples it concerns, counted from 0; at most the first 20.
        message: What was found, what was expected, and what to do.
    """

    kind: FindingKind
    serious: bool
    layers: tuple[str, ...] = ()
    samples: tuple[int, ...] = ()
    message: str


class TensorRange(Record):
    """What the calibration samples made one quantized tensor do.

    Args:
        name: Contract entry.
        op: Operator that makes it; ``input`` for a model input.
        low: Lower end as the estimator has it.
        high: Upper end.
        smallest: Smallest value seen.
        largest: Largest value seen.
        usual: 99.9 % of the magnitudes are not above it (read from a histogram, at most 0.1 % of the range too large).
        widest_sample: Sample that has the largest magnitude.
        without_widest: Largest magnitude in all other samples.
        settled_after: From this sample on its scale stays within the tolerance of the last one.
        channel_count: Channels; None where they are not known.
        dead_channels: Those that never change.
    """

    name: str
    op: str
    low: float
    high: float
    smallest: float
    largest: float
    usual: float
    widest_sample: int
    without_widest: float
    settled_after: int
    channel_count: int | None = None
    dead_channels: tuple[int, ...] = ()

    @property
    def magnitude(self) -> float:
        """Largest magnitude seen."""
        return max(abs(self.smallest), abs(self.largest))

    @property
    def outlier_ratio(self) -> float:
        """Largest magnitude over the usual one: 16 means that 99.9 % of the values share a sixteenth of the steps."""
        return self.magnitude / self.usual if self.usual > 0 else 1.0


class CurvePoint(Record):
    """How far the scales are from where they end.

    Args:
        sample_count: Samples seen.
        largest_change: The largest ``|scale / final scale - 1|`` of any tensor.
        median_change: The median over tensors.
        tensor: The tensor that is farthest.
    """

    sample_count: int
    largest_change: float
    median_change: float
    tensor: str


class InputStatistics(Record):
    """One float input in one data set, channel by channel.

    Args:
        name: Input.
        channel_axis: Axis of the channels.
        low: Smallest value of each channel.
        high: Largest.
        mean: Mean.
        std: Standard deviation.
    """

    name: str
    channel_axis: int
    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


class CalibrationReport(Record):
    """Is this calibration set good enough?

    Args:
        task: The task's name.
        estimator: How ranges were estimated.
        sample_count: Calibration samples examined.
        evaluation_count: Evaluation samples they were compared with; 0 if the task has none.
        tolerance: A scale is settled when it stays this near to its final value.
        stable_after: From this sample on no scale moves by more than the tolerance; None: not stable yet.
        curve: Distance from the final scales after so many samples.
        tensors: Every tensor that calibration gives a range.
        calibration: Statistics of the calibration inputs.
        evaluation: Statistics of the evaluation inputs.
        findings: What should be known, serious ones first.
    """

    schema_version: Literal[1] = 1
    task: str
    estimator: str
    sample_count: int
    evaluation_count: int
    tolerance: float
    stable_after: int | None
    curve: tuple[CurvePoint, ...] = ()
    tensors: tuple[TensorRange, ...] = ()
    calibration: tuple[InputStatistics, ...] = ()
    evaluation: tuple[InputStatistics, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def is_good(self) -> bool:
        """Nothing serious was found."""
        return not any(finding.serious for finding in self.findings)

    def _repr_html_(self) -> str | None:
        draw = RENDERERS.get("text/html")
        return draw(self) if draw else None
