"""``edgekit calibrate``: what it prints, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from click.testing import Result

from edgekit.cli import calibrate as module
from edgekit.core.calibration import CalibrationReport
from edgekit.core.recipe import Estimator


def test_estimators_are_the_recipes() -> None:
    assert get_args(Estimator) == module._ESTIMATORS


def test_table_names_the_answer_and_the_layers(command_line: Callable[..., Result], write_task: Callable[..., Path]) -> None:
    write_task()
    result = command_line("calibrate task.py")
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()[:2]
    assert first == "tiny: calibration data, estimator min-max"
    assert second.startswith("32 samples, ")
    words = [line.split() for line in result.stdout.splitlines()]
    assert ["tensor", "range", "tail", "settled", "dead"] in words
    assert [line[-3:] for line in words if line[:1] == ["conv"]] == [["0", "of", "8"]]
    assert max(len(line) for line in result.stdout.splitlines() if not line.startswith(("advice", "SERIOUS"))) <= 90


def test_check_ends_with_1_where_the_data_leaks(command_line: Callable[..., Result], write_task: Callable[..., Path]) -> None:
    write_task(calibration="[SIGNALS]")  # what the task is judged on
    plain, checked = command_line("calibrate task.py"), command_line("calibrate task.py --check")
    assert (plain.exit_code, checked.exit_code) == (0, 1)
    assert "SERIOUS 32 of 32 calibration samples are in the evaluation data too" in " ".join(checked.stdout.split())
    write_task(calibration="[np.random.default_rng(1).uniform(-3, 3, (32, 3, 16)).astype(np.float32)]")
    assert command_line("calibrate task.py --check").exit_code == 0


def test_json_is_the_report(command_line: Callable[..., Result], write_task: Callable[..., Path]) -> None:
    write_task()
    result = command_line("calibrate task.py --json --estimator mse --samples 12")
    document = json.loads(result.stdout)
    assert document["command"] == "calibrate"
    report = CalibrationReport.model_validate(document["report"])
    assert (report.estimator, report.sample_count) == ("mse", 12)
    assert document["good"] is report.is_good


def test_page_needs_nothing_beside_it(
    command_line: Callable[..., Result], write_task: Callable[..., Path], tmp_path: Path
) -> None:
    write_task()
    assert command_line("calibrate task.py --html page.html").exit_code == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "<svg" in page
    assert "http" not in page.partition("</style>")[2]


def test_usage_errors(command_line: Callable[..., Result], write_task: Callable[..., Path]) -> None:
    write_task()
    assert command_line("calibrate task.py --recipe none").exit_code == 2
    assert command_line("calibrate task.py --estimator average").exit_code == 2
    assert command_line("calibrate nothing.py").exit_code == 2
