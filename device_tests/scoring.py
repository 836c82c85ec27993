"""The task's metric on answers, paired sample by sample with the float program's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from edgekit.core.errors import DataError, EdgekitError
from edgekit.core.metric import Metric
from edgekit.core.task import Task
from edgekit.core.validation import MetricResult
from edgekit.device_tests.paired import drop_interval, mcnemar_p
from edgekit.device_tests.parity import changed_decisions

if TYPE_CHECKING:
    from edgekit.core.tensors import Array, Arrays

__all__ = ["Evaluation", "gather_evaluation", "score"]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A task's whole evaluation set.

    Args:
        inputs: Input name -> ``[N, ...]``.
        targets: ``[N, ...]``, or None.
    """

    inputs: Mapping[str, Array]
    targets: Array | None


def gather_evaluation(task: Task | None) -> Evaluation | None:
    """All evaluation batches of a task in one; None where it has none.

    Raises:
        DataError: The data is empty or wrong, or some batches have targets and others none.
    """
    import numpy as np

    if task is None or task.evaluation is None:
        return None
    batches = list(task.evaluation_batches())
    inputs = {name: np.concatenate([batch[name] for batch, _ in batches]) for name in batches[0][0]}
    labelled = [targets for _, targets in batches if targets is not None]
    if not labelled:
        return Evaluation(inputs, None)
    if len(labelled) < len(batches):
        raise DataError(
            f"Task '{task.name}': {len(batches) - len(labelled)} of {len(batches)} evaluation batches have no targets."
        )
    targets = np.concatenate([np.atleast_1d(part) for part in labelled])
    count = len(next(iter(inputs.values())))
    if len(targets) != count:
        raise DataError(f"Task '{task.name}': the evaluation data holds {count} samples, but {len(targets)} targets.")
    return Evaluation(inputs, targets)


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

    if metric.against_float:
        if metric.predict is None:
            raise DataError(f"Metric '{metric.name}' compares with the float model's decisions, but has no predict function.")
        predict = metric.predict
        targets = _guarded(metric, lambda: predict(float_outputs))
    ours = _guarded(metric, lambda: metric.scores(outputs, targets))
    floats = _guarded(metric, lambda: metric.scores(float_outputs, targets))
    drop = floats - ours
    is_binary = bool(np.isin(ours, (0, 1)).all() and np.isin(floats, (0, 1)).all())
    gained, lost = int((drop < 0).sum()), int((drop > 0).sum())
    low, high = drop_interval(drop, seed=seed)
    flips = None
    if metric.predict is not None:
        decide = metric.predict
        flips = int(_guarded(metric, lambda: changed_decisions(outputs, float_outputs, decide)).sum())
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


def _guarded(metric: Metric, compute: Callable[[], Array]) -> Array:
    """The user's own function, with its failure named as such."""
    try:
        return compute()
    except EdgekitError:
        raise
    except Exception as reason:
        raise DataError(f"Metric '{metric.name}' fails on the evaluation set. {type(reason).__name__}: {reason}") from reason
