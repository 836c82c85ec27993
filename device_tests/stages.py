"""What a recipe's steps won, found on the converted file of the program after each of them.

Each file answers the evaluation data once its step is done; at the end all are timed in turn, so that their times can be
compared with each other.

A step helped if it made anything better than it was before the step: the metric (beyond what chance explains), the
multiply-accumulates, the file's size, or the latency (beyond the noise). One that did not is named.

Files and answers lie in folders, so that a run that was killed does not convert and answer again.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit import registry
from edgekit.core.errors import ConversionError, EdgekitError, MissingExtraError, WorkerError
from edgekit.core.evaluation import gather_evaluation, pair_scores
from edgekit.core.paired import drop_interval
from edgekit.core.plugins import Progress, silent
from edgekit.core.program_cost import count_macs, count_parameters
from edgekit.core.stages import Stage, TimedProgram
from edgekit.device_tests.arrays import read_arrays, write_arrays
from edgekit.device_tests.bench import DeviceBench, state_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgekit.core.artifact import Artifact
    from edgekit.core.compressed import Compressed
    from edgekit.core.evaluation import Evaluation
    from edgekit.core.task import Task
    from edgekit.core.tensors import Array

__all__ = ["StageMeter"]

_USUAL_TARGETS = ("onnx", "tflite")
_SAME_SIZE = 1e-3
"""Files whose sizes are this close are equally large: names and padding differ."""


@dataclasses.dataclass(frozen=True)
class _Measured:
    """One stage with what it rests on.

    Args:
        stage: What is known of it.
        artifact: Its file; None where there is none.
        scores: Each evaluation sample's score ``[N]``; None without evaluation data.
    """

    stage: Stage
    artifact: Artifact | None = None
    scores: Array | None = None


class StageMeter:
    """Measures a program after each step, the dense program first.

    Args:
        bench: Converts and times.
        task: Brings evaluation data and metric; without them the metric stays unanswered.
        target: What is converted to; None: the first of onnx and tflite that is installed.
        device: Profile name or file.
        folder: Keeps answers; None: nothing is kept.
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
        self._golden: Mapping[str, Array] = {}
        self._dense_answers: dict[str, Array] = {}
        self._stages: list[_Measured] = []
        if target is not None:
            registry.require(registry.converter(target))
            bench.profile(target=target, device=device)

    def add(self, state: Compressed, *, label: str) -> None:
        """Convert and run the program as it is now.

        Args:
            state: The program after a step; the first is the captured one.
            label: The step's word.

        Raises:
            EdgekitError: The captured program's data, metric or device is at fault. Of later programs nothing is raised, for
                their training would be lost: the stage's remark says what could not be measured.
        """
        self._progress(f"measure {label}", 0, None)
        costs = _costs(state, label)
        if not self._stages:
            self._stages.append(self._first(state, costs))
            return
        try:
            self._stages.append(self._measured(state, costs))
        except EdgekitError as reason:
            self._stages.append(_Measured(costs.replace(remark=f"Not measured: {reason}")))

    def finish(self) -> tuple[Stage, ...]:
        """Time all files in turn and say of each step whether it helped; stages in the order they were added."""
        self._progress("time the stages", 0, None)
        files = {str(at): one.artifact for at, one in enumerate(self._stages) if one.artifact is not None}
        timed: dict[str, TimedProgram] = {}
        failure = ""
        if "0" in files:
            try:
                timed = self._bench.time_files(files, golden=self._golden, device=self._device)
            except EdgekitError as reason:
                failure = f"Not timed: {reason}"
        done: list[_Measured] = []
        for at, one in enumerate(self._stages):
            stage = one.stage.replace(timed=timed.get(str(at)), remark=one.stage.remark or (failure if at else ""))
            now = dataclasses.replace(one, stage=stage)
            done.append(dataclasses.replace(now, stage=_judged(now, done[-1])) if done else now)
        return tuple(one.stage for one in done)

    def _first(self, state: Compressed, costs: Stage) -> _Measured:
        """The captured program: what cannot be measured of it is measured of none."""
        if self._target is None:
            return _Measured(costs.replace(remark="Nothing was converted: neither onnx nor tflite is installed."))
        self._evaluation = gather_evaluation(self._task)
        self._golden = state.golden.inputs
        try:
            return self._measured(state, costs)
        except ConversionError as reason:
            if self._asked_for:
                raise
            self._target = None
            return _Measured(costs.replace(remark=f"Not measured: {reason}"))

    def _measured(self, state: Compressed, costs: Stage) -> _Measured:
        """The program's file and its metric, from what was kept where it was."""
        if self._target is None:
            return _Measured(costs)
        artifact = self._bench.artifact(state, target=self._target, label=f"{len(self._stages)}-{costs.label}")
        if self._evaluation is None:
            return _Measured(costs, artifact)
        place = self._place(state, self._evaluation)
        if place is not None and place.is_file():
            answers = read_arrays(place)
        else:
            answers = self._answers(artifact, self._evaluation)
            if place is not None:
                place.parent.mkdir(parents=True, exist_ok=True)
                write_arrays(place, answers)
        if not self._stages:
            self._dense_answers = answers
        return self._scored(costs, artifact, answers)

    def _place(self, state: Compressed, evaluation: Evaluation) -> Path | None:
        """Where the answers of a program to these samples are kept."""
        if self._folder is None:
            return None
        parts = [state_digest(state), str(self._target), self._device]
        parts += [f"{name} {hashlib.sha256(array.tobytes()).hexdigest()}" for name, array in evaluation.inputs.items()]
        return self._folder / f"{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:24]}.npz"

    def _answers(self, artifact: Artifact, evaluation: Evaluation) -> dict[str, Array]:
        """Output name -> ``[N, ...]``, computed by the file in its runtime."""
        profile = self._bench.profile(target=artifact.target, device=self._device)
        with self._bench.workbench(profile, golden=self._golden, evaluation=evaluation.inputs) as bench:
            answered = bench.answers(artifact, contract=None)
        if answered.failure:
            raise WorkerError(f"{artifact.label} cannot be run on '{profile.name}': {answered.failure}")
        return answered.outputs("evaluation")

    def _scored(self, stage: Stage, artifact: Artifact, answers: dict[str, Array]) -> _Measured:
        metric, targets = self._task.metric, self._evaluation.targets if self._evaluation else None
        ours, dense = pair_scores(metric, answers, float_outputs=self._dense_answers, targets=targets)
        low, high = drop_interval(dense - ours, seed=self._task.seed)
        scored = stage.replace(
            metric_name=metric.name,
            metric=float(ours.mean()),
            change=float((ours - dense).mean()) + 0.0,
            change_interval=(-high, -low) if self._stages else (0.0, 0.0),
        )
        return _Measured(scored, artifact, ours)


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
