"""Messages between a process and the child that holds a model for it: a small JSON header, then the arrays' bytes.

==================== ===================================================================
bytes                what
==================== ===================================================================
4                    ``EKF1``
4                    length of the header, little-endian
header               JSON: what is asked or answered, and each array's name, dtype, shape
sum of the arrays'   elements in C order, one array after the other
==================== ===================================================================

The reader believes nothing: a header that is too long or no JSON, a dtype that is not a plain number, a shape whose bytes
exceed the limit end the exchange. Nothing is unpickled, and no length is allocated before it was checked.
"""

from __future__ import annotations

import json
import math
import os
import select
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from edgekit.core.errors import DataError, IntegrityError

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["Channel", "Waiting", "wait_for_ever"]

_MARK = b"EKF1"
_HEAD = struct.Struct("<4sI")
_HEADER_BYTES = 8 * 2**20
"""Longest header: the specs of some ten thousand tensors."""
_WIDTHS = {
    "bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8, "uint64": 8,
    "float16": 2, "float32": 4, "float64": 8,
}  # fmt: skip
"""Bytes of an element, of the types that may be sent."""
_MOST_ARRAYS = 4096
_MOST_AXES = 32
"""numpy takes 64; no format of models more than these."""
_BUFFERS = 512
"""Buffers handed to one system call; Linux takes 1024."""

Waiting = Callable[[int, int], None]
"""``waiting(descriptor, event)``: returns once the descriptor may be ready for the event of ``poll``, or raises."""


def wait_for_ever(descriptor: int, event: int) -> None:
    """A :data:`Waiting` without a limit."""
    poll = select.poll()
    poll.register(descriptor, event)
    poll.poll()


class Channel:
    """Two pipes, one each way.

    Args:
        reads: Descriptor that is read from.
        writes: Descriptor that is written to.
        waiting: Called while the other side is not ready; it enforces the limits.
    """

    def __init__(self, *, reads: int, writes: int, waiting: Waiting = wait_for_ever) -> None:
        self._reads, self._writes, self._waiting = reads, writes, waiting
        os.set_blocking(reads, False)
        os.set_blocking(writes, False)

    def send(self, header: Mapping[str, Any], arrays: Mapping[str, Array] | None = None) -> None:
        """Write one message.

        Args:
            header: JSON values; the key ``arrays`` is this method's own.
            arrays: Plain numeric arrays by name.

        Raises:
            BrokenPipeError: The other side is gone.
            DataError: An array is of no plain numbers; nothing was written.
        """
        import numpy as np

        for name, array in (arrays or {}).items():
            if str(array.dtype) not in _WIDTHS:
                raise DataError(f"'{name}' is an array of {array.dtype}; only {', '.join(_WIDTHS)} can be exchanged.")
        whole = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in (arrays or {}).items()}
        rows = [[name, str(array.dtype), list(array.shape)] for name, array in whole.items()]
        text = json.dumps({**header, "arrays": rows}).encode()
        self._write([memoryview(_HEAD.pack(_MARK, len(text)) + text), *(_bytes_of(a) for a in whole.values() if a.size)])

    def send_plain(self, header: Mapping[str, Any]) -> None:
        """Write a message without arrays; numpy is not needed for it."""
        text = json.dumps({**header, "arrays": []}).encode()
        self._write([memoryview(_HEAD.pack(_MARK, len(text)) + text)])

    def receive(self, *, limit_bytes: int) -> tuple[dict[str, Any], dict[str, Array]]:
        """Read one message.

        Args:
            limit_bytes: Most bytes the arrays may have together.

        Returns:
            The header and the arrays by name.

        Raises:
            EOFError: The other side is gone.
            IntegrityError: The message is none, or exceeds a limit.
        """
        mark, length = _HEAD.unpack(self._read(_HEAD.size))
        if mark != _MARK or length > _HEADER_BYTES:
            raise IntegrityError(f"The answer begins with {mark!r} and a header of {length} bytes: it is not one.")
        try:
            header = json.loads(bytes(self._read(length)))
        except (ValueError, RecursionError) as reason:
            raise IntegrityError(f"The answer's header is not JSON: {reason}.") from reason
        if not isinstance(header, dict):
            raise IntegrityError(f"The answer's header is a {type(header).__name__}, expected an object.")
        return header, self._read_arrays(_rows(header.pop("arrays", []), limit_bytes))

    def _read_arrays(self, rows: list[tuple[str, str, tuple[int, ...]]]) -> dict[str, Array]:
        if not rows:
            return {}
        import numpy as np

        found: dict[str, Array] = {}
        for name, dtype, shape in rows:
            found[name] = np.empty(shape, dtype)
            if found[name].size:
                self._fill(_bytes_of(found[name]))
        return found

    def _read(self, count: int) -> bytearray:
        data = bytearray(count)
        self._fill(memoryview(data))
        return data

    def _fill(self, target: memoryview) -> None:
        while len(target):
            try:
                done = os.readv(self._reads, [target])
            except BlockingIOError:
                self._waiting(self._reads, select.POLLIN)
                continue
            if not done:
                raise EOFError
            target = target[done:]

    def _write(self, buffers: list[memoryview]) -> None:
        while buffers:
            try:
                done = os.writev(self._writes, buffers[:_BUFFERS])
            except BlockingIOError:
                self._waiting(self._writes, select.POLLOUT)
                continue
            while buffers and done >= len(buffers[0]):
                done -= len(buffers.pop(0))
            if done:
                buffers[0] = buffers[0][done:]


def _bytes_of(array: Array) -> memoryview:
    return memoryview(cast("Any", array.reshape(-1).view("uint8")))


def _rows(stored: Any, limit_bytes: int) -> list[tuple[str, str, tuple[int, ...]]]:
    """The arrays a header announces, once they are known to be plain numbers that fit the limit."""
    if not isinstance(stored, list) or len(stored) > _MOST_ARRAYS:
        raise IntegrityError(f"The answer announces no list of up to {_MOST_ARRAYS} arrays.")
    rows, total = [], 0
    for row in stored:
        match row:
            case [str(name), str(dtype), list(shape)] if dtype in _WIDTHS and len(shape) <= _MOST_AXES:
                pass
            case _:
                raise IntegrityError(f"The answer announces an array that is none: {str(row)[:80]!r}.")
        if not all(type(size) is int and 0 <= size < 2**48 for size in shape):
            raise IntegrityError(f"The answer's array '{name[:80]}' has the shape {str(shape)[:80]}.")
        total += math.prod(shape) * _WIDTHS[dtype]
        if total > limit_bytes:
            raise IntegrityError(
                f"The answer holds {total / 2**20:.0f} MiB up to array '{name[:80]}', more than the limit of"
                f" {limit_bytes / 2**20:.0f} MiB."
            )
        rows.append((name, dtype, tuple(shape)))
    return rows
