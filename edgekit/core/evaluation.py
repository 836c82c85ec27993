"""The task's evaluation set as a whole, and its metric on two models' answers to it, sample by sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from edgekit.core.errors import DataError, EdgekitError
from edgekit.core.metric import Metric
from edgekit.core.slices import read_slices
from edgekit.core.task import Task

if TYPE_CHECKING:
    from edgekit.core.tensors import Array, Arrays

__all__ = ["Evaluation", "gather_evaluation", "guarded", "pair_scores"]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A task's whole evaluation set.

    Args:
        inputs: Input name -> ``[N, ...]``.
        targets: ``[N, ...]``, or None.
        raw: Input name -> raw pictures ``[N, H, W, C]``, where the task's data are raw and have one size.
        slices: Group -> each sample's label ``[N]``.
    """

    inputs: Mapping[str, Array]
    targets: Array | None
    raw: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    slices: Mapping[str, Array] = dataclasses.field(default_factory=dict)

    @property
    def sample_count(self) -> int:
        """How many samples there are."""
        return len(next(iter(self.inputs.values())))

    def sample(self, count: int, *, seed: int) -> Evaluation:
        """``count`` samples chosen at random without replacement, in their own order; all of them where there are no more.

        >>> import numpy as np
        >>> Evaluation({"x": np.arange(100)}, None).sample(3, seed=0).inputs["x"].size
        3
        """
        import numpy as np

        if count >= self.sample_count:
            return self
        rows = np.sort(np.random.default_rng(seed).choice(self.sample_count, count, replace=False))
        return Evaluation(
            inputs={name: values[rows] for name, values in self.inputs.items()},
            targets=None if self.targets is None else self.targets[rows],
            raw={name: values[rows] for name, values in self.raw.items()},
            slices={name: labels[rows] for name, labels in self.slices.items()},
        )


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
    sized = list(task.sized_batches("evaluation"))
    raw = {name: np.concatenate([batch[name] for batch in sized]) for name in (sized[0] if sized else ())}
    labelled = [targets for _, targets in batches if targets is not None]
    if not labelled:
        return Evaluation(inputs, None, raw, read_slices(task.slices, inputs, None, task=task.name))
    if len(labelled) < len(batches):
        raise DataError(
            f"Task '{task.name}': {len(batches) - len(labelled)} of {len(batches)} evaluation batches have no targets."
        )
    targets = np.concatenate([np.atleast_1d(part) for part in labelled])
    count = len(next(iter(inputs.values())))
    if len(targets) != count:
        raise DataError(f"Task '{task.name}': the evaluation data holds {count} samples, but {len(targets)} targets.")
    slices = read_slices(task.slices, inputs, targets, names=list(task.labels), task=task.name)
    return Evaluation(inputs, targets, raw, slices)


def pair_scores(metric: Metric, outputs: Arrays, *, float_outputs: Arrays, targets: Array | None) -> tuple[Array, Array]:
    """Each sample's score ``[N]`` by a model's outputs, and by the float model's.

    Raises:
        DataError: The metric fails, or returns something that is no score.
    """
    if metric.against_float:
        if metric.predict is None:
            raise DataError(f"Metric '{metric.name}' compares with the float model's decisions, but has no predict function.")
        predict = metric.predict
        targets = guarded(metric, lambda: predict(float_outputs))
    ours = guarded(metric, lambda: metric.scores(outputs, targets))
    return ours, guarded(metric, lambda: metric.scores(float_outputs, targets))


def guarded(metric: Metric, compute: Callable[[], Array]) -> Array:
    """The user's own function, with its failure named as such."""
    try:
        return compute()
    except EdgekitError:
        raise
    except Exception as reason:
        raise DataError(f"Metric '{metric.name}' fails on the evaluation set. {type(reason).__name__}: {reason}") from reason
