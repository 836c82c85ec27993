"""``edgekit history``: entries found, chosen, compared; what cannot be said is refused with the right code."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from edgekit.core.history_store import HistoryStore
from edgekit.core.run import Manifest, RunFolder
from tests.report.lab_samples import make_bench, make_history

Command = Callable[..., Result]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``runs`` with a history of nine releases (sample data), two of which are still there as folders."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEKIT_HISTORY", raising=False)
    HistoryStore(tmp_path / "runs" / "history.sqlite").append(make_history().entries)
    for name in ("watch-1.5", "watch-1.6"):
        folder = RunFolder(tmp_path / "runs" / name)
        folder.path.mkdir()
        Manifest(name="watch", recipe="int8", created="2026-11-22T09:00:00+00:00").write_json(folder.manifest_path)
    return tmp_path / "runs"


def entries(result: Result) -> list[int]:
    return [one["number"] for one in json.loads(result.stdout)["entries"]]


def test_a_folder_a_run_and_a_file(command_line: Command, runs: Path) -> None:
    assert entries(command_line("history --json")) == list(range(1, 28))
    assert entries(command_line("history runs --json")) == list(range(1, 28))
    assert entries(command_line("history runs/history.sqlite --json")) == list(range(1, 28))
    assert entries(command_line("history runs/watch-1.6 --json")) == [19, 20, 21]
    assert sorted(one.name for one in runs.iterdir()) == ["history.sqlite", "watch-1.5", "watch-1.6"]


def test_entries_and_numbers_are_chosen(command_line: Command, runs: Path) -> None:
    result = command_line("history runs --device host --target onnx --metric latency --since 2026-06-01 --json")
    found = json.loads(result.stdout)
    assert {one["device"] for one in found["entries"]} == {"host"}
    assert {(one["name"], one["label"]) for one in found["changes"]} == {("latency", "onnx")}
    clear = {one["entry"]: one["is_better"] for one in found["changes"] if one["is_clear"]}
    assert clear == {19: False, 22: True}
    assert found["changes"][0]["before"] is None


def test_the_table_names_what_changed(command_line: Command, runs: Path) -> None:
    text = command_line("history runs/watch-1.6").output
    assert "BLOCK" in text
    assert "Top-1 accuracy" in text
    assert "Latency" in text


def test_two_entries_and_two_runs_are_compared(command_line: Command, runs: Path) -> None:
    by_number = json.loads(command_line("history compare 16 19 --json").stdout)
    by_run = json.loads(command_line("history compare runs/watch-1.5 runs/watch-1.6 --device host --json").stdout)
    assert by_number["changes"] == by_run["changes"]
    [latency] = [one for one in by_number["changes"] if (one["name"], one["label"]) == ("latency", "onnx")]
    assert latency["is_better"] is False
    assert latency["ratio"] > 1.15
    assert "edgekit 0.2.0 → 0.3.0" in latency["also_changed"]
    text = command_line("history compare runs/watch-1.5 runs/watch-1.6 --metric latency").output
    assert "On This machine" in text
    assert "On Raspberry Pi 5" in text
    assert "Size" not in text


def test_csv(command_line: Command, runs: Path, tmp_path: Path) -> None:
    result = command_line("history runs --device pi-5 --csv out.csv")
    assert "Wrote out.csv" in result.stderr
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 9 * 2 * 3
    assert {row["device"] for row in rows} == {"pi-5"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("history nowhere", "There is no history at nowhere"),
        ("history runs --since yesterday", "is no moment"),
        ("history runs --metric latncy", "Did you mean 'latency'?"),
        ("history runs runs/watch-1.5", "name one, or compare two"),
        ("history compare 1", "compare takes two"),
        ("history compare 1 99", "no entry 99; its entries are 1 to 27"),
        ("history compare runs 1", "is not a run folder"),
        ("history compare runs/watch-1.5 runs/watch-9", "does not exist"),
    ],
)
def test_what_cannot_be_said_is_refused(command_line: Command, runs: Path, line: str, words: str) -> None:
    result = command_line(line)
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_damaged_history_is_refused_with_5(command_line: Command, runs: Path) -> None:
    (runs / "history.sqlite").write_text("these are my notes")
    result = command_line("history runs")
    assert result.exit_code == 5
    assert "history.sqlite is damaged, or is no history of edgekit" in result.stderr
    assert (runs / "history.sqlite").read_text() == "these are my notes"


def test_a_run_that_was_only_timed_has_a_report(command_line: Command, runs: Path, tmp_path: Path) -> None:
    (runs / "watch-1.5" / "bench").mkdir()
    make_bench().write_json(runs / "watch-1.5" / "bench" / "pi-5.json")
    result = command_line("report runs/watch-1.5 --html out.html")
    assert result.exit_code == 0, result.output
    assert "Raspberry Pi 5: Cortex-A76" in result.stdout
    assert "was timed and not validated yet" in result.stderr
    assert "not validated" in (tmp_path / "out.html").read_text(encoding="utf-8")
    assert [one["profile"]["name"] for one in json.loads(command_line("report runs/watch-1.5 --json").stdout)["bench"]] == [
        "pi-5"
    ]
    result = command_line("report runs/watch-1.5 --junit out.xml")
    assert result.exit_code == 2
    assert "has no report yet" in result.stderr
