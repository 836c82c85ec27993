"""What a recipe's steps won: the program after each of them is converted, run on the evaluation data and timed.

A step helped if it made anything better than it was before the step: the metric (beyond what chance explains), the
multiply-accumulates, the file's size, or the latency (beyond the noise). One that did not is named.

What was found lies in the meter's folder, so that a run that was killed does not measure again.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit import registry
from edgekit.core.errors import ConversionError, EdgekitError, MissingExtraError, WorkerError
from edgekit.core.evaluation import gather_evaluation, pair_scores
from edgekit.core.model import Record
from edgekit.core.paired import drop_interval
from edgekit.core.plugins import Progress, silent
from edgekit.core.program_cost import count_macs, count_parameters
from edgekit.core.stages import Stage, TimedProgram
from edgekit.device_tests.arrays import read_arrays, write_arrays
from edgekit.device_tests.bench import DeviceBench, state_digest

if TYPE_CHECKING:
    from edgekit.core.compressed import Compressed
    from edgekit.core.evaluation import Evaluation
    from edgekit.core.task import Task
    from edgekit.core.tensors import Array

__all__ = ["StageMeter"]

_USUAL_TARGETS = ("onnx", "tflite")
_SAME_SIZE = 1e-3
"""Files whose sizes are this close are equally large: names and padding differ."""


class _Found(Record):
    """What was measured of one program; its scores lie beside it.

    Args:
        timed: Latency, size and speed-up over the dense program's file.
    """

    timed: TimedProgram | None = None


@dataclasses.dataclass(frozen=True)
class _Measured:
    """One stage with the scores it rests on."""

    stage: Stage
    scores: Array | None


class StageMeter:
    """Measures a program after each step, the dense program first.

    Args:
        bench: Converts and times.
        task: Brings evaluation data and metric; without them the metric stays unanswered.
        target: What is converted to; None: the first of onnx and tflite that is installed.
        device: Profile name or file.
        folder: Keeps what was found; None: nothing is kept.
        progress: Called as the work advances.

    Raises:
        MissingExtraError: The target that was asked for, or its runtime, is not installed.
        ProfileError: There is no such device, or it has no runtime for the target.
    """

    def __init__(
        self,
        bench: DeviceBench,
        task: Task,
        *,
        target: str | None = None,
        device: str = "host",
        folder: Path | None = None,
        progress: Progress = silent,
    ) -> None:
        self._bench = bench
        self._task = task
        self._asked_for = target is not None
        self._target = target or _usual_target(bench, device)
        self._device = device
        self._folder = folder
        self._progress = progress
        self._evaluation: Evaluation | None = None
        self._dense: Compressed | None = None
        self._dense_answers: dict[str, Array] = {}
        self._before: _Measured | None = None
        if self._target:
            bench.profile(target=self._target, device=device)

    def measure(self, state: Compressed, *, label: str) -> Stage:
        """What the program is worth now.

        Args:
            state: The program after a step; the first is the captured one.
            label: The step's word.

        Raises:
            EdgekitError: The captured program's data, metric or device is at fault. Of later programs nothing is raised, for
                their training would be lost: the stage's remark says what could not be measured.
        """
        self._progress(f"measure {label}", 0, None)
        if self._dense is None:
            return self._first(state, label)
        before = self._before
        costs = _costs(state, label)
        try:
            now = self._found(state, costs)
        except EdgekitError as reason:
            now = _Measured(costs.replace(remark=f"Not measured: {reason}"), None)
        stage = _judged(now, before) if before else now.stage
        self._before = _Measured(stage, now.scores)
        return stage

    def _first(self, state: Compressed, label: str) -> Stage:
        """The captured program: what cannot be measured of it is measured of none."""
        self._dense = state
        costs = _costs(state, label)
        if self._target is None:
            self._before = _Measured(costs.replace(remark="Nothing was converted: neither onnx nor tflite is installed."), None)
            return self._before.stage
        self._evaluation = gather_evaluation(self._task)
        try:
            self._before = self._found(state, costs)
        except ConversionError as reason:
            if self._asked_for:
                raise
            self._before = _Measured(costs.replace(remark=f"Not measured: {reason}"), None)
            self._target = None
        return self._before.stage

    def _found(self, state: Compressed, costs: Stage) -> _Measured:
        """Everything about one program, measured or as it was kept."""
        if self._target is None or self._dense is None:
            return _Measured(costs, None)
        place = self._place(state)
        if place is not None and place.with_suffix(".json").is_file():
            timed = _Found.read_json(place.with_suffix(".json")).timed
            answers = read_arrays(place.with_suffix(".npz"))
        else:
            answers = self._answers(state, costs.label)
            timed = self._timed(state, costs.label)
            if place is not None:
                place.parent.mkdir(parents=True, exist_ok=True)
                write_arrays(place.with_suffix(".npz"), answers)
                _Found(timed=timed).write_json(place.with_suffix(".json"))
        if state is self._dense:
            self._dense_answers = answers
        return self._scored(costs.replace(timed=timed), answers)

    def _place(self, state: Compressed) -> Path | None:
        if self._folder is None or self._dense is None:
            return None
        parts = [state_digest(state), state_digest(self._dense), str(self._target), self._device]
        if self._evaluation is not None:
            parts += [f"{name} {hashlib.sha256(array.tobytes()).hexdigest()}" for name, array in self._evaluation.inputs.items()]
        return self._folder / hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]

    def _answers(self, state: Compressed, label: str) -> dict[str, Array]:
        """Output name -> ``[N, ...]``, computed by the converted file in its runtime; empty without evaluation data."""
        if self._evaluation is None or self._target is None:
            return {}
        profile = self._bench.profile(target=self._target, device=self._device)
        artifact = self._bench.artifact(state, target=self._target, label=label)
        with self._bench.workbench(profile, golden=state.golden.inputs, evaluation=self._evaluation.inputs) as bench:
            answered = bench.answers(artifact, contract=None)
        if answered.failure:
            raise WorkerError(f"The {self._target} file of '{label}' cannot be run: {answered.failure}")
        return answered.outputs("evaluation")

    def _timed(self, state: Compressed, label: str) -> TimedProgram:
        states = {"dense": self._dense or state} | ({label: state} if state is not self._dense else {})
        found = self._bench.time(states, target=str(self._target), device=self._device)
        return next(reversed(found.values()))

    def _scored(self, stage: Stage, answers: dict[str, Array]) -> _Measured:
        if not answers or self._evaluation is None:
            return _Measured(stage, None)
        metric = self._task.metric
        ours, dense = pair_scores(metric, answers, float_outputs=self._dense_answers, targets=self._evaluation.targets)
        low, high = drop_interval(dense - ours, seed=self._task.seed)
        is_dense = answers is self._dense_answers
        scored = stage.replace(
            metric_name=metric.name,
            metric=float(ours.mean()),
            change=float((ours - dense).mean()) + 0.0,
            change_interval=(0.0, 0.0) if is_dense else (-high, -low),
        )
        return _Measured(scored, ours)


def _usual_target(bench: DeviceBench, device: str) -> str | None:
    for target in _USUAL_TARGETS:
        try:
            registry.require(registry.converter(target))
            bench.profile(target=target, device=device)
        except MissingExtraError:
            continue
        return target
    return None


def _costs(state: Compressed, label: str) -> Stage:
    """The float program that carries the work: quantization takes no multiplication and no weight away."""
    program = state.program if not state.contract.entries else (state.source_program or state.float_program)
    return Stage(label=label, macs=count_macs(program), parameter_count=count_parameters(program))


def _judged(now: _Measured, before: _Measured) -> Stage:
    """The stage with what the step won, or that it won nothing."""
    stage, earlier = now.stage, before.stage
    moves = {
        "MACs": (stage.macs < earlier.macs, stage.macs > earlier.macs),
        stage.metric_name or "metric": _metric_moved(now, before),
        "size": _size_moved(stage.timed, earlier.timed),
        "latency": _latency_moved(stage.timed, earlier.timed),
    }
    worsened = [name for name, (_, is_worse) in moves.items() if is_worse]
    same = [name for name, moved in moves.items() if not any(moved)]
    if stage.remark:  # it could not be measured
        return stage
    if any(is_better for is_better, _ in moves.values()):
        heavier = [name for name in worsened if name in {"MACs", "size", "latency"}]
        return stage.replace(remark=f"'{stage.label}' made {_joined(heavier)} worse." if heavier else "")
    found = f"{_joined(same)} {'are' if len(same) > 1 else 'is'} as before" if same else "nothing became better"
    remark = f"'{stage.label}' did not help: {found}{f', {_joined(worsened)} became worse' if worsened else ''}."
    return stage.replace(helped=False, remark=remark)


def _metric_moved(now: _Measured, before: _Measured) -> tuple[bool, bool]:
    """Whether the metric became better or worse, beyond what chance explains."""
    if now.scores is None or before.scores is None:
        return False, False
    low, high = drop_interval(before.scores - now.scores)
    return high < 0, low > 0


def _size_moved(now: TimedProgram | None, before: TimedProgram | None) -> tuple[bool, bool]:
    if now is None or before is None:
        return False, False
    ratio = now.size_bytes / max(before.size_bytes, 1)
    return ratio < 1 - _SAME_SIZE, ratio > 1 + _SAME_SIZE


def _latency_moved(now: TimedProgram | None, before: TimedProgram | None) -> tuple[bool, bool]:
    """By the speed-ups over the same dense file: where their intervals are apart, it is no noise."""
    if now is None or before is None:
        return False, False
    return now.speedup_interval[0] > before.speedup_interval[1], now.speedup_interval[1] < before.speedup_interval[0]


def _joined(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
