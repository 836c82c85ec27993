"""What the road makes of a program whose structure a step changed: which files, in which role, judged against what."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit import pipeline, registry
from edgekit.compression.capture import recapture
from edgekit.core.artifact import Artifact
from edgekit.core.compressed import Compressed, StepRecord
from edgekit.core.files import sha256
from edgekit.core.pruning import Prune
from edgekit.core.task import Task
from edgekit.device_tests import workbench

SIGNALS = np.random.default_rng(0).standard_normal((300, 3, 16)).astype(np.float32)


class Net(torch.nn.Module):
    """Channels beyond the first four are idle, so that taking them away changes no answer."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.conv = torch.nn.Conv1d(3, width, 3, padding=1)
        self.head = torch.nn.Linear(width, 4)
        with torch.no_grad():
            self.conv.weight[4:] = 0
            self.conv.bias[4:] = 0  # type: ignore[index]  # there is one

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(torch.relu(self.conv(x)).mean(-1))
        return found


class Narrower:
    """A prune step that keeps the first channels."""

    config = Prune

    def __call__(self, state: Compressed, *, task: Task, bench: Any, **_: Any) -> tuple[Compressed, StepRecord]:
        assert bench is not None
        net, narrow = copy.deepcopy(state.module), Net(4)
        assert isinstance(net, Net)
        with torch.no_grad():
            for part in ("conv", "head"):
                for name, value in getattr(narrow, part).named_parameters():
                    full = getattr(net, part).get_parameter(name)
                    value.copy_(full[tuple(slice(size) for size in value.shape)])
        return recapture(state, narrow, task), StepRecord(kind="prune", summary="narrower", seconds=0, cpu_seconds=0)


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Task:
    """A task, and a fake prune step in the place of the real one."""
    runners = {**registry.step_runners(), "prune": Narrower()}
    monkeypatch.setattr(registry, "step_runners", lambda: runners)
    torch.manual_seed(0)
    net = Net().eval()
    with torch.no_grad():
        classes = net(torch.from_numpy(SIGNALS)).argmax(1).numpy()
    return Task(name="t", model=net, example_inputs=SIGNALS[:1], calibration=[SIGNALS[:32]], evaluation=[(SIGNALS, classes)])


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each conversion took the dense program; nothing is converted."""
    made: list[bool] = []

    def convert(compressed: Path, output: Path, *, target: str, as_float: bool, options: Any, **_: Any) -> str:
        made.append(as_float)
        state = Compressed.load(compressed)
        file = output / "model.bin"
        file.write_bytes(b"dense" if as_float else b"small")
        Artifact(
            target=target, path=file, sha256=sha256(file), size_bytes=5, precision="float32", options=options,
            is_baseline=as_float or not state.is_changed, inputs=(), outputs=(),
            source_sha256=sha256(compressed / "compressed.json"),
        ).save(output)  # fmt: skip
        return ""

    monkeypatch.setattr("edgekit.exports.convert_apart", convert)
    return made


@pytest.mark.parametrize(("recipe", "labels"), [("prune50", ["onnx", "onnx-float32"]), ("none", ["onnx-float32"])])
def test_a_pruned_program_is_exported_beside_the_dense_one(
    task: Task, converted: list[bool], tmp_path: Path, recipe: str, labels: list[str]
) -> None:
    run = tmp_path / "run"
    pipeline.compress(task, recipe=recipe, output=run, measure=False)
    assert [one.label for one in pipeline.export(run, targets=["onnx"], jobs=1)] == labels
    assert [one.is_baseline for one in pipeline.export(run, targets=["onnx"], jobs=1)] == [label != "onnx" for label in labels]
    assert len(converted) == len(labels)  # the second export found them made
    assert not run.with_name("run.partial").exists()


def test_stages_stand_in_the_record(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The meter is told of the dense program and of each step, in order; its stages come back with the saved run."""
    from edgekit.core.stages import Stage

    class Meter:
        def __init__(self, *_: Any, **asked: Any) -> None:
            assert (asked["target"], asked["device"]) == ("tflite", "host")
            self.labels: list[str] = []

        def add(self, state: Compressed, *, label: str) -> None:
            self.labels.append(label)

        def finish(self) -> tuple[Stage, ...]:
            return tuple(Stage(label=label, macs=1, parameter_count=1) for label in self.labels)

    monkeypatch.setattr("edgekit.device_tests.stages.StageMeter", Meter)
    pipeline.compress(task, recipe="prune50", output=str(tmp_path / "run"), target="tflite")
    saved = Compressed.load(tmp_path / "run" / "compressed")
    assert [step.stage and step.stage.label for step in saved.record.history] == ["dense", "prune50"]
    plain = pipeline.compress(task, recipe="none")
    assert [step.stage for step in plain.record.history] == [None]


@pytest.mark.slow
def test_a_pruned_float_program_walks_the_whole_road(task: Task, tmp_path: Path, brief: None) -> None:
    pytest.importorskip("onnxruntime", reason="needs pip install 'edgekit[onnx]'")
    run = tmp_path / "run"
    compressed = pipeline.compress(task, recipe="prune50", output=run, target="onnx")
    dense, pruned = (step.stage for step in compressed.record.history)
    assert dense is not None
    assert pruned is not None
    assert (pruned.macs * 4, pruned.change, pruned.helped) == (dense.macs, 0.0, True)
    report = pipeline.validate(pipeline.export(run, targets=["onnx"]), task)
    result, baseline = report.devices[0].results
    assert (result.artifact.label, baseline.artifact.label) == ("onnx", "onnx-float32")
    assert result.artifact.size_bytes < baseline.artifact.size_bytes
    assert result.metric is not None
    assert (result.metric.flip_count, result.layers) == (0, ())
    assert {gate.target for gate in report.devices[0].verdict.gates} == {"onnx"}
    assert {gate.name for gate in report.devices[0].verdict.gates} >= {"metric drop", "slowdown"}
    assert "What each step won" in (run / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are taken, but not for long."""
    monkeypatch.setattr(workbench, "_TIMING_BUDGET_S", 0.1)
