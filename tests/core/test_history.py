"""The history: what validations and benchmarks leave in it, how entries are found and chosen, and which changes are clear."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgekit.core.device_bench import BenchedArtifact, BenchedDevice, ScenarioResult
from edgekit.core.errors import UsageError
from edgekit.core.history import history, history_path, record_bench, record_validation
from edgekit.core.history_changes import changes, compared
from edgekit.core.history_entry import HistoryNumber, HistoryResult
from edgekit.core.history_store import HistoryStore
from edgekit.core.measurement import Distribution, Evidence, Measurement
from edgekit.core.profile import DeviceProfile, RuntimeChoice
from edgekit.core.run import Manifest, RunFolder
from edgekit.core.sustained import Drift, SustainedRun
from edgekit.core.validation import ValidationReport
from tests.core.test_history_store import entry, latency, result
from tests.report.conftest import make_report


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run folder with a manifest and no more."""
    folder = RunFolder(tmp_path / "runs" / "watch")
    folder.path.mkdir(parents=True)
    Manifest(name="watch", recipe="int8", task_sha256="t" * 64, created="2026-11-22T09:00:00+00:00").write_json(
        folder.manifest_path
    )
    return folder


def test_a_validation_is_recorded_with_everything(run: RunFolder) -> None:
    report = make_report("BLOCK")
    assert record_validation(report, run) == (1,)
    [found] = history(run.path.parent).entries
    assert (found.run, found.task, found.recipe, found.device, found.verdict) == ("watch", "watch", "int8", "host", "BLOCK")
    assert found.task_sha256 == "t" * 64
    assert found.program_sha256 == report.compressed.sha256["program.pt2"]
    assert found.versions == report.environment
    assert "fail: metric drop of tflite" in found.open_gates
    onnx = found.find("onnx")
    assert onnx is not None
    assert onnx.artifact_sha256 == report.artifacts[0].sha256
    taken = report.devices[0].results[0].measurement("latency")
    number = onnx.find("latency")
    assert number is not None
    assert taken is not None
    assert taken.distribution is not None
    assert (number.value, number.interval, number.sample_count) == (taken.value, taken.distribution.p50_interval, 600)
    score, drop = onnx.find("score"), onnx.find("drop")
    assert score is not None
    assert drop is not None
    assert score.interval == pytest.approx((0.8912 - (0.12 + 0.43) / 100, 0.8912 - (0.12 - 0.41) / 100))
    assert drop.unit == "points"
    coreml = found.find("coreml")
    assert coreml is not None
    assert {number.evidence for number in coreml.numbers} == {Evidence.REFERENCE}


def benched(*, failure: str = "") -> BenchedDevice:
    def times(value: float) -> Measurement:
        spread = Distribution.of([value, value * 1.1, value * 1.2])
        return Measurement(name="latency", value=spread.p90, unit="ms", evidence=Evidence.MEASURED, distribution=spread,
                           interval=(value, value * 1.3))  # fmt: skip

    scenario = ScenarioResult(
        scenario="single-stream", query_size=1, query_count=300, sample_count=300, different_samples=8, percentile=90,
        latency=times(1.0), throughput=Measurement(name="throughput", value=900.0, unit="1/s", evidence=Evidence.MEASURED),
        ended_by="precision",
    )  # fmt: skip
    drift = Drift(ratio=1.2, interval=(1.1, 1.3), settled_ratio=1.2, settled_interval=(1.1, 1.3))
    artifact = BenchedArtifact(
        label="onnx", target="onnx", precision="int8", sha256="b" * 64, size_bytes=5000, runtime="onnxruntime",
        evidence=Evidence.MEASURED, measurements=(times(0.5),), scenarios=(scenario,), failure=failure,
        sustained=SustainedRun(minutes=1.0, windows=(), drift=drift, evidence=Evidence.MEASURED),
    )  # fmt: skip
    profile = DeviceProfile(name="pi", title="A Pi", runtimes={"onnx": RuntimeChoice(runtime="onnxruntime")})
    return BenchedDevice(created="2026-11-22T12:00:00+01:00", profile=profile, artifacts=(artifact,))


def test_a_bench_is_recorded_by_scenario(run: RunFolder) -> None:
    assert record_bench(benched(), run) == (1,)
    [found] = history(run.path).entries
    assert (found.kind, found.device, found.created, found.verdict) == ("bench", "pi", "2026-11-22T11:00:00+00:00", "")
    alone, stream = found.results
    assert {number.name for number in alone.numbers} == {"latency", "drift", "size"}
    assert stream.scenario == "single-stream"
    number = stream.find("latency")
    assert number is not None
    assert number.interval == (1.0, 1.3), "a percentile's interval is not the median's"
    assert stream.find("throughput") is not None


def test_a_history_that_cannot_be_written_is_a_line_in_the_log(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    (run.path.parent / "history.sqlite").write_text("mine")
    assert record_validation(make_report(), run) == ()
    assert record_bench(benched(), run, store=Path("/proc/history.sqlite")) == ()
    log = run.log.read_text()
    assert log.count("warning: not in the history") == 2
    assert (run.path.parent / "history.sqlite").read_text() == "mine"
    monkeypatch.setenv("EDGEKIT_HISTORY", "off")
    assert record_validation(make_report(), run) == ()
    assert history_path(run.path) is None
    assert run.log.read_text() == log


def test_a_number_that_is_not_finite_is_left_out(run: RunFolder) -> None:
    report = make_report()
    device = report.devices[0]
    bad = Measurement(name="latency", value=float("nan"), unit="ms", evidence=Evidence.MEASURED)
    device = device.replace(results=(device.results[0].replace(measurements=(bad,)),))
    record_validation(report.replace(devices=(device,)), run)
    [found] = history(run.path).entries
    assert found.results[0].find("latency") is None
    assert found.results[0].find("score") is not None


def test_entries_are_chosen(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    HistoryStore(path).append([entry(day=1), entry(result(), result(label="onnx-float32"), day=9, device="pi")])
    assert [one.number for one in history(path, devices=["pi"]).entries] == [2]
    assert [one.number for one in history(tmp_path, since="2026-11-05").entries] == [2]
    assert [len(one.results) for one in history(path, targets=["onnx-float32"]).entries] == [1]
    assert len(history(path, targets=["onnx"])) == 2
    assert [one.number for one in history(path, last=1).entries] == [2]
    assert [one.number for one in history(path, devices=["host"], last=1).entries] == [1]
    assert history(path, devices=["host', 'pi"]).entries == ()
    HistoryStore(path).append([entry().replace(created="2026-11-20T01:00:00+02:00")])
    assert [one.created for one in history(path, since="2026-11-19T22:30").entries] == ["2026-11-19T23:00:00+00:00"]
    assert len(history(path, since="1h")) == 0
    for wrong in ("yesterday", "2026-13-01", "-3d"):
        with pytest.raises(UsageError, match="is no moment"):
            history(path, since=wrong)


def test_a_history_is_found(tmp_path: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="There is no history at"):
        history()
    record_validation(make_report(), run)
    shutil.copytree(run.path, run.path.with_name("other"))
    record_validation(make_report(), RunFolder(Path("runs/other")))
    assert [one.run for one in history().entries] == ["watch", "other"]
    assert [one.run for one in history("runs/other").entries] == ["other"]
    monkeypatch.setenv("EDGEKIT_HISTORY", str(tmp_path / "all.sqlite"))
    record_validation(make_report(), run)
    assert len(history()) == 1
    assert len(history(run.path)) == 1
    assert len(history("runs")) == 2


def test_a_change_is_clear_where_intervals_part(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    values = [1.0, 1.015, 1.2, 1.2]
    for day, value in enumerate(values, 1):
        other = result(latency(9.0, evidence=Evidence.EMULATED), label="tflite", evidence=Evidence.EMULATED)
        HistoryStore(path).append([entry(result(latency(value)), other, day=day), entry(result(latency(50.0)), device="pi")])
    found = [change for change in changes(history(path), "latency") if change.now.entry.device == "host"]
    measured = [change for change in found if change.now.result.label == "onnx"]
    assert [change.is_clear for change in measured] == [None, False, True, False]
    assert [change.is_better for change in measured] == [None, None, False, None]
    assert measured[2].ratio == pytest.approx(1.2 / 1.015)
    assert [change.before.entry.device for change in found if change.before] == ["host"] * 6


def test_a_larger_score_is_better_and_a_size_is_exact() -> None:
    def at(score: float, size: float) -> HistoryResult:
        numbers = [("score", score, "share", (score - 0.01, score + 0.01)), ("size", size, "bytes", None)]
        return result(*(HistoryNumber(name=n, value=v, unit=u, evidence=Evidence.MEASURED, interval=i) for n, v, u, i in numbers))

    old, new = entry(at(0.8, 100)), entry(at(0.9, 101))
    by_name = {change.now.number.name: change for change in compared([old], [new])}
    assert by_name["score"].is_better is True
    assert by_name["size"].is_better is False
    assert by_name["size"].is_same_file
    assert by_name["size"].differences == ()


def test_what_else_changed_is_said() -> None:
    old = entry()
    new = old.replace(facts={"processor": "Another"}, versions={"numpy": "3.0"}, recipe="int8-exact")
    [change] = compared([old], [new])
    assert change.differences == ("processor: Example <CPU> → Another", "numpy 2.4.6 → 3.0", "recipe int8 → int8-exact")


def test_entries_of_another_evidence_are_not_compared() -> None:
    emulated = entry(result(latency(1.0, evidence=Evidence.EMULATED), evidence=Evidence.EMULATED))
    assert compared([entry()], [emulated]) == ()


def test_reports_without_devices_leave_nothing(run: RunFolder) -> None:
    report: ValidationReport = make_report().replace(devices=())
    assert record_validation(report, run) == ()
    assert len(history(run.path)) == 0
