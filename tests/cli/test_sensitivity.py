"""``edgekit sensitivity`` and ``compress --recipe auto``: what they print, and how they end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from edgekit.core.recipe import Recipe
from edgekit.core.search import SearchReport
from edgekit.core.sensitivity import SensitivityReport


def test_table_names_the_layers_and_fits(command_line: Callable[..., Result], write_task: Callable[..., Path]) -> None:
    write_task()
    result = command_line("sensitivity task.py --samples 8")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "tiny: sensitivity of its layers to int8"
    assert {"conv", "head", "(input)"} <= {line.split()[0] for line in lines[2:] if line.strip()}
    assert max(len(line) for line in lines[2:-1]) <= 90


def test_json_is_the_report(command_line: Callable[..., Result], write_task: Callable[..., Path]) -> None:
    write_task()
    document = json.loads(command_line("sensitivity task.py --samples 8 --check 1 --recipe w4a8 --json").stdout)
    report = SensitivityReport.model_validate(document["report"])
    assert (report.recipe, report.sample_count) == ("w4a8", 8)
    assert [row.checked_snr_db is not None for row in report.layers].count(True) == 1
    assert [row.share for row in report.layers] == sorted((row.share for row in report.layers), reverse=True)  # type: ignore[type-var]


@pytest.mark.parametrize("name", ["layers.svg", "layers.html"])
def test_picture_needs_nothing_beside_it(
    name: str, command_line: Callable[..., Result], write_task: Callable[..., Path], tmp_path: Path
) -> None:
    write_task()
    assert command_line(f"sensitivity task.py --samples 4 --check 0 --figure {name}").exit_code == 0
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert text.startswith("<svg" if name.endswith(".svg") else "<!doctype html>")
    assert ">conv</text>" in text
    assert "share of the noise" in text


def test_usage_errors(command_line: Callable[..., Result], write_task: Callable[..., Path]) -> None:
    write_task()
    assert command_line("sensitivity task.py --recipe none").exit_code == 2
    assert command_line("sensitivity task.py --samples 0").exit_code == 2
    result = command_line("compress task.py --recipe int8 --max-drop 1")
    assert result.exit_code == 2
    assert "--max-drop is for the recipe auto" in result.output
    assert command_line("compress task.py --recipe auto --max-drop -1").exit_code == 2
    result = command_line('compress task.py --recipe auto --set steps.0.candidates=[\\"int9\\"]')
    assert result.exit_code == 2
    assert "'int8'" in result.output


def test_auto_shows_its_search_and_names_the_plan(
    command_line: Callable[..., Result], write_task: Callable[..., Path], tmp_path: Path
) -> None:
    write_task()
    result = command_line("compress task.py --recipe auto --max-drop 30 -o run")
    assert result.exit_code == 0, result.output
    assert "auto: int8 passed: drop" in result.stderr
    words = [line.split() for line in result.stdout.splitlines()]
    assert ["plan", "outcome", "drop", "at", "most", "samples", "KiB", "work", "CPU", "s"] in words
    kept = Recipe.read(tmp_path / "run" / "recipe.toml")
    assert [step.kind for step in kept.steps] == ["quantize"]
    assert kept.name.startswith("auto (")
    assert command_line("compress task.py --recipe run/recipe.toml -o again").exit_code == 0
    same = "compressed/contract.json"
    assert (tmp_path / "run" / same).read_bytes() == (tmp_path / "again" / same).read_bytes()


def test_auto_that_cannot_show_the_bound_ends_with_1_and_keeps_the_nearest(
    command_line: Callable[..., Result], write_task: Callable[..., Path], tmp_path: Path
) -> None:
    write_task()
    result = command_line("compress task.py --recipe auto --max-drop 0.5 -o run --json")
    assert result.exit_code == 1
    step = json.loads(result.stdout)["steps"][-1]
    found = SearchReport.model_validate(step["details"])
    assert not found.passed
    assert found.smallest_bound > 0.5  # 32 samples
    assert (tmp_path / "run" / "compressed" / "program.pt2").is_file()
    assert not (tmp_path / "run.partial").exists()
