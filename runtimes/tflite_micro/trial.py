"""Load and run a model in an arena of a given size, in a process of its own: ``python -m edgekit.runtimes.tflite_micro.trial``.

TFLM may crash where the arena is too small; the exit status says whether it held the model.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

__all__ = ["fits", "smallest_arena"]

_STEP_BYTES = 16
"""TFLM aligns its arena's ends to this (``MicroArenaBufferAlignment`` of ``micro_arena_constants.h``)."""
_LIMIT_S = 120.0
_MOST_GROWTH = 4
_LEAST_LIMIT_BYTES = 2**16


def smallest_arena(path: Path, recorded_bytes: int) -> int | None:
    """Size of the smallest arena, in steps of 16 bytes, in which the model loads and runs here.

    Args:
        path: A file TFLM has accepted.
        recorded_bytes: What it took of a large arena. It takes no less of a small one; planning may need more for a moment.

    Returns:
        The size; None where even four times as much is not enough, or a trial took too long.
    """
    try:
        return _search(path, recorded_bytes)
    except subprocess.TimeoutExpired:
        return None


def _search(path: Path, recorded_bytes: int) -> int | None:
    low, high, more = recorded_bytes - _STEP_BYTES, _rounded(recorded_bytes), _STEP_BYTES
    while not fits(path, high):
        if high > _MOST_GROWTH * recorded_bytes + _LEAST_LIMIT_BYTES:
            return None
        low, high, more = high, high + more, 2 * more
    while high - low > _STEP_BYTES:
        middle = _rounded((low + high) // 2)
        if middle >= high:
            break
        if fits(path, middle):
            high = middle
        else:
            low = middle
    return high


def fits(path: Path, arena_bytes: int) -> bool:
    """Whether TFLM loads and runs the model in so large an arena.

    Raises:
        TimeoutExpired: It took too long to tell.
    """
    command = [sys.executable, "-P", "-m", __name__, str(path), str(arena_bytes)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_LIMIT_S)
    return done.returncode == 0


def _rounded(size: int) -> int:
    return -(-size // _STEP_BYTES) * _STEP_BYTES


def _main(path: str, arena_bytes: str) -> None:
    runtime = importlib.import_module("tflite_micro").runtime
    runtime.Interpreter.from_bytes(Path(path).read_bytes(), arena_size=int(arena_bytes)).invoke()


if __name__ == "__main__":
    _main(*sys.argv[1:])
