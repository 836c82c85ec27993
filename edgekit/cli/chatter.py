"""What frameworks print goes into a log file, not onto the terminal.

Banners come from Python and from C++ alike, so the process's descriptors 1 and 2 themselves are pointed at the log;
our own words go to the terminal through a saved copy of its descriptor.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TextIO

__all__ = ["chatter_to", "following"]

_FOLLOW_S = 0.1


@contextlib.contextmanager
def chatter_to(log: Path) -> Iterator[TextIO]:
    """Append everything printed to stdout and stderr to ``log``; yield a stream that still reaches the terminal's stderr."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    saved = [os.dup(descriptor) for descriptor in (1, 2)]
    terminal = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace") if _is_descriptor_2(sys.stderr) else sys.stderr
    try:
        with log.open("a", encoding="utf-8", errors="replace", buffering=1) as sink:
            for descriptor in (1, 2):
                os.dup2(sink.fileno(), descriptor)
            with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
                yield terminal
    finally:
        for descriptor, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)
        terminal.flush()
        if terminal is not sys.stderr:
            terminal.close()


@contextlib.contextmanager
def following(log: Path, terminal: TextIO) -> Iterator[None]:
    """Copy to ``terminal`` what is appended to ``log`` meanwhile, by whichever process."""
    done = threading.Event()
    with log.open("rb") as stream:
        stream.seek(0, os.SEEK_END)
        thread = threading.Thread(target=_follow, args=(stream, terminal, done), name="edgekit-follow-log", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _follow(stream: IO[bytes], terminal: TextIO, done: threading.Event) -> None:
    while True:
        last_round = done.wait(_FOLLOW_S)
        terminal.write(stream.read().decode("utf-8", "replace"))
        terminal.flush()
        if last_round:
            return


def _is_descriptor_2(stream: TextIO) -> bool:
    try:
        return stream.fileno() == 2
    except (OSError, ValueError, AttributeError):
        return False
