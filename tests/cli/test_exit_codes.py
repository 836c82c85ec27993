"""One test for each code the program can end with."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result

from edgekit import pipeline, registry
from edgekit.cli.exit_codes import ExitCode, exit_code_of
from edgekit.core import errors
from edgekit.core.errors import DeviceError, EdgekitError
from tests.cli.conftest import Road


def test_0_done(command_line: Callable[..., Result]) -> None:
    assert command_line("recipes").exit_code == 0


def test_1_a_gate_was_missed(road: Road) -> None:
    result = road.results["validate runs/watch --device host"]
    assert result.exit_code == 1, result.output
    assert re.search(r"^(BLOCK|INCONCLUSIVE)  ", result.stdout, re.MULTILINE)
    assert (road.folder / "runs" / "watch" / "report.json").is_file()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("compres", "Unknown command 'compres'. Did you mean 'compress'?"),
        ("compress", "Missing argument 'TASK'"),
        ("compress task.py --recip int8", "--recipe"),
        ("compress task.py", "task.py does not exist"),
        ("compress task.py --recipe int9 -o runs/x", "Did you mean 'int8'?"),
        ("export runs/nothing --target onnx", "Run folder runs/nothing does not exist"),
        ("export runs/nothing", "--target"),
        ("validate .", "holds no edgekit.json"),
        ("report .", "holds no edgekit.json"),
        ("demo", "examples/smartwatch/task.py is not here"),
        ("devices nothing.toml", "nothing.toml"),
    ],
)
def test_2_usage(command_line: Callable[..., Result], line: str, words: str) -> None:
    result = command_line(line)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_2_unknown_target(command_line: Callable[..., Result], run: Path) -> None:
    result = command_line("export runs/tiny --target onxn")
    assert result.exit_code == 2
    assert (
        "Unknown converter 'onxn'; known: coreml, onnx, saved-model, tflite, torch-export, torchscript. Did you mean 'onnx'?"
        in result.stderr
    )


def test_2_not_validated_yet(command_line: Callable[..., Result], run: Path) -> None:
    result = command_line("report runs/tiny")
    assert result.exit_code == 2
    assert "edgekit validate runs/tiny --device host" in result.stderr


def test_3_not_convertible(command_line: Callable[..., Result], write_task: Callable[..., Path]) -> None:
    write_task(forward="return x if x.sum() > 0 else -x")
    result = command_line("compress task.py -o runs/x")
    assert result.exit_code == 3
    assert "return x if x.sum() > 0 else -x" in result.stderr


def test_4_device_lost(command_line: Callable[..., Result], run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unplugged:
        def __init__(self, *_arguments: object, **_options: object) -> None:
            raise DeviceError("Device 'host' does not answer. Plug it in and try again.")

    monkeypatch.setattr(registry, "transport", lambda _name: Unplugged)
    result = command_line("validate runs/tiny")
    assert result.exit_code == 4, result.output
    assert "Device 'host' does not answer" in result.stderr


def test_5_artifact_changed(command_line: Callable[..., Result], run: Path) -> None:
    artifact = next((run / "artifacts" / "onnx").glob("*.onnx"))
    artifact.write_bytes(artifact.read_bytes()[:-1])
    result = command_line("validate runs/tiny")
    assert result.exit_code == 5
    assert artifact.name in result.stderr


def test_5_program_changed(command_line: Callable[..., Result], run: Path) -> None:
    contract = run / "compressed" / "contract.json"
    contract.write_text(contract.read_text().replace("int8", "int4", 1))
    result = command_line("export runs/tiny --target onnx --force")
    assert result.exit_code == 5
    assert "contract.json has sha256" in result.stderr


def test_70_a_bug_keeps_its_traceback(
    command_line: Callable[..., Result], write_task: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise ZeroDivisionError("by zero")

    write_task()
    monkeypatch.setattr(pipeline, "compress", fail)
    result = command_line("compress task.py -o runs/x")
    assert result.exit_code == 70
    assert result.stderr.splitlines()[-1].startswith("Error: edgekit failed unexpectedly")
    assert "Traceback" not in result.stderr
    kept = re.search(r"traceback is in (\S+)\.\n", result.stderr)
    assert kept is not None
    assert "ZeroDivisionError: by zero" in Path(kept[1]).read_text()
    Path(kept[1]).unlink()


def test_70_in_a_run_keeps_its_traceback_in_the_log(
    command_line: Callable[..., Result], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(pipeline, "export", fail)
    result = command_line("export runs/tiny --target onnx")
    assert result.exit_code == 70
    assert "ZeroDivisionError: by zero" in (run / "log.txt").read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals: runs on Linux and macOS")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_130_interrupted_143_ended(write_task: Callable[..., Path], tmp_path: Path, sent: signal.Signals, code: int) -> None:
    write_task(model="(lambda: [open('building', 'w').close(), __import__('time').sleep(60)])")
    command = [sys.executable, "-m", "edgekit.cli", "compress", "task.py", "-o", "runs/x"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "building").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, sent)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == code, stderr
    assert stdout == ""
    assert stderr.strip().splitlines()[-1] == "Interrupted. Workers were stopped, and nothing is left half written."
    assert not (tmp_path / "runs" / "x").exists()


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name.endswith("Error")])
def test_every_error_has_a_code_of_the_table(name: str) -> None:
    error = getattr(errors, name)
    assert issubclass(error, EdgekitError)
    assert error is EdgekitError or error.exit_code in {2, 3, 4, 5}


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (click.UsageError("?"), ExitCode.USAGE),
        (OSError(28, "No space left on device"), ExitCode.USAGE),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (ValueError("?"), ExitCode.BUG),
    ],
)
def test_code_of_what_is_not_ours(reason: BaseException, code: ExitCode) -> None:
    assert exit_code_of(reason) == code


def test_a_closed_pipe_is_no_bug() -> None:
    closed = SystemExit(1)
    closed.__context__ = BrokenPipeError()
    assert exit_code_of(closed) == exit_code_of(BrokenPipeError()) == ExitCode.PIPE_CLOSED
    assert exit_code_of(SystemExit(1)) == ExitCode.BUG
