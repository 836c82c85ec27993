"""Options that set a field of the recipe's steps: where they land, and what is said where there is no such step."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from edgekit import pipeline


@pytest.fixture
def steps(command_line: Callable[..., Result]) -> Callable[[str], list[dict[str, Any]]]:
    """The steps that a compress command would carry out."""

    def read(options: str) -> list[dict[str, Any]]:
        result = command_line(f"compress task.py --print-config {options}")
        assert result.exit_code == 0, result.output
        found: list[dict[str, Any]] = tomllib.loads(result.stdout)["steps"]
        return found

    return read


def test_a_goal_in_milliseconds(steps: Callable[[str], list[dict[str, Any]]]) -> None:
    [step] = steps("--recipe prune --latency-ms 3.0 --device phone.toml --target tflite --criterion taylor")
    assert (step["latency_ms"], step["device"], step["target"], step["criterion"]) == (3.0, "phone.toml", "tflite", "taylor")
    assert "ratio" not in step


def test_only_steps_of_the_kind_are_changed(steps: Callable[[str], list[dict[str, Any]]]) -> None:
    prune, distill, quantize = steps("--recipe prune50+distill+int8 --student models.py:small --target tflite")
    assert (prune["target"], distill["student"]) == ("tflite", "models.py:small")
    assert "target" not in quantize


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--recipe int8 --latency-ms 3", "--latency-ms is for a prune step; 'int8' prunes nothing. Add --recipe prune, or leave"),
        ("--recipe int8 --criterion l1", "--criterion is for a prune step; 'int8' prunes nothing. Add --recipe prune50"),
        (
            "--recipe prune50 --student m.py:f",
            "--student is for a distill step; 'prune50' trains no student. Add --recipe distill",
        ),
        ("--recipe int8 --target onnx", "--target says where the model is measured after each step; 'int8' is not measured."),
        ("--recipe prune50 --no-measure --latency-ms 3", "give a ratio (0.5) or latency_ms (3), not both"),
        ("--recipe prune --latency-ms 0", "0 is not in the range x>0"),
        ("--recipe prune", "the prune step has no goal. Say how much goes (prune50 takes half of the MACs)"),
    ],
)
def test_what_does_not_fit_is_refused(command_line: Callable[..., Result], options: str, message: str) -> None:
    result = command_line(f"compress task.py {options}")
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--recipe int8", {"measure": None, "target": None, "device": "host"}),
        ("--recipe int8 --measure --target tflite --device d.toml", {"measure": True, "target": "tflite", "device": "d.toml"}),
        ("--recipe prune50 --no-measure", {"measure": False, "target": None, "device": "host"}),
    ],
)
def test_where_stages_are_measured(
    command_line: Callable[..., Result],
    write_task: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    options: str,
    expected: dict[str, Any],
) -> None:
    asked: dict[str, Any] = {}

    def compress(task: Any, *, recipe: Any, output: Path, force: bool, progress: Any, **measuring: Any) -> Any:
        asked.update(measuring)
        return pipeline_compress(task, recipe="none", output=output, force=force, progress=progress)

    pipeline_compress = pipeline.compress
    monkeypatch.setattr(pipeline, "compress", compress)
    write_task()
    result = command_line(f"compress task.py {options} -o run --json")
    assert result.exit_code == 0, result.output
    assert asked == expected
    assert json.loads(result.stdout)["steps"][0]["stage"] is None
