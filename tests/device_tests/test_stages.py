"""What a step won is told from what it did not, on a bench that answers as it is told."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.compression.capture import capture, recapture
from edgekit.core.compressed import Compressed
from edgekit.core.errors import ConversionError, DataError, DeviceError, MissingExtraError
from edgekit.core.measurement import Evidence, Measurement
from edgekit.core.recipe import Recipe
from edgekit.core.stages import Stage, TimedProgram
from edgekit.core.task import Task
from edgekit.device_tests.stages import StageMeter
from edgekit.device_tests.workbench import Answered

SAMPLES = np.random.default_rng(0).standard_normal((200, 8)).astype(np.float32)
CLASSES = SAMPLES[:, :3].argmax(1)


def net(width: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(8, width), torch.nn.ReLU(), torch.nn.Linear(width, 3)).eval()


@dataclasses.dataclass
class FakeBench:
    """Knows of each program, by its MACs, how fast and how large its file is and which share of the samples it gets right."""

    facts: Mapping[int, tuple[float, int, float]]
    task: Task
    fails: Callable[[Compressed], Exception | None] = lambda _: None
    calls: list[str] = dataclasses.field(default_factory=list)
    is_lost: bool = False

    def profile(self, **_: Any) -> Any:
        return SimpleNamespace(name="host")

    def artifact(self, state: Compressed, *, target: str, label: str) -> Any:
        self.calls.append(f"convert {label}")
        if reason := self.fails(state):
            raise reason
        return SimpleNamespace(target=target, label=label, facts=self._of(state))

    @contextlib.contextmanager
    def workbench(self, *_: Any, **__: Any) -> Iterator[FakeBench]:
        yield self

    def answers(self, artifact: Any, *, contract: None) -> Answered:
        self.calls.append(f"answer {artifact.label}")
        scores = np.eye(3, dtype=np.float32)[CLASSES]
        wrong = round((1 - artifact.facts[2]) * len(scores))
        scores[:wrong] = np.roll(scores[:wrong], 1, axis=1)
        return Answered(arrays={"evaluation/output": scores})

    def time_files(self, artifacts: Mapping[str, Any], *, golden: Any, device: str) -> dict[str, TimedProgram]:
        self.calls.append(f"time {len(artifacts)}")
        if self.is_lost:
            raise DeviceError("the device is gone")
        dense, *_ = (one.facts[0] for one in artifacts.values())
        return {label: self._timed(one.facts, dense, one.target) for label, one in artifacts.items()}

    def _of(self, state: Compressed) -> tuple[float, int, float]:
        return self.facts[sum(one.numel() for one in state.program.parameters())]

    def _timed(self, facts: tuple[float, int, float], dense: float, target: str) -> TimedProgram:
        ms, size, _ = facts
        latency = Measurement(name="latency", value=ms, unit="ms", evidence=Evidence.MEASURED)
        ratio = dense / ms
        interval = (ratio * 0.97, ratio * 1.03)
        return TimedProgram(
            target=target, device="host", latency=latency, size_bytes=size, speedup=ratio, speedup_interval=interval
        )


@dataclasses.dataclass
class Road:
    """A task, its captured program, and programs of other widths."""

    task: Task
    dense: Compressed

    def of(self, width: int) -> Compressed:
        return recapture(self.dense, net(width), self.task)


@pytest.fixture(scope="module")
def road() -> Road:
    torch.manual_seed(0)
    task = Task(name="t", model=net(16), example_inputs=SAMPLES[:1], evaluation=[(SAMPLES, CLASSES)])
    return Road(task, capture(task, recipe=Recipe.parse_text("none")))


PARAMETERS = {width: 8 * width + width + 3 * width + 3 for width in (8, 15, 16)}


def meter(road: Road, facts: dict[int, tuple[float, int, float]], **more: Any) -> tuple[StageMeter, FakeBench]:
    bench = FakeBench({PARAMETERS[width]: fact for width, fact in facts.items()}, road.task)
    return StageMeter(bench, road.task, target="onnx", **more), bench  # type: ignore[arg-type]  # as much of a bench as it needs


def walk(meter: StageMeter, road: Road, *widths: int) -> list[Stage]:
    for at, width in enumerate(widths):
        meter.add(road.of(width) if at else road.dense, label=f"prune{width}" if at else "dense")
    return list(meter.finish())


def test_a_step_that_helps(road: Road) -> None:
    dense, pruned = walk(meter(road, {16: (2.0, 1000, 0.9), 8: (1.0, 600, 0.7)})[0], road, 16, 8)
    assert (dense.label, dense.change, dense.metric_name) == ("dense", 0.0, "top-1 accuracy")
    assert dense.metric == pytest.approx(0.9)
    assert (dense.macs, pruned.macs) == (8 * 16 + 16 * 3, 8 * 8 + 8 * 3)
    assert pruned.change == pytest.approx(-0.2)
    assert pruned.change_interval is not None
    assert pruned.change_interval[0] < -0.2 < pruned.change_interval[1] < 0
    assert pruned.timed is not None
    assert pruned.timed.speedup == pytest.approx(2.0)
    assert (pruned.helped, pruned.remark) == (True, "")


def test_a_step_that_changed_nothing_is_named(road: Road) -> None:
    stages = walk(meter(road, {16: (2.0, 1000, 0.9)})[0], road, 16, 16)
    assert not stages[1].helped
    assert stages[1].remark == "'prune16' did not help: MACs, top-1 accuracy, size and latency are as before."


def test_noise_is_no_gain_and_what_became_worse_is_said(road: Road) -> None:
    """16 after 15: MACs and size grow, latency and one sample are better, but not beyond the noise."""
    stages = walk(meter(road, {16: (1.97, 1100, 0.905), 15: (2.0, 1000, 0.9)})[0], road, 16, 15, 16)
    assert stages[1].helped
    assert stages[2].remark == "'prune16' did not help: top-1 accuracy and latency are as before, MACs and size became worse."


def test_fewer_macs_in_a_slower_file(road: Road) -> None:
    pruned = walk(meter(road, {16: (1.0, 1000, 0.9), 8: (1.5, 600, 0.9)})[0], road, 16, 8)[1]
    assert pruned.helped
    assert pruned.remark == "'prune8' made latency worse."


def test_training_that_brings_the_metric_back(road: Road) -> None:
    measured, bench = meter(road, {16: (2.0, 1000, 0.9), 8: (1.0, 600, 0.7)})
    measured.add(road.dense, label="dense")
    measured.add(road.of(8), label="prune50")
    bench.facts = {PARAMETERS[8]: (1.0, 600, 0.88)}
    measured.add(road.of(8), label="distill")
    *_, trained = measured.finish()
    assert (trained.helped, trained.remark) == (True, "")


def test_all_files_are_timed_in_one_go(road: Road) -> None:
    measured, bench = meter(road, {16: (2.0, 1000, 0.9), 8: (1.0, 600, 0.7)})
    walk(measured, road, 16, 8, 8)
    assert [call for call in bench.calls if call.startswith("time")] == ["time 3"]


def test_answers_are_kept(road: Road, tmp_path: Path) -> None:
    facts = {16: (2.0, 1000, 0.9), 8: (1.0, 600, 0.7)}
    torch.manual_seed(1)
    pruned = road.of(8)
    first, bench = meter(road, facts, folder=tmp_path)
    again, idle = meter(road, facts, folder=tmp_path)
    for one in (first, again):
        one.add(road.dense, label="dense")
        one.add(pruned, label="prune50")
    assert again.finish() == first.finish()
    assert [call for call in bench.calls if call.startswith("answer")] == ["answer 0-dense", "answer 1-prune50"]
    assert [call for call in idle.calls if call.startswith("answer")] == []


def test_a_file_that_cannot_be_made_does_not_lose_the_step(road: Road) -> None:
    measured, bench = meter(road, {16: (2.0, 1000, 0.9), 8: (1.0, 600, 0.7)})
    measured.add(road.dense, label="dense")
    bench.fails = lambda _: ConversionError("no kernel for it")
    measured.add(road.of(8), label="prune50")
    dense, stage = measured.finish()
    assert dense.timed is not None
    assert (stage.metric, stage.timed, stage.remark) == (None, None, "Not measured: no kernel for it")
    assert stage.macs == 8 * 8 + 8 * 3


def test_a_device_that_is_lost_at_the_end_does_not_lose_the_run(road: Road) -> None:
    measured, bench = meter(road, {16: (2.0, 1000, 0.9), 8: (1.0, 600, 0.7)})
    bench.is_lost = True
    dense, pruned = walk(measured, road, 16, 8)
    assert (dense.timed, pruned.timed, pruned.remark) == (None, None, "Not timed: the device is gone")
    assert pruned.metric == pytest.approx(0.7)


def test_what_cannot_be_measured_at_all_is_said_before_anything_is_trained(road: Road) -> None:
    measured, bench = meter(road, {16: (2.0, 1000, 0.9)})
    bench.fails = lambda _: ConversionError("no kernel for it")
    with pytest.raises(ConversionError, match="no kernel"):
        measured.add(road.dense, label="dense")
    empty = dataclasses.replace(road.task, evaluation=[])
    with pytest.raises(DataError, match="evaluation data is empty"):
        StageMeter(bench, empty, target="onnx").add(road.dense, label="dense")  # type: ignore[arg-type]


def test_without_evaluation_data_the_rest_is_measured(road: Road) -> None:
    bench = FakeBench({PARAMETERS[16]: (2.0, 1000, 0.9)}, road.task)
    bare = dataclasses.replace(road.task, evaluation=None)
    measured = StageMeter(bench, bare, target="onnx")  # type: ignore[arg-type]
    [stage] = walk(measured, road, 16)
    assert stage.metric is None
    assert stage.timed is not None


def test_where_no_target_is_installed_work_is_only_counted(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(part: Any) -> None:
        raise MissingExtraError(part.extra, module=part.modules[0])

    monkeypatch.setattr("edgekit.registry.require", missing)
    bench = FakeBench({}, road.task)
    measured = StageMeter(bench, road.task)  # type: ignore[arg-type]
    dense, pruned = walk(measured, road, 16, 8)
    assert dense.remark == "Nothing was converted: neither onnx nor tflite is installed."
    assert (pruned.timed, pruned.helped, pruned.macs) == (None, True, 8 * 8 + 8 * 3)
