"""The history: whole entries whatever happens to a writer, old schemas read, foreign and damaged files left alone."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgekit.core.device_bench import BenchedArtifact, BenchedDevice, ScenarioResult
from edgekit.core.errors import IntegrityError, OutputError, UsageError
from edgekit.core.history import history, history_path, record_bench, record_validation
from edgekit.core.history_changes import changes, compared
from edgekit.core.history_entry import HistoryEntry, HistoryNumber, HistoryResult
from edgekit.core.history_store import APPLICATION_ID, MIGRATIONS, HistoryStore
from edgekit.core.measurement import Distribution, Evidence, Measurement
from edgekit.core.profile import DeviceProfile, RuntimeChoice
from edgekit.core.run import Manifest, RunFolder
from edgekit.core.sustained import Drift, SustainedRun
from edgekit.core.validation import ValidationReport
from tests.report.conftest import make_report

APPENDING = """
import sys
from pathlib import Path
from edgekit.core.history_entry import HistoryEntry
from edgekit.core.history_store import HistoryStore
store, line = HistoryStore(Path(sys.argv[1])), Path(sys.argv[3]).read_text()
entry = HistoryEntry.model_validate_json(line)
for count in range(int(sys.argv[2])):
    print(*store.append([entry.replace(run=f"{sys.argv[4]}-{count}")]), flush=True)
"""


def result(*numbers: HistoryNumber, label: str = "onnx", evidence: Evidence = Evidence.MEASURED) -> HistoryResult:
    return HistoryResult(
        label=label, target="onnx", precision="int8", artifact_sha256="a" * 64, runtime="onnxruntime", runtime_version="1.31.1",
        evidence=evidence, numbers=numbers,
    )  # fmt: skip


def latency(value: float, *, half: float = 0.01, evidence: Evidence = Evidence.MEASURED) -> HistoryNumber:
    return HistoryNumber(
        name="latency", value=value, unit="ms", evidence=evidence, interval=(value - half, value + half), sample_count=100
    )


def entry(*results: HistoryResult, run: str = "watch", device: str = "host", day: int = 1) -> HistoryEntry:
    return HistoryEntry(
        created=f"2026-11-{day:02d}T09:00:00+00:00", kind="validate", run=run, task="watch", recipe="int8", metric="top-1",
        device=device, facts={"processor": "Example <CPU>"}, versions={"numpy": "2.4.6"}, verdict="SHIP",
        open_gates=("inconclusive: drop of onnx",), results=results or (result(latency(1.0)),),
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run folder with a manifest and no more."""
    folder = RunFolder(tmp_path / "runs" / "watch")
    folder.path.mkdir(parents=True)
    Manifest(name="watch", recipe="int8", task_sha256="t" * 64, created="2026-11-22T09:00:00+00:00").write_json(
        folder.manifest_path
    )
    return folder


@pytest.fixture
def appending(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that append; whatever still runs at the end is killed."""
    (tmp_path / "entry.json").write_text(entry().model_dump_json())
    found: list[subprocess.Popen[str]] = []
    yield found
    for process in found:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def start(appending: list[subprocess.Popen[str]], folder: Path, name: str, count: int) -> subprocess.Popen[str]:
    words: list[str | Path] = [
        sys.executable,
        "-c",
        APPENDING,
        folder / "history.sqlite",
        str(count),
        folder / "entry.json",
        name,
    ]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    appending.append(process)
    return process


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    store = HistoryStore(tmp_path / "new" / "history.sqlite")
    assert store.read() == ()
    first, second = entry(), entry(result(), result(latency(2.0), label="tflite"), run="Läufe; DROP TABLE entries")
    assert store.append([first, second]) == (1, 2)
    assert store.append([first]) == (3,)
    assert [one.name for one in store.path.parent.iterdir()] == ["history.sqlite"]
    assert store.read() == (first.replace(number=1), second.replace(number=2), first.replace(number=3))
    assert store.read(run=second.run) == (second.replace(number=2),)
    assert [one.name for one in store.path.parent.iterdir()] == ["history.sqlite"]


def test_an_entry_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    store = HistoryStore(tmp_path / "history.sqlite")
    store.append([entry()])
    twice = result(latency(1.0)).model_copy(update={"failure": None})  # what the schema refuses, past the first rows of an entry
    with pytest.raises(IntegrityError, match="NOT NULL"):
        store.append([entry(), entry(result(), twice)])
    assert len(store.read()) == 1


def test_two_writers_lose_nothing(tmp_path: Path, appending: list[subprocess.Popen[str]]) -> None:
    writers = [start(appending, tmp_path, name, 30) for name in ("a", "b")]
    numbers = [int(word) for writer in writers for word in writer.communicate(timeout=120)[0].split()]
    assert [writer.returncode for writer in writers] == [0, 0]
    found = HistoryStore(tmp_path / "history.sqlite").read()
    assert sorted(numbers) == [one.number for one in found] == list(range(1, 61))
    assert {one.run for one in found} == {f"{name}-{count}" for name in "ab" for count in range(30)}


def test_a_killed_writer_leaves_what_it_had_committed(tmp_path: Path, appending: list[subprocess.Popen[str]]) -> None:
    confirmed = 0
    for sitting in range(3):
        process = start(appending, tmp_path, f"s{sitting}", 100_000)
        assert process.stdout is not None
        for _ in range(5 + sitting):
            assert process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        confirmed += 5 + sitting + len(process.communicate()[0].split())
    store = HistoryStore(tmp_path / "history.sqlite")
    found = store.read()
    assert confirmed <= len(found) <= confirmed + 3, "each writer may have committed one entry it could not tell of"
    assert all(one.results == entry().results for one in found)
    assert store.append([entry()]) == (len(found) + 1,)


def test_a_history_of_schema_1_is_read_and_written_on(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as made:
        made.executescript(MIGRATIONS[0])
        made.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        made.execute("PRAGMA user_version = 1")
        made.execute(
            "INSERT INTO entries VALUES (7, '2026-01-02T03:04:05+00:00', 'validate', 'old', 'watch', 'int8', 'top-1', '', '',"
            " 'host', 'This machine', '{}', '{\"numpy\": \"2.0\"}', 'BLOCK')"
        )
        made.execute("INSERT INTO results VALUES (3, 7, 'onnx', 'onnx', 'int8', 'aa', 'onnxruntime', '1.0', 'measured', '')")
        made.execute("INSERT INTO numbers VALUES (3, 0, 'latency', 1.5, 'ms', 'measured', 1.4, 1.6, 90)")
        made.commit()
    before = path.read_bytes()
    [old] = HistoryStore(path).read()
    assert path.read_bytes() == before, "reading brings a copy up to date, not the file"
    assert (old.number, old.run, old.verdict, old.open_gates) == (7, "old", "BLOCK", ())
    assert old.results[0].scenario == ""
    assert old.results[0].numbers[0].interval == (1.4, 1.6)
    assert HistoryStore(path).append([entry()]) == (8,)
    assert [one.run for one in HistoryStore(path).read()] == ["old", "watch"]
    with contextlib.closing(sqlite3.connect(path)) as made:
        assert made.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


def foreign(path: Path, what: str) -> None:
    """A file that is no history of ours, or no longer whole."""
    if what == "text":
        path.write_text("these are my notes\n" * 50)
        return
    if what in {"other program", "later schema"}:
        with contextlib.closing(sqlite3.connect(path)) as made:
            made.execute("CREATE TABLE songs (title TEXT)")
            if what == "later schema":
                made.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                made.execute("PRAGMA user_version = 99")
        return
    HistoryStore(path).append([entry(run=f"run {count}") for count in range(40)])
    data = path.read_bytes()
    if what == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif what == "overwritten":
        path.write_bytes(data[:4096] + b"\xa5" * 8192 + data[12288:])
    else:
        with contextlib.closing(sqlite3.connect(path)) as made:
            made.execute("UPDATE entries SET kind = 'dance', facts = 'not json' WHERE number = 3")
            made.commit()


@pytest.mark.parametrize("what", ["text", "other program", "later schema", "truncated", "overwritten", "wrong value"])
def test_a_foreign_or_damaged_file_is_named_and_left_alone(tmp_path: Path, what: str) -> None:
    path = tmp_path / "history.sqlite"
    foreign(path, what)
    before = path.read_bytes()
    with pytest.raises(IntegrityError, match=r"history\.sqlite"):
        HistoryStore(path).read()
    if what != "wrong value":  # a whole database; what one row says does not keep others from being appended
        with pytest.raises(IntegrityError, match=r"history\.sqlite"):
            HistoryStore(path).append([entry()])
        assert path.read_bytes() == before
    assert {one.name for one in tmp_path.iterdir()} <= {"history.sqlite", "history.sqlite-wal", "history.sqlite-shm"}


FILLING = """
import resource, sys
from pathlib import Path
from edgekit.core.history_entry import HistoryEntry
from edgekit.core.history_store import HistoryStore
resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, 120_000))
store, entry = HistoryStore(Path(sys.argv[1])), HistoryEntry.model_validate_json(Path(sys.argv[2]).read_text())
for _ in range(2000):
    store.append([entry])
    print("ok", flush=True)
"""


def test_a_full_disk_leaves_every_entry_before_it(tmp_path: Path) -> None:
    """A limit of a file's size stands for the disk's: SQLite meets the same failed write."""
    (tmp_path / "entry.json").write_text(entry(*[result(latency(1.0)) for _ in range(30)]).model_dump_json())
    words: list[str | Path] = [sys.executable, "-c", FILLING, tmp_path / "history.sqlite", tmp_path / "entry.json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "OutputError: The history" in done.stderr
    confirmed = done.stdout.count("ok")
    assert confirmed > 3
    found = HistoryStore(tmp_path / "history.sqlite").read()
    assert len(found) == confirmed
    assert HistoryStore(tmp_path / "history.sqlite").append([entry()]) == (confirmed + 1,)


@pytest.mark.proof
def test_writers_killed_at_any_moment_lose_nothing(tmp_path: Path, appending: list[subprocess.Popen[str]]) -> None:
    rng = np.random.default_rng(0)
    confirmed = 0
    for sitting in range(30):
        pair = [start(appending, tmp_path, f"s{sitting}{side}", 100_000) for side in "ab"]
        time.sleep(0.5 + 0.5 * rng.random())
        for process in pair:
            os.kill(process.pid, signal.SIGKILL)
        confirmed += sum(len(process.communicate()[0].split()) for process in pair)
    found = HistoryStore(tmp_path / "history.sqlite").read()
    assert confirmed <= len(found) <= confirmed + 60
    assert all(one.results == entry().results for one in found)


def test_an_empty_file_is_a_writer_that_was_killed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    path.touch()
    assert HistoryStore(path).read() == ()
    assert HistoryStore(path).append([entry()]) == (1,)


def test_a_file_without_tables_is_one_that_is_just_being_made(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as made:
        made.execute("PRAGMA journal_mode = WAL")
    assert path.stat().st_size > 0
    assert HistoryStore(path).read() == ()
    assert HistoryStore(path).append([entry()]) == (1,)


def test_a_place_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "history.sqlite", tmp_path):
        with pytest.raises(OutputError, match=str(tmp_path)):
            HistoryStore(place).append([entry()])


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A history in a folder this process may not write to: as another user where root runs the tests, whom nothing stops."""
    with tempfile.TemporaryDirectory(prefix="edgekit-history-") as made:
        folder = Path(made)
        HistoryStore(folder / "history.sqlite").append([entry()])
        folder.chmod(0o555)
        (folder / "history.sqlite").chmod(0o444)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if is_root:
                os.seteuid(0)
            folder.chmod(0o755)


def test_a_history_in_a_read_only_folder_is_read_and_not_written(read_only: Path) -> None:
    store = HistoryStore(read_only / "history.sqlite")
    assert len(store.read()) == 1
    with pytest.raises(OutputError, match=r"readonly|unable to open"):
        store.append([entry()])
    assert len(store.read()) == 1


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
