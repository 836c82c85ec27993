"""The history's file: whole entries whatever happens to a writer, old schemas read, foreign and damaged files left alone."""

from __future__ import annotations

import contextlib
import os
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

from edgekit.core.errors import IntegrityError, OutputError
from edgekit.core.history_entry import HistoryEntry, HistoryNumber, HistoryResult
from edgekit.core.history_store import APPLICATION_ID, MIGRATIONS, HistoryStore
from edgekit.core.measurement import Evidence

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
