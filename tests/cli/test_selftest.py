"""``edgekit selftest``, and ``edgekit export --snippet``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from edgekit.core.artifact import Artifact
from edgekit.core.files import sha256
from edgekit.snippets import render


def change_expected(folder: Path) -> None:
    """Another expected answer, with the digests to go with it."""
    file = next((folder / "selftest").glob("0.output.*.bin"))
    file.write_bytes((np.fromfile(file, "<f4") + np.float32(1)).tobytes())
    record = Artifact.read_json(folder / "artifact.json")
    record.replace(selftest_sha256=sha256(folder / "selftest")).write_json(folder / "artifact.json")


@pytest.mark.slow
def test_all_artifacts_pass(run: Path, command_line: Callable[..., Result]) -> None:
    result = command_line("selftest runs/tiny")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("ok") == 6
    assert "coreml, coreml-float32: run by coreml-reference" in result.stdout


@pytest.mark.slow
def test_a_difference_ends_with_1(run: Path, command_line: Callable[..., Result]) -> None:
    change_expected(run / "artifacts" / "onnx")
    result = command_line("selftest runs/tiny --artifact onnx --artifact onnx-float32 --json --no-progress")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["passed"] is False
    assert {row["artifact"]: row["passed"] for row in document["results"]} == {"onnx": False, "onnx-float32": True}
    assert document["results"][0]["outputs"][0]["difference"] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("selftest runs/tiny --artifact onxn", "Did you mean 'onnx'"),
        ("selftest runs/none", "does not exist"),
        ("export runs/tiny --target coreml --target onnx --snippet swift", "--snippet is for one target"),
        ("export runs/tiny --target coreml --snippet kotlin", "cannot be used from Kotlin"),
        ("export runs/tiny --target onnx --opset 24 --dry-run", "24"),
        ("export runs/tiny --target onnx --metadata author --dry-run", "not NAME=VALUE"),
    ],
)
def test_what_cannot_be_done_ends_with_2(run: Path, command_line: Callable[..., Result], line: str, complaint: str) -> None:
    result = command_line(line)
    assert result.exit_code == 2, result.output
    assert complaint in result.stderr


def test_a_damaged_self_test_ends_with_5(run: Path, command_line: Callable[..., Result]) -> None:
    (run / "artifacts" / "tflite" / "selftest" / "selftest.json").unlink()
    assert command_line("selftest runs/tiny --artifact tflite").exit_code == 5


def test_a_snippet_is_all_there_is_on_stdout(run: Path, command_line: Callable[..., Result]) -> None:
    before = (run / "artifacts" / "tflite" / "artifact.json").stat().st_mtime_ns
    result = command_line("export runs/tiny --target tflite --snippet kotlin")
    assert result.exit_code == 0, result.output
    assert result.stdout == render(Artifact.load(run / "artifacts" / "tflite"), "kotlin")
    assert (run / "artifacts" / "tflite" / "artifact.json").stat().st_mtime_ns == before
    document = json.loads(command_line("export runs/tiny --target tflite --snippet kotlin --json").stdout)
    assert (document["artifact"], document["language"], document["code"]) == ("tflite", "kotlin", result.stdout)
