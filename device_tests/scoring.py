"""The task's metric on answers, paired sample by sample with the float program's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.core.evaluation import Evaluation, gather_evaluation, guarded, pair_scores
from edgekit.core.metric import Metric
from edgekit.core.paired import drop_interval, mcnemar_p
from edgekit.core.validation import MetricResult
from edgekit.device_tests.parity import changed_decisions

if TYPE_CHECKING:
    from edgekit.core.tensors import Array, Arrays

__all__ = ["Evaluation", "gather_evaluation", "score"]


def score(metric: Metric, outputs: Arrays, *, float_outputs: Arrays, targets: Array | None, seed: int = 0) -> MetricResult:
    """Score an artifact's answers against the float program's on the same samples.

    Args:
        metric: The task's metric.
        outputs: Output name -> ``[N, ...]``, the artifact's.
        float_outputs: The same, the float program's.
        targets: ``[N, ...]``, or None for metrics against float.
        seed: Seeds the interval's resampling.

    Raises:
        DataError: The metric fails, or returns something that is no score.
    """
    import numpy as np

    ours, floats = pair_scores(metric, outputs, float_outputs=float_outputs, targets=targets)
    drop = floats - ours
    is_binary = bool(np.isin(ours, (0, 1)).all() and np.isin(floats, (0, 1)).all())
    gained, lost = int((drop < 0).sum()), int((drop > 0).sum())
    low, high = drop_interval(drop, seed=seed)
    flips = None
    if metric.predict is not None:
        decide = metric.predict
        flips = int(guarded(metric, lambda: changed_decisions(outputs, float_outputs, decide)).sum())
    return MetricResult(
        name=metric.name,
        value=float(ours.mean()),
        float_value=float(floats.mean()),
        sample_count=int(ours.size),
        drop_points=float(100 * drop.mean()),
        drop_interval=(100 * low, 100 * high),
        flip_count=flips,
        gained=gained if is_binary else None,
        lost=lost if is_binary else None,
        p_value=mcnemar_p(gained, lost) if is_binary else None,
    )
