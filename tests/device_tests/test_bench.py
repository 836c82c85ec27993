"""The bench that steps measure on: real files in a real runtime, made once, timed in turn."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.compression.capture import capture, recapture
from edgekit.core.artifact import Artifact
from edgekit.core.compressed import Compressed
from edgekit.core.errors import MissingExtraError, ProfileError, WorkerError
from edgekit.core.plugins import Bench
from edgekit.core.recipe import Recipe
from edgekit.core.task import Task
from edgekit.device_tests import bench as bench_module
from edgekit.device_tests import workbench
from edgekit.device_tests.bench import DeviceBench
from edgekit.device_tests.measurement import Series
from edgekit.device_tests.workbench import Timed, Workbench

pytest.importorskip("onnxruntime", reason="needs pip install 'edgekit[onnx]'")


def net(width: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, 4)).eval()


def series(ms: float) -> Series:
    """Eight rounds of ten inferences, each of the same length."""
    times = np.full(80, round(ms * 1e6), np.int64)
    return Series(wall_ns=times, cpu_ns=times, rounds=np.repeat(np.arange(8), 10), preemption_count=0)


@dataclasses.dataclass
class Measured:
    """A bench that has timed two programs once."""

    bench: DeviceBench
    wide: Compressed
    narrow: Compressed


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    torch.manual_seed(0)
    task = Task(name="t", model=net(2048), example_inputs=np.zeros((1, 64), np.float32))
    wide = capture(task, recipe=Recipe.parse_text("none"))
    with closing(DeviceBench(tmp_path_factory.mktemp("bench"))) as bench:
        yield Measured(bench, wide, recapture(wide, net(64), task))


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbench, "_TIMING_BUDGET_S", 0.05)


def test_files_are_timed_against_the_first(measured: Measured) -> None:
    assert isinstance(measured.bench, Bench)
    found = measured.bench.time({"dense": measured.wide, "prune 97 %": measured.narrow}, target="onnx", device="host")
    assert list(found) == ["dense", "prune 97 %"]
    dense, pruned = found.values()
    assert (dense.speedup, dense.speedup_interval) == (1.0, (1.0, 1.0))
    assert pruned.speedup_interval[0] <= pruned.speedup <= pruned.speedup_interval[1]
    assert (pruned.target, pruned.device, pruned.evidence.value) == ("onnx", "host", "measured")
    assert pruned.latency.distribution is not None
    assert pruned.latency.distribution.samples == ()
    assert pruned.size_bytes < dense.size_bytes / 10


@pytest.mark.parametrize(("ms", "speedup", "is_slower"), [(0.5, 2.0, False), (1.25, 0.8, True)])
def test_a_speed_up_is_the_first_ones_time_over_the_own(
    measured: Measured, monkeypatch: pytest.MonkeyPatch, ms: float, speedup: float, is_slower: bool
) -> None:
    def timing(_: Workbench, artifacts: Sequence[Artifact]) -> Timed:
        return Timed({one.label: series(1.0 if at == 0 else ms) for at, one in enumerate(artifacts)})

    monkeypatch.setattr(Workbench, "timing", timing)
    first, second = measured.bench.time({"a": measured.wide, "b": measured.narrow}, target="onnx", device="host").values()
    assert (first.latency.value, second.latency.value, second.latency.unit) == (1.0, ms, "ms")
    assert second.speedup == pytest.approx(speedup)
    assert second.speedup_interval == pytest.approx((speedup, speedup))
    assert second.is_slower is is_slower


def test_a_file_that_cannot_be_timed_is_named(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workbench, "timing", lambda *_: Timed(failure="WorkerError: was killed"))
    with pytest.raises(WorkerError, match="Timing dense as onnx on 'host' failed: WorkerError: was killed"):
        measured.bench.time({"dense": measured.wide}, target="onnx", device="host")


def test_a_program_is_converted_once(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    size = measured.bench.size_bytes(measured.wide, target="onnx")

    def refuse(*_: object, **__: object) -> str:
        raise WorkerError("converted again")

    monkeypatch.setattr(bench_module, "convert_apart", refuse)
    assert measured.bench.size_bytes(measured.wide, target="onnx") == size > 4 * 64 * 2048
    with closing(DeviceBench(measured.bench.folder)) as later:  # a run that goes on after it was killed
        assert later.size_bytes(measured.wide, target="onnx") == size
    moved = dataclasses.replace(measured.wide, program=measured.narrow.program)
    assert measured.bench.size_bytes(moved, target="onnx") < size
    with pytest.raises(WorkerError, match="converted again"):
        measured.bench.size_bytes(measured.wide, target="tflite")


def test_a_damaged_file_is_made_again(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    path = measured.bench.artifact(measured.narrow, target="onnx").path
    whole = path.read_bytes()
    folder = path.parent
    kept = folder.with_name("kept")
    shutil.copytree(folder, kept)
    path.write_bytes(whole[:-1])
    monkeypatch.setattr(bench_module, "convert_apart", lambda _, output, **__: shutil.copytree(kept, output, dirs_exist_ok=True))
    assert measured.bench.artifact(measured.narrow, target="onnx").path.read_bytes() == whole


def test_nothing_is_made_before_it_is_asked(tmp_path: Path, measured: Measured) -> None:
    DeviceBench(tmp_path / "bench").close()
    assert not (tmp_path / "bench").exists()
    bench = DeviceBench()
    folder = bench.folder
    bench.close()
    assert not folder.exists()


def test_what_is_not_installed_names_its_command(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'edgekit\[onnx\]'"):
        measured.bench.size_bytes(measured.wide, target="onnx")


@pytest.mark.parametrize(
    ("target", "device", "message"), [("onnx", "hots", "Unknown device 'hots'"), ("torch2", "host", "torch2")]
)
def test_a_device_that_cannot(measured: Measured, target: str, device: str, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        measured.bench.time({"dense": measured.wide}, target=target, device=device)
