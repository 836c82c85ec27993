"""Shared by all tests: golden files and the one command that renews them; a tiny task, and the command line."""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

GOLDEN = Path(__file__).parent / "golden"

_LONG = ("tests/docs/test_docs.py", "tests/examples/", "tests/cli/", "tests/contract/")

os.environ["EDGEKIT_CACHE"] = "off"  # a conversion that is tested is done
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, and before torch is imported


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--renew-golden", action="store_true", help="write the golden files anew instead of comparing with them")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes in one file begins first, so that no process is left with it at the end."""
    items.sort(key=lambda item: next((at for at, name in enumerate(_LONG) if name in item.nodeid), len(_LONG)))


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden("report/terminal_80.txt", text)`` compares with the file in tests/golden, or writes it with ``--renew-golden``."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--renew-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        renew = f"Look at the change, then renew with: pytest {request.node.nodeid.split('::')[0]} --renew-golden"
        if not path.is_file():
            pytest.fail(f"golden file {path.name} does not exist. {renew}")
        expected = path.read_text(encoding="utf-8")
        if text != expected:
            lines = difflib.unified_diff(expected.splitlines(), text.splitlines(), "golden", "now", lineterm="", n=1)
            pytest.fail("\n".join([f"{name} changed. {renew}", *list(lines)[:80]]), pytrace=False)

    return compare


TINY_TASK = """
import numpy as np
import torch

import edgekit

SIGNALS = np.random.default_rng(0).standard_normal((32, 3, 16)).astype(np.float32)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv1d(3, 8, 3, padding=1)
        self.head = torch.nn.Linear(8, 4)
        {init}

    def forward(self, x):
        {forward}


def evaluation():
    with torch.no_grad():
        for batch in np.split(SIGNALS, 2):
            yield batch, task.build_model()(torch.from_numpy(batch)).argmax(1).numpy()


task = edgekit.Task(
    name="tiny",
    model={model},
    example_inputs={example_inputs},
    calibration={calibration},
    evaluation=evaluation,
    labels=list("abcd"),
)
"""
TINY_PARTS = {
    "init": "pass",
    "forward": "return self.head(torch.relu(self.conv(x)).mean(-1))",
    "model": "Net",
    "example_inputs": "SIGNALS[:1]",
    "calibration": "np.split(SIGNALS, 2)",
}


@pytest.fixture
def write_task(tmp_path: Path) -> Callable[..., Path]:
    """``write_task(forward="return x")`` writes a task file with a tiny 1-D net, some of its parts replaced."""

    def write(name: str = "task.py", **parts: str) -> Path:
        assert set(parts) <= set(TINY_PARTS)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TINY_TASK.format(**{**TINY_PARTS, **parts}), encoding="utf-8")
        return path

    return write


@pytest.fixture
def command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """``command_line("export runs/tiny --target onnx")`` runs one command in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("EDGEKIT_")] + ["NO_COLOR", "FORCE_COLOR"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EDGEKIT_CACHE", "off")

    def call(line: str, **environment: str) -> Result:
        from edgekit.cli import main

        return CliRunner(env=environment).invoke(main, shlex.split(line), prog_name="edgekit")

    return call
