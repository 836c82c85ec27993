"""``edgekit sweep``: what it prints, writes and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.test_pareto import made  # noqa: F401  a fixture


def test_table_marks_the_front_and_the_page_is_written(
    made: list[str],  # noqa: F811
    command_line: Callable[..., Result],
    write_task: Callable[..., Path],
    tmp_path: Path,
) -> None:
    write_task()
    result = command_line("sweep task.py --prune 0.4,0.2,0.6 --no-color")
    assert result.exit_code == 0, result.output
    assert [line.split()[1] for line in result.stdout.splitlines() if line.startswith("* ")] == ["int8", "prune40+int8"]
    assert "prune60+int8: Layer 'conv' cannot lose that much." in result.stdout
    assert "Latency: measured." in result.stdout
    assert "sweeps/tiny/sweep.html" in result.stderr
    assert (tmp_path / "sweeps" / "tiny" / "sweep.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_json_is_the_report(
    made: list[str],  # noqa: F811
    command_line: Callable[..., Result],
    write_task: Callable[..., Path],
    tmp_path: Path,
) -> None:
    write_task()
    document = json.loads(command_line("sweep task.py --prune 0.4 -o swept --json --no-progress").stdout)
    assert document["report"] == json.loads((tmp_path / "swept" / "sweep.json").read_text(encoding="utf-8"))


def test_dry_run_writes_nothing(
    made: list[str],  # noqa: F811
    command_line: Callable[..., Result],
    write_task: Callable[..., Path],
    tmp_path: Path,
) -> None:
    write_task()
    result = command_line("sweep task.py --prune 0.4 --recipe distill+int8 --dry-run")
    assert result.exit_code == 0, result.output
    assert "distill+int8, prune40+distill+int8" in result.stdout
    assert not made and not (tmp_path / "sweeps").exists()


@pytest.mark.usefixtures("made")
def test_a_sweep_without_any_point_is_not_convertible(
    command_line: Callable[..., Result], write_task: Callable[..., Path]
) -> None:
    write_task()
    assert command_line("sweep task.py --prune 0.7").exit_code == 3


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sweep task.py --prune 0.2,many", "'many' is no number"),
        ("sweep task.py --prune ,", "No pruning ratio was given"),
        ("sweep task.py --prune 0.2,1.5", "1.5 is out of range"),
        ("sweep task.py --prune 0.2 --recipe int9", "Did you mean 'int8'?"),
        ("sweep task.py --prune 0.2 --target onxn", "Did you mean 'onnx'?"),
        ("sweep task.py --prune 0.2 --device hots", "hots"),
        ("sweep task.py", "--prune"),
    ],
)
def test_usage_errors(line: str, words: str, command_line: Callable[..., Result], write_task: Callable[..., Path]) -> None:
    write_task()
    result = command_line(line)
    assert result.exit_code == 2 and words in result.output
