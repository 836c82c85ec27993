"""Watching a child process from outside: its memory, how it ended, and what it said last."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
import time
from pathlib import Path

__all__ = ["death", "end_with_caller", "last_words", "plain", "resident_bytes"]

_TAIL_BYTES = 4096
_LOOK_S = 2.0
"""How often a child looks whether its caller is still there."""


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and what it started, in bytes."""
    total, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        total += _resident_alone(one)
        waiting += _children(one)
    return total


def _resident_alone(pid: int) -> int:
    """Where the kernel says it in a file, that spares the import of psutil."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _page_bytes()
    except (OSError, IndexError, ValueError):
        if Path("/proc/self/statm").exists():
            return 0  # it has ended
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        return int(psutil.Process(pid).memory_info().rss)
    return 0


def _children(pid: int) -> list[int]:
    """Children of a process; where the kernel lists them itself, that costs a fraction of looking at every process."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        if not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            return []  # it has ended
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        return [child.pid for child in psutil.Process(pid).children()]
    return []


@functools.cache
def _page_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE")


def death(code: int) -> str:
    """How a process ended, in words, by its exit code as ``subprocess`` gives it.

    >>> death(-11), death(3)
    ('was killed by SIGSEGV', 'ended with code 3 and no answer')
    """
    if code < 0:
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"
    return f"ended with code {code} and no answer"


def last_words(log: Path, start: int = 0) -> str:
    """The last three lines of a log from byte ``start`` on; without escape sequences, since anybody may have written them."""
    with log.open("rb") as stream:
        stream.seek(max(start, stream.seek(0, os.SEEK_END) - _TAIL_BYTES))
        text = stream.read().decode("utf-8", "replace")
    lines = [plain(line).strip() for line in text.splitlines()]
    return " | ".join([line for line in lines if line][-3:]) or "(none)"


def plain(text: str, *, most: int = 4000) -> str:
    r"""Text from somebody else, fit for a terminal: no control characters but line ends, and no more than ``most`` letters.

    >>> plain("a\x1b[31mb")
    'a[31mb'
    """
    kept = "".join(letter for letter in text[: most + 1] if letter.isprintable() or letter == "\n")
    return kept if len(text) <= most else f"{kept[:most]}…"


def end_with_caller() -> None:
    """End this process once its caller is no more, whatever it is doing then; starts a thread."""
    caller = os.getppid()

    def watch() -> None:
        while os.getppid() == caller:
            time.sleep(_LOOK_S)
        os._exit(1)

    threading.Thread(target=watch, name="caller watch", daemon=True).start()
