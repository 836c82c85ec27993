"""Results on stdout, everything else on stderr; frameworks' chatter in the log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

NOISY = """(lambda: (
        print("to stdout"),
        print("to stderr", file=__import__("sys").stderr),
        __import__("os").write(1, b"from below\\n"),
        Net(),
    )[-1])"""
CHATTER = ("to stdout", "to stderr", "from below")


@pytest.fixture
def noisy(write_task: Callable[..., Path]) -> Path:
    """A task whose model prints on every way there is."""
    return write_task(model=NOISY)


def call(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program as a process of its own: its real stdout and stderr."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("EDGEKIT_") and name != "NO_COLOR"}
    command = [sys.executable, "-m", "edgekit.cli", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env={**clean, **environment})


def test_json_is_one_document_and_chatter_is_in_the_log(command_line: Callable[..., Result], noisy: Path) -> None:
    result = command_line("compress task.py -o runs/x --json")
    document = json.loads(result.stdout)
    assert (document["schema_version"], document["command"], document["ok"]) == (1, "compress", True)
    assert document["run"] == "runs/x"
    assert document["precision"] == "int8"
    log = (noisy.parent / "runs" / "x" / "log.txt").read_text()
    for words in CHATTER:
        assert words not in result.stderr
        assert words in log


def test_verbose_shows_the_chatter_on_stderr(noisy: Path) -> None:
    done = call(noisy.parent, "compress", "task.py", "-o", "runs/x", "-v", "--json")
    json.loads(done.stdout)
    log = (noisy.parent / "runs" / "x" / "log.txt").read_text()
    for words in CHATTER:
        assert words in done.stderr
        assert words in log


def test_quiet_says_nothing(command_line: Callable[..., Result], write_task: Callable[..., Path]) -> None:
    write_task()
    result = command_line("compress task.py -o runs/x -q")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_progress_is_lines_where_there_is_no_terminal(
    command_line: Callable[..., Result], write_task: Callable[..., Path]
) -> None:
    write_task()
    lines = command_line("compress task.py -o runs/x").stderr.splitlines()
    assert lines[:2] == ["load task …", "capture …"]
    assert command_line("compress task.py -o runs/y --no-progress").stderr == ""
    assert command_line("compress task.py -o runs/z", EDGEKIT_PROGRESS="0").stderr == ""


@pytest.mark.parametrize("line", ["compress nothing.py --json", "compress --json", "export runs/nothing -t onnx --json"])
def test_a_failure_is_a_document_too(command_line: Callable[..., Result], line: str) -> None:
    result = command_line(line)
    document = json.loads(result.stdout)
    assert (document["schema_version"], document["command"], document["ok"]) == (1, line.split(maxsplit=1)[0], False)
    assert document["error"]["exit_code"] == result.exit_code == 2
    assert document["error"]["message"] in result.stderr


def test_json_may_come_from_the_environment(command_line: Callable[..., Result]) -> None:
    result = command_line("compress nothing.py", EDGEKIT_JSON="1")
    assert json.loads(result.stdout)["error"]["type"] == "TaskError"


@pytest.mark.parametrize("name", ["recipes", "devices", "doctor"])
def test_lists_are_documents(command_line: Callable[..., Result], name: str) -> None:
    result = command_line(f"{name} --json")
    assert json.loads(result.stdout)["command"] == name
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("options", "environment", "coloured"),
    [
        ("", {}, False),
        ("--color", {}, True),
        ("--color", {"NO_COLOR": "1"}, True),
        ("", {"EDGEKIT_COLOR": "1"}, True),
        ("--no-color", {"EDGEKIT_COLOR": "1"}, False),
    ],
)
def test_colour(command_line: Callable[..., Result], options: str, environment: dict[str, str], coloured: bool) -> None:
    assert ("\x1b[" in command_line(f"recipes {options}", **environment).stdout) is coloured
    assert ("\x1b[" in command_line(f"compress nothing.py {options}", **environment).stderr) is coloured


def test_no_color_on_a_terminal(write_task: Callable[..., Path]) -> None:
    pty = pytest.importorskip("pty", reason="needs a pseudo-terminal: runs on Linux and macOS")
    folder = write_task().parent
    for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        controller, terminal = pty.openpty()
        clean = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "EDGEKIT_COLOR"}}
        command = [sys.executable, "-m", "edgekit.cli", "recipes"]
        subprocess.run(command, cwd=folder, stdout=terminal, check=True, env={**clean, "TERM": "xterm-256color", **environment})
        os.close(terminal)
        assert (b"\x1b[" in os.read(controller, 65536)) is coloured
        os.close(controller)
