"""What searching for a plan tried, and what came of each: :attr:`StepRecord.details` of an ``auto`` step holds it."""

from __future__ import annotations

from typing import Any, Literal

from edgekit.core.model import Record

__all__ = ["BindingLayer", "SearchReport", "Trial"]

Outcome = Literal["passed", "unproven", "missed", "too large", "failed", "skipped"]


class Trial(Record):
    """One plan.

    Args:
        label: Short name: a recipe's word, or ``"mixed"`` with what it frees.
        plan: The quantize step, every field; empty where none was made.
        outcome: ``passed``: shown to keep the bound; ``unproven``: keeps it on this data, but the data is too little to show
            it; ``missed``: not shown to keep it; ``too large``: beyond the size bound, not judged; ``failed``: the plan cannot be
            carried out; ``skipped``: what is known already says that it would miss.
        value: The metric, mean over samples, 0 to 1 for accuracies.
        drop_points: Float model's mean minus this one's, in points.
        highest_drop_points: One-sided upper bound of it.
        changed_points: Mean square of the differences, in points: for right-or-wrong scores the share that changed.
        sample_count: Samples judged; fewer than there are where the bound was out of reach early.
        snr_db: Outputs against the float model's; None where they are identical or were not compared.
        weights_bytes: What all constants take.
        work: Cost of the multiply-accumulates, 1 for all in int8 kernels (see :mod:`allocate`).
        seconds: Wall time.
        cpu_seconds: CPU time of the process.
        reason: Why it was skipped or failed.
    """

    label: str
    plan: dict[str, Any] = {}
    outcome: Outcome
    value: float | None = None
    drop_points: float | None = None
    highest_drop_points: float | None = None
    changed_points: float | None = None
    sample_count: int = 0
    snr_db: float | None = None
    weights_bytes: int = 0
    work: float = 1.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    reason: str = ""


class BindingLayer(Record):
    """What keeping one layer in float would win, measured on the float graph with everything else rounded.

    Args:
        layer: Module path.
        share: Share of the noise at the outputs that it makes.
        drop_points: Drop in points with the layer rounded, like all others.
        freed_drop_points: The same with the layer in float.
        gain_db: How much better the outputs' signal-to-noise ratio is then.
        sample_count: Evaluation samples.
    """

    layer: str
    share: float
    drop_points: float
    freed_drop_points: float
    gain_db: float
    sample_count: int


class SearchReport(Record):
    """The whole search.

    Args:
        metric: Name of the task's metric.
        float_value: The float model's mean.
        max_drop: The bound in points.
        confidence: Of the non-inferiority test.
        sample_count: Evaluation samples.
        smallest_bound: The smallest bound that so many samples could show for identical answers, in points.
        passed: A plan was shown to keep the bound.
        chosen: Label of the plan that was carried out.
        trials: In the order they were tried.
        pareto: Labels of the judged plans than which none is better in size, work and drop together.
        binding: Layers that stand in the way of the nearest miss; empty where a plan passed.
        message: What came of it, and what to do, in a sentence or two.
    """

    metric: str
    float_value: float
    max_drop: float
    confidence: float
    sample_count: int
    smallest_bound: float
    passed: bool
    chosen: str
    trials: tuple[Trial, ...]
    pareto: tuple[str, ...] = ()
    binding: tuple[BindingLayer, ...] = ()
    message: str = ""
