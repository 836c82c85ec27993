"""The task's metric on answers, paired sample by sample with the float program's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgekit.core.evaluation import Evaluation, gather_evaluation, guarded, pair_scores
from edgekit.core.metric import Metric
from edgekit.core.paired import drop_interval, lowest_drop, mcnemar_p
from edgekit.core.validation import MetricResult, SliceResult
from edgekit.device_tests.parity import changed_decisions

if TYPE_CHECKING:
    from edgekit.core.tensors import Array, Arrays

__all__ = ["Evaluation", "gather_evaluation", "score"]

_ERROR = 0.05
"""Chance, all slices together, of calling one worse that is not."""


def score(
    metric: Metric,
    outputs: Arrays,
    *,
    float_outputs: Arrays,
    targets: Array | None,
    slices: Mapping[str, Array] | None = None,
    seed: int = 0,
) -> MetricResult:
    """Score an artifact's answers against the float program's on the same samples.

    Args:
        metric: The task's metric.
        outputs: Output name -> ``[N, ...]``, the artifact's.
        float_outputs: The same, the float program's.
        targets: ``[N, ...]``, or None for metrics against float.
        slices: Group -> each sample's label ``[N]``.
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
        flips = guarded(metric, lambda: changed_decisions(outputs, float_outputs, decide))
    return MetricResult(
        name=metric.name,
        value=float(ours.mean()),
        float_value=float(floats.mean()),
        sample_count=int(ours.size),
        drop_points=float(100 * drop.mean()),
        drop_interval=(100 * low, 100 * high),
        flip_count=None if flips is None else int(flips.sum()),
        gained=gained if is_binary else None,
        lost=lost if is_binary else None,
        p_value=mcnemar_p(gained, lost) if is_binary else None,
        slices=_sliced(slices or {}, ours, floats, flips, seed=seed),
    )


def _sliced(
    slices: Mapping[str, Array], ours: Array, floats: Array, flips: Array | None, *, seed: int
) -> tuple[SliceResult, ...]:
    """The metric on every slice, the largest drop first.

    That *some* slice is worse is claimed by a bound which holds for all of them together (Bonferroni); that *none* is worse
    needs each slice's own interval only (intersection-union test, Berger 1982).
    """
    import numpy as np

    parts = [(group, str(name), labels == name) for group, labels in slices.items() for name in np.unique(labels)]
    confidence = 1 - _ERROR / max(len(parts), 1)
    found = []
    for group, name, chosen in parts:
        drop = (floats - ours)[chosen]
        low, high = drop_interval(drop, seed=seed)
        found.append(
            SliceResult(
                group=group,
                name=name,
                sample_count=int(chosen.sum()),
                value=float(ours[chosen].mean()),
                float_value=float(floats[chosen].mean()),
                drop_points=float(100 * drop.mean()),
                drop_interval=(100 * low, 100 * high),
                lowest_drop_points=100 * lowest_drop(drop, confidence=confidence, seed=seed),
                flip_count=None if flips is None else int(flips[chosen].sum()),
            )
        )
    return tuple(sorted(found, key=lambda one: -one.drop_points))
