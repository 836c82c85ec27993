"""One call in a child process of a process that has imported its framework already, with limits of time and memory."""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Ended", "call_forked"]

Ended = dict[str, Any]
"""``value`` or ``error`` (first line) and ``kind``; ``seconds``, ``cpu_seconds``, ``peak_mb``."""

_POLL_S = 0.01


def call_forked(function: Callable[[], dict[str, Any]], *, timeout_s: float, memory_bytes: int, log: Path) -> Ended:
    """Call ``function`` in a child and wait for it; its output is appended to ``log``.

    A child that raises gives the exception's type and first line; one that dies gives ``crashed``; one that takes too long is
    killed and gives ``timeout``.
    """
    clock = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="zoo-") as scratch:
        answer = Path(scratch) / "answer.json"
        child = os.fork()
        if child == 0:
            _be_child(function, answer, memory_bytes=memory_bytes, log=log)
        status, usage = _wait(child, clock + timeout_s)
        found: Ended = json.loads(answer.read_text()) if answer.exists() else {"kind": "crashed", "error": _death(status)}
        if status is None:
            found = {"kind": "timeout", "error": f"longer than {timeout_s:.0f} s"}
    cpu = usage.ru_utime + usage.ru_stime
    return {**found, "seconds": time.monotonic() - clock, "cpu_seconds": cpu, "peak_mb": usage.ru_maxrss / 1024}


def _be_child(function: Callable[[], dict[str, Any]], answer: Path, *, memory_bytes: int, log: Path) -> None:
    os.setsid()
    gc.disable()  # a short life; collecting would copy the pages shared with the parent
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    log.parent.mkdir(parents=True, exist_ok=True)
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    try:
        found: Ended = {"value": function()}
    except BaseException as reason:
        traceback.print_exc()
        first = next((line.strip() for line in str(reason).splitlines() if line.strip()), "")
        found = {"kind": "refused", "error": f"{type(reason).__name__}: {first}"[:400]}
    part = answer.with_suffix(".part")
    part.write_text(json.dumps(found))
    part.rename(answer)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _wait(child: int, deadline: float) -> tuple[int | None, resource.struct_rusage]:
    while time.monotonic() < deadline:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            return status, usage
        time.sleep(_POLL_S)
    os.killpg(child, signal.SIGKILL)
    _, _, usage = os.wait4(child, 0)
    return None, usage


def _death(status: int | None) -> str:
    if status is not None and os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return "ended without an answer"
