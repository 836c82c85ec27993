from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edgekit.core import worker
from edgekit.core.errors import IntegrityError, MissingExtraError, WorkerError

CHILD = """
from __future__ import annotations
import os, resource, signal, sys, time
from edgekit.core.errors import IntegrityError, MissingExtraError

def add(*, first, second):
    print("adding")
    return {"sum": first + second}
def refuse(): raise IntegrityError("the file is bent")
def lacks(): raise MissingExtraError("coreml", module="coremltools")
def fail(): return 1 // 0
def fill_the_log():
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
    sys.stdout.write("x" * 3900)
    refuse()
def die(): os.kill(os.getpid(), signal.SIGSEGV)
def sleep(*, pid_file):
    open(pid_file, "w").write(str(os.getpid()))
    time.sleep(60)
def eat():
    held = bytearray(600 * 2**20)
    held[::4096] = b"x" * len(held[::4096])
    time.sleep(60)
def hidden():
    try:
        import decimal
    except ImportError:
        return "hidden"
    return "seen"
"""


@pytest.fixture
def call(tmp_path: Path) -> Any:
    (tmp_path / "child_work.py").write_text(CHILD)

    def run(name: str, arguments: dict[str, Any] | None = None, **options: Any) -> Any:
        return worker.call(
            f"child_work:{name}",
            arguments or {},
            what="testing",
            environment={"PYTHONPATH": str(tmp_path)},
            log=tmp_path / "log.txt",
            **options,
        )

    return run


def test_answer_and_log(call: Any, tmp_path: Path) -> None:
    assert call("add", {"first": 1, "second": 2}) == {"sum": 3}
    assert "adding" in (tmp_path / "log.txt").read_text()


def test_own_errors_come_back_as_themselves(call: Any) -> None:
    with pytest.raises(IntegrityError, match="the file is bent"):
        call("refuse")
    with pytest.raises(MissingExtraError, match=r"edgekit\[coreml\]"):
        call("lacks")


def test_foreign_errors_name_their_type(call: Any, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="ZeroDivisionError"):
        call("fail")
    assert "Traceback" in (tmp_path / "log.txt").read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="limits file sizes with setrlimit: runs on Linux and macOS")
def test_a_log_that_finds_the_disk_full_does_not_cost_the_answer(call: Any) -> None:
    with pytest.raises(IntegrityError, match="the file is bent"):
        call("fill_the_log")


def test_crash_is_a_message(call: Any) -> None:
    with pytest.raises(WorkerError, match="SIGSEGV"):
        call("die")


def test_time_limit_kills(call: Any, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with pytest.raises(WorkerError, match="longer than 3 s"):
        call("sleep", {"pid_file": str(pid_file)}, timeout_s=3)
    time.sleep(0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), signal.SIG_DFL)


def test_memory_limit_kills(call: Any) -> None:
    with pytest.raises(WorkerError, match="more than its limit of 200 MiB"):
        call("eat", memory_bytes=200 * 2**20)


def test_hidden_modules(call: Any) -> None:
    assert call("hidden", hides=("decimal",)) == "hidden"
    assert call("hidden") == "seen"
