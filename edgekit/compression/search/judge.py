"""Does a plan keep the metric? The compressed program's scores against the float program's, sample by sample."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING

import numpy as np

from edgekit.compression.search.batched import BatchedProgram
from edgekit.core.errors import DataError, RecipeError
from edgekit.core.evaluation import gather_evaluation, pair_scores
from edgekit.core.paired import highest_drop, lowest_drop

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch.export import ExportedProgram

    from edgekit.core.compressed import Compressed
    from edgekit.core.plugins import Progress
    from edgekit.core.recipe import Auto
    from edgekit.core.search import Outcome
    from edgekit.core.task import Task
    from edgekit.core.tensors import Array

__all__ = ["Judge", "Judgement"]

_FIRST_LOOK = 64
_HOPELESS = 0.999  # so sure that the bound is missed before judging stops early


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What the evaluation data says of one program; drops in points.

    Args:
        outcome: ``passed``, ``unproven`` or ``missed``.
        value: Mean score.
        drop_points: Float mean minus this one.
        highest_drop_points: One-sided upper bound.
        change_points: Mean square of the differences, in points: for right-or-wrong scores the share that changed.
        noise: Error power of the outputs over signal power.
        sample_count: Samples judged.
    """

    outcome: Outcome
    value: float
    drop_points: float
    highest_drop_points: float
    change_points: float
    noise: float
    sample_count: int


class Judge:
    """Holds the evaluation data and the float program's answers to it.

    Args:
        task: Brings evaluation data and metric.
        state: The float program.
        step: Bound and confidence.
        progress: Called as the work advances.

    Raises:
        DataError: No evaluation data, or a metric that fails, is not finite or changes between identical runs.
        RecipeError: The bound means nothing for this metric.
    """

    def __init__(self, task: Task, state: Compressed, *, step: Auto, progress: Progress) -> None:
        self.task, self.step, self.progress = task, step, progress
        self.names = [spec.name for spec in state.record.outputs]
        found = gather_evaluation(task)
        if found is None:
            raise DataError(
                f"Task '{task.name}' has no evaluation data, so 'auto' cannot judge a plan."
                " Give Task(..., evaluation=...) pairs (inputs, targets), or choose a recipe yourself."
            )
        _check_repeatable(task)
        self.count = len(next(iter(found.inputs.values())))
        order = np.random.default_rng(task.seed).permutation(self.count)  # data in order of class would mislead an early look
        self.inputs: dict[str, Array] = {name: array[order] for name, array in found.inputs.items()}
        self.targets = None if found.targets is None else found.targets[order]
        progress("judge float", 0, self.count)
        self.floats = BatchedProgram(state.program, self.names).answer(self.inputs)
        progress("judge float", self.count, self.count)
        self.float_scores = self._check_metric()
        self.smallest_bound = 100 * highest_drop(np.zeros(self.count), confidence=step.confidence)

    @property
    def can_prove(self) -> bool:
        """Whether there is data enough to show the bound for any plan at all."""
        return self.smallest_bound <= self.step.max_drop

    @property
    def float_value(self) -> float:
        """The float program's mean score."""
        return float(self.float_scores.mean())

    def fingerprint(self) -> str:
        """Digest of what judgements depend on, besides the plan: data, float answers, bound."""
        digest = hashlib.sha256(repr((self.step.max_drop, self.step.confidence, self.step.size_bytes)).encode())
        for array in (*self.inputs.values(), *self.floats.values(), self.float_scores):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def judge(self, program: ExportedProgram, *, what: str) -> Judgement:
        """Score a program; stop as soon as it is out of the question that it keeps the bound."""
        batched = BatchedProgram(program, self.names)
        differences = np.empty(0)
        error = signal = total = 0.0
        for start, stop in self._looks():
            self.progress(f"judge {what}", start, self.count)
            outputs = batched.answer({name: array[start:stop] for name, array in self.inputs.items()})
            ours = self.scores(outputs, start, stop)
            total += float(ours.sum())
            differences = np.concatenate([differences, self.float_scores[start:stop] - ours])
            more_error, more_signal = self._powers(outputs, start, stop)
            error, signal = error + more_error, signal + more_signal
            if stop < self.count and 100 * lowest_drop(differences, confidence=_HOPELESS) > self.step.max_drop:
                break
        self.progress(f"judge {what}", len(differences), len(differences))
        return self._conclude(differences, total, error / signal if signal > 0 else 0.0)

    def scores(self, outputs: Mapping[str, Array], start: int, stop: int) -> Array:
        """Scores of outputs for a part of the samples."""
        floats = {name: array[start:stop] for name, array in self.floats.items()}
        targets = None if self.targets is None else self.targets[start:stop]
        ours, _ = pair_scores(self.task.metric, dict(outputs), float_outputs=floats, targets=targets)
        return ours

    def _looks(self) -> Iterator[tuple[int, int]]:
        start, stop = 0, _FIRST_LOOK
        while start < self.count:
            yield start, min(stop, self.count)
            start, stop = stop, 2 * stop

    def _powers(self, outputs: Mapping[str, Array], start: int, stop: int) -> tuple[float, float]:
        error = signal = 0.0
        for name, values in outputs.items():
            reference = self.floats[name][start:stop]
            if reference.dtype.kind == "f":
                error += float(((values.astype(np.float64) - reference) ** 2).sum())
                signal += float((reference.astype(np.float64) ** 2).sum())
        return error, signal

    def _conclude(self, differences: Array, total: float, noise: float) -> Judgement:
        drop = 100 * float(differences.mean())
        highest = 100 * highest_drop(differences, confidence=self.step.confidence)
        complete = len(differences) == self.count
        outcome: Outcome = "missed"
        if complete and highest <= self.step.max_drop:
            outcome = "passed"
        elif complete and not self.can_prove and drop <= self.step.max_drop:
            outcome = "unproven"
        change = 100 * float((differences**2).mean())
        return Judgement(outcome, total / len(differences), drop, highest, change, noise, len(differences))

    def _check_metric(self) -> Array:
        metric, targets = self.task.metric, self.targets
        first, again = (pair_scores(metric, self.floats, float_outputs=self.floats, targets=targets)[0] for _ in range(2))
        if not np.array_equal(first, again):
            at = int(np.flatnonzero(first != again)[0])
            raise DataError(
                f"Metric '{metric.name}' changes between two identical runs: sample {at} scored {first[at]:g},"
                f" then {again[at]:g}. A drop cannot be told from that; take the random numbers out of the metric, or seed them."
            )
        if 100 * float(first.mean()) <= self.step.max_drop:
            raise RecipeError(
                f"A drop of {self.step.max_drop:g} points is no bound: the float model itself scores"
                f" {100 * float(first.mean()):.4g} points of '{metric.name}'. Set a smaller max_drop."
            )
        return first


def _check_repeatable(task: Task) -> None:
    """Refuse evaluation data that differs from one reading to the next: nothing could be compared, or resumed."""
    first, again = (next(iter(task.evaluation_batches())) for _ in range(2))
    same = all(np.array_equal(first[0][name], again[0][name]) for name in first[0])
    targets = (first[1], again[1])
    if not same or not (targets[0] is None or targets[1] is None or np.array_equal(targets[0], targets[1])):
        raise DataError(
            f"Task '{task.name}': the evaluation data changes between two identical runs (its first batch does)."
            " Give every reading the same samples in the same order: seed the shuffling or augmentation, or take it out."
        )
