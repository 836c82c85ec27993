"""A target that is not installed, and workers that crash, hang, or are interrupted."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from edgekit import conversion
from edgekit.core import entry_points, worker
from tests.bad_input.conftest import contents

PLUGIN = """
import os, pathlib, time


class Broken:
    name, extra, modules, hides = "broken", "broken", (), ()

    def convert(self, compressed, *, output, options):
        (output / "model.bin").write_bytes(b"half of a model")
        {body}


CONVERTER = Broken()
"""


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Install a converter plug-in called ``broken`` whose ``convert`` runs the given line."""
    site = tmp_path / "site"

    def install(body: str) -> None:
        information = site / "broken_target-1.0.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-target\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text("[edgekit.converters]\nbroken = broken_target:CONVERTER\n")
        (site / "broken_target.py").write_text(PLUGIN.format(body=body))
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.setenv("PYTHONPATH", str(site))
        entry_points._group.cache_clear()

    yield install
    entry_points._group.cache_clear()
    sys.modules.pop("broken_target", None)


def test_an_extra_that_is_not_installed(refused: Callable[..., str], compressed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coremltools", None)
    message = refused("export runs/tiny --target onnx --target coreml", 2)
    assert "'coremltools' is not installed, and this needs it. Install it with: pip install 'edgekit[coreml]'" in message
    assert not (compressed / "artifacts").exists()


def test_a_worker_that_crashes(refused: Callable[..., str], compressed: Path, plug_in: Callable[[str], None]) -> None:
    plug_in("print('last words', flush=True); os.abort()")
    message = refused("export runs/tiny --target broken", 3)
    assert "was killed by SIGABRT. Last words: last words" in message
    assert "last words" in (compressed / "log.txt").read_text()


def test_a_worker_that_exceeds_its_time(
    refused: Callable[..., str], compressed: Path, plug_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plug_in("time.sleep(600)")
    monkeypatch.setattr(worker, "call", functools.partial(worker.call, timeout_s=3))
    assert conversion.worker is worker
    start = time.monotonic()
    message = refused("export runs/tiny --target broken", 3)
    assert "ran longer than 3 s and was stopped" in message
    assert time.monotonic() - start < 60
    alive = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    assert [child.cmdline() for child in alive if "edgekit.core.worker" in child.cmdline()] == []


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals: runs on Linux and macOS")
def test_an_interrupt_ends_the_worker_and_leaves_nothing_half_written(compressed: Path, plug_in: Callable[[str], None]) -> None:
    folder = compressed.parents[1]
    plug_in("time.sleep(600)")
    before = contents(folder / "runs")
    command = [sys.executable, "-m", "edgekit.cli", "export", "runs/tiny", "--target", "broken"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 90
    workers: list[int] = []
    while not workers and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
        children = psutil.Process(process.pid).children()
        workers = [child.pid for child in children if "edgekit.core.worker" in child.cmdline()]
    time.sleep(0.5)
    assert workers
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert stderr.splitlines()[-1] == "Interrupted. Workers were stopped, and nothing is left half written."
    assert not any(psutil.pid_exists(pid) for pid in workers)
    assert contents(folder / "runs") == before
