"""What every case must show: one clear message, the right exit code, and nothing half written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Contents = dict[str, bytes]


def contents(folder: Path) -> Contents:
    """Every file below ``folder`` (hidden and temporary ones too, logs not), with its bytes."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "log.txt"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def refused(command_line: Callable[..., Result], tmp_path: Path) -> Callable[..., str]:
    """``refused("compress task.py -o runs/x", 2)``: call, check the code and that ``runs`` stayed as it was; the message."""

    def call(line: str, code: int) -> str:
        before = contents(tmp_path / "runs")
        result = command_line(f"{line} --no-progress")
        assert result.exit_code == code, result.output
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        assert result.stderr.count("Error: ") == 1 or result.stderr.startswith("Error: ")
        assert contents(tmp_path / "runs") == before
        return result.stderr

    return call


@pytest.fixture
def compressed(command_line: Callable[..., Result], write_task: Callable[..., Path], tmp_path: Path) -> Path:
    """A healthy run at ``runs/tiny``."""
    write_task()
    result = command_line("compress task.py -o runs/tiny --no-progress")
    assert result.exit_code == 0, result.output
    return tmp_path / "runs" / "tiny"
