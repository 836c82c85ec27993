"""``edgekit exactness`` and ``edgekit.check_exactness``: exact runs pass, others fail with the layers and the reasons."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import edgekit
from edgekit.cli.exit_codes import ExitCode
from edgekit.core.task import load_task


@pytest.fixture
def make_run(write_task: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """``make_run("int8-exact")`` compresses the tiny task, some of its parts replaced, into a run folder."""

    def make(recipe: str, **parts: str) -> Path:
        task = load_task(write_task(f"task_{recipe.replace('-', '_')}.py", **parts))
        edgekit.compress(task, recipe=recipe, output=tmp_path / "runs" / recipe)
        return tmp_path / "runs" / recipe

    return make


def test_an_exact_run_passes_and_every_kernel_has_a_margin(
    command_line: Callable[..., Result], make_run: Callable[..., Path]
) -> None:
    result = command_line(f"exactness {make_run('int8-exact')} --json")
    assert result.exit_code == ExitCode.OK, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    assert document["is_exact"] is True
    rows = document["exactness"]["kernels"]
    assert {"conv", "head"} <= {row["layer"] for row in rows}
    assert all(row["is_exact"] and row["margin_steps"] > 0 and not row["reason"] for row in rows)
    assert all(int(row["multiplier"].split("/")[1]) % 2 == 1 for row in rows if row["multiplier"])


def test_the_table_says_that_all_is_exact(command_line: Callable[..., Result], make_run: Callable[..., Path]) -> None:
    run = make_run("int8-exact")
    result = command_line(f"exactness {run}")
    assert result.exit_code == ExitCode.OK, result.output
    count = len(edgekit.check_exactness(run).kernels)
    assert f"All {count} kernels are exact" in result.stdout
    assert "margin, steps" in result.stdout


def test_what_is_not_exact_fails_and_is_named(command_line: Callable[..., Result], make_run: Callable[..., Path]) -> None:
    result = command_line(f"exactness {make_run('int8')}")
    assert result.exit_code == ExitCode.GATE_MISSED, result.output
    said = " ".join(result.stdout.split())
    assert "power of two" in said
    assert "1 of " in said
    assert "may round differently" in said


def test_a_softmax_is_named_with_its_reason(make_run: Callable[..., Path]) -> None:
    run = make_run("int8-exact", forward="return torch.softmax(self.head(torch.relu(self.conv(x)).mean(-1)), -1)")
    report = edgekit.check_exactness(run)
    assert [kernel.op for kernel in report.inexact] == ["softmax"]
    assert "exponentials" in report.inexact[0].reason


@pytest.mark.parametrize("recipe", ["none", "w8", "dynamic-int8"])
def test_floats_between_layers_are_never_called_exact(recipe: str, make_run: Callable[..., Path]) -> None:
    report = edgekit.check_exactness(make_run(recipe))
    assert not report.is_exact
    assert {"conv", "head"} & {kernel.layer for kernel in report.inexact}


def test_sixteen_bits_are_too_fine_for_the_proof(make_run: Callable[..., Path]) -> None:
    reasons = {kernel.layer: kernel.reason for kernel in edgekit.check_exactness(make_run("w8a16")).inexact}
    assert "more than 8 bits" in reasons["conv"]
    assert "more than 8 bits" in reasons["head"]


def test_a_program_in_memory_is_judged_like_its_run(write_task: Callable[..., Path]) -> None:
    compressed = edgekit.compress(load_task(write_task()), recipe="int8-exact")
    assert edgekit.check_exactness(compressed).is_exact


def test_a_folder_that_is_no_run_is_a_usage_error(command_line: Callable[..., Result], tmp_path: Path) -> None:
    result = command_line(f"exactness {tmp_path}")
    assert result.exit_code == ExitCode.USAGE
    assert "is not a run folder" in result.stderr
