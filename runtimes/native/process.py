"""A runner process that keeps a model loaded and answers over a pipe; ``src/serve.h`` describes the protocol.

Nothing the process sends is trusted: lines, types and sizes are checked against what the model said of itself.
"""

from __future__ import annotations

import json
import math
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from edgekit.core.errors import DataError, EdgekitError, IntegrityError, UnsupportedOpError, UsageError, WorkerError

if TYPE_CHECKING:
    from pathlib import Path

    from edgekit.core.tensors import Array

__all__ = ["RunnerProcess", "failure_of"]

_LINE_LIMIT = 1024
_BYTES_LIMIT = 1 << 32
_PREFIX = "edgekit-runner: "


class RunnerProcess:
    """The program with one model loaded.

    Args:
        command: The program, the model and its options, without ``--serve``.
        source: The model's name, for messages.
        timeout_s: How long an answer may take.

    Raises:
        IntegrityError: The file is not one the runtime can read.
        UnsupportedOpError: It, or the library, holds or lacks something that is not supported.
        UsageError: An option cannot be used here.
        WorkerError: The program crashed, or took too long.
    """

    def __init__(self, command: Sequence[str | Path], *, source: str, timeout_s: float = 600.0) -> None:
        self._source = source
        self._timeout_s = timeout_s
        self._buffer = b""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        self._process = subprocess.Popen(
            [*map(str, command), "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )
        try:
            self.description: dict[str, Any] = self._document()
        except BaseException:
            self.close()
            raise

    def run(self, inputs: Sequence[Array], *, output_count: int) -> list[Array]:
        """One inference: arrays in the order of the model's inputs -> arrays in the order of its outputs.

        Raises:
            DataError: An array does not fit.
            WorkerError: The program crashed, or took too long.
        """
        import numpy as np

        pieces = [b"run\n"]
        for given in inputs:
            array = np.ascontiguousarray(given).reshape(given.shape)  # a 0-d array stays one
            sizes = " ".join(map(str, [array.dtype.name, array.ndim, *array.shape]))
            pieces += [f"tensor {sizes}\n".encode(), array.tobytes()]
        self._send(b"".join(pieces))
        words = self._answer("ok")
        if words != [str(output_count)]:
            raise self._broken(f"it answered with {words} outputs, expected {output_count}")
        return [self._tensor() for _ in range(output_count)]

    def measure(self, *, warm_up: int, repeat: int, seconds: float) -> dict[str, Any]:
        """Time inferences on the inputs of the last run; what comes back is the report's ``latency``."""
        self._send(f"measure {warm_up} {repeat} {seconds}\n".encode())
        return cast("dict[str, Any]", self._document()["latency"])

    def close(self) -> None:
        """End the program."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue  # it ended before it read everything
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _send(self, data: bytes) -> None:
        if self._process.stdin is None or self._process.stdin.closed:
            raise DataError("This session is closed. Load the model again.")
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except BrokenPipeError as reason:
            raise self._ended() from reason

    def _document(self) -> dict[str, Any]:
        words = self._answer("json")
        text = self._read(_size(words[0]) if len(words) == 1 else -1)
        try:
            return cast("dict[str, Any]", json.loads(text))
        except ValueError as reason:
            raise self._broken("its report is not JSON") from reason

    def _answer(self, verb: str) -> list[str]:
        """Words of the next line after ``verb``; an error it says is raised."""
        found, *words = self._line().split(" ")
        if found == "error" and len(words) == 2:
            message = self._read(_size(words[1])).decode("utf-8", "replace")
            raise failure_of(_size(words[0]), message, self._source, is_run=True)
        if found != verb:
            raise self._broken(f"it answered '{found}', expected '{verb}'")
        return words

    def _tensor(self) -> Array:
        import numpy as np

        verb, *words = self._line().split(" ")
        try:
            dtype, rank, shape = np.dtype(words[0]), int(words[1]), tuple(int(word) for word in words[2:])
        except (IndexError, TypeError, ValueError) as reason:
            raise self._broken("an output has no readable type") from reason
        size = math.prod(shape) * dtype.itemsize
        if verb != "tensor" or len(shape) != rank or dtype.kind not in "biuf" or min(shape, default=0) < 0:
            raise self._broken("an output has no readable type")
        return np.frombuffer(self._read(size), dtype).reshape(shape).copy()

    def _line(self) -> str:
        while b"\n" not in self._buffer:
            if len(self._buffer) > _LINE_LIMIT:
                raise self._broken("it sent a line of more than 1024 bytes")
            self._fill(time.monotonic() + self._timeout_s)
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode("utf-8", "replace")

    def _read(self, size: int) -> bytes:
        if not 0 <= size <= _BYTES_LIMIT:
            raise self._broken(f"it announced {size} bytes")
        deadline, pieces, have = time.monotonic() + self._timeout_s, [self._buffer], len(self._buffer)
        while have < size:
            self._buffer = b""
            self._fill(deadline)
            pieces.append(self._buffer)
            have += len(self._buffer)
        whole = b"".join(pieces)
        self._buffer = whole[size:]
        return whole[:size]

    def _fill(self, deadline: float) -> None:
        if self._process.stdout is None or self._process.stdout.closed:
            raise DataError("This session is closed. Load the model again.")
        handle = self._process.stdout.fileno()
        waiter = select.poll()
        waiter.register(handle, select.POLLIN)
        if not waiter.poll(max(0.0, deadline - time.monotonic()) * 1000):
            self._process.kill()
            raise WorkerError(f"{self._source}: edgekit-runner did not answer within {self._timeout_s:.0f} s; it was ended.")
        data = os.read(handle, 1 << 20)
        if not data:
            raise self._ended()
        self._buffer += data

    def _ended(self) -> EdgekitError:
        code = self._process.wait()
        self._errors.seek(0)
        return failure_of(code, self._errors.read().decode("utf-8", "replace"), self._source)

    def _broken(self, what: str) -> WorkerError:
        self._process.kill()
        return WorkerError(f"{self._source}: edgekit-runner was not understood: {what}. It was ended; load the model again.")


def _size(word: str) -> int:
    return int(word) if word.isascii() and word.isdigit() and len(word) < 15 else -1


def failure_of(code: int, text: str, source: str, *, is_run: bool = False) -> EdgekitError:
    """The program's exit code and last words as one of our errors.

    Args:
        code: Exit code; negative: the signal that ended it.
        text: Its error stream, or the message itself.
        source: The model's name.
        is_run: It happened in an inference, whose inputs are to blame for a usage error.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    own = [line.removeprefix(_PREFIX) for line in lines if line.startswith(_PREFIX)]
    message = own[-1] if own else " ".join(lines)[-500:]
    match code:
        case 2:
            return DataError(message) if is_run else UsageError(message)
        case 3:
            return UnsupportedOpError(message)
        case 5:
            return IntegrityError(message)
    how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
    return WorkerError(f"{source}: edgekit-runner {how}. Its last words: {message or 'none'}")
