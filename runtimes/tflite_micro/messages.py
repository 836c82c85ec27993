"""What native code writes to the standard error, as text: TFLM says there why it failed and what its arena holds."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator

__all__ = ["native_messages"]

_STDERR = 2


@contextlib.contextmanager
def native_messages() -> Iterator[Callable[[], str]]:
    """Take what is written to file descriptor 2; the function given returns it, inside the block and after it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
    try:
        kept = os.dup(_STDERR)
    except OSError:  # there is no standard error: nothing to give back
        kept = None
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), _STDERR)  # which the file has become by itself where there was no standard error
        text: list[str] = []

        def read() -> str:
            return text[0] if text else os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode("utf-8", "replace")

        try:
            yield read
        finally:
            text.append(read())
            if kept is not None:
                os.dup2(kept, _STDERR)
                os.close(kept)
            elif file.fileno() != _STDERR:
                os.close(_STDERR)
