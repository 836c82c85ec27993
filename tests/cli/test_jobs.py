"""``edgekit jobs``: out as a folder, run there, and back to a verdict."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from edgekit.device_tests import workbench
from tests.cli.conftest import Road


@pytest.fixture
def small(run: Path, road: Road, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A run with two ONNX artifacts, not validated, in the folder the test works in."""
    for artifact in (run / "artifacts").iterdir():
        if not artifact.name.startswith("onnx"):
            shutil.rmtree(artifact)
    shutil.copy(road.folder / "task.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workbench, "_TIMING_BUDGET_S", 0.02)
    return Path("runs/tiny")


@pytest.mark.slow
def test_out_there_and_back(small: Path, command_line: Callable[..., Result]) -> None:
    made = command_line(f"jobs export {small} --device host -o out --samples 20 --json")
    assert made.exit_code == 0, made.output
    jobs = json.loads(made.stdout)["jobs"]
    assert [job["is_done"] for job in jobs] == [False] * 3
    early = command_line(f"validate {small} --jobs out --samples 20")
    assert early.exit_code == 4 and "3 jobs lie in out/host and wait for device 'host'" in " ".join(early.output.split())
    ran = command_line("jobs run out")
    assert ran.exit_code == 0 and ran.output.count("done") >= 3, ran.output
    again = command_line("jobs list out --json")
    assert [job["is_done"] for job in json.loads(again.stdout)["jobs"]] == [True] * 3
    judged = command_line(f"validate {small} --jobs out --samples 20 --json")
    assert judged.exit_code in {0, 1}, judged.output
    report = json.loads((small / "report.json").read_text())
    [device] = report["devices"]
    assert device["profile"]["transport"] == "job-folder" and device["facts"]["architecture"]
    assert {result["artifact"]["target"] for result in device["results"]} == {"onnx"}
    assert all(result["metric"]["sample_count"] == 20 for result in device["results"])

    result = next(Path("out/host").glob("*/result.json"))
    result.write_text(result.read_text() + " ")
    assert command_line("jobs run out").exit_code == 3
    listed = command_line("jobs list out")
    assert "is not what done.json beside it records" in " ".join(listed.output.split())


def test_what_is_missing_is_named(command_line: Callable[..., Result], tmp_path: Path) -> None:
    assert "--device NAME is missing" in command_line("jobs export runs/tiny").output
    assert "--output FOLDER is missing" in command_line("jobs export runs/tiny --device host").output
    nothing = command_line(f"jobs run {tmp_path}")
    assert nothing.exit_code == 2 and "holds no jobs" in nothing.output
