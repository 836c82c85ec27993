"""The ``adb`` client as a child process: what it is given and says, and its end when it hangs."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from typing import IO

from edgekit.core.device_link import Finished
from edgekit.core.errors import DeviceError
from edgekit.core.supervision import plain

__all__ = ["INSTALL", "AdbClient"]

INSTALL = "install Debian's package 'adb' (or Android's platform tools) so that 'adb' is on the PATH"
_PIECE = 1 << 16
_START_S = 30.0
_END_S = 10.0
"""How long a client may take to end after it has closed its output."""


class AdbClient:
    """Calls the ``adb`` program; its server runs on in the background, as it does for everybody who uses it.

    Args:
        server_port: Port of the adb server on this machine's loopback; None: adb's own choice, 5037.
    """

    def __init__(self, *, server_port: int | None = None) -> None:
        self.server_port = server_port

    def start_server(self) -> None:
        """Start adb's server on this machine where none runs.

        Raises:
            DeviceError: There is no client, or its server does not start.
        """
        if not shutil.which("adb"):
            raise DeviceError(f"There is no adb client here: {INSTALL}.", is_final=True)
        done = self.ask("start-server", timeout_s=_START_S)
        if done.code:
            raise DeviceError(f"adb's server does not start here: {plain(done.errors.strip(), most=300)}", is_final=True)

    def ask(self, *words: str, timeout_s: float) -> Finished:
        """What the client answers to a request.

        Raises:
            DeviceError: It took longer.
        """
        parts: list[bytes] = []
        done = self.exchange(words, take=parts.append, timeout_s=timeout_s)
        return Finished(done.code, b"".join(parts).decode(errors="replace"), done.errors)

    def exchange(
        self,
        words: Iterable[str],
        *,
        take: Callable[[bytes], object],
        given: Iterable[bytes] = (),
        timeout_s: float | None = None,
        silence_s: float | None = None,
    ) -> Finished:
        """Call the client, feed it and take what it says; it is killed with all its children when it hangs.

        Args:
            words: Its arguments.
            take: Called with every piece of its standard output.
            given: Pieces of its standard input.
            timeout_s: Longest it may take.
            silence_s: Longest it may neither say nor take anything.

        Returns:
            Its exit status and standard error; ``output`` is empty.

        Raises:
            DeviceError: It took longer, or was silent for longer.
        """
        port = ["-P", str(self.server_port)] if self.server_port is not None else []
        process = subprocess.Popen(
            ["adb", *port, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            errors = _Exchange(process, iter(given), take=take, timeout_s=timeout_s, silence_s=silence_s).run()
            return Finished(process.wait(_END_S), "", errors.decode(errors="replace"))
        except subprocess.TimeoutExpired as reason:
            raise DeviceError("The adb client does not end.") from reason
        finally:
            _end(process)


class _Exchange:
    """The pipes of one call, until the client has closed its output."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        given: Iterator[bytes],
        *,
        take: Callable[[bytes], object],
        timeout_s: float | None,
        silence_s: float | None,
    ) -> None:
        self.process = process
        self.given = given
        self.take = take
        self.timeout_s = timeout_s
        self.silence_s = silence_s
        self.rest = memoryview(b"")
        self.errors: list[bytes] = []
        self.selector = selectors.DefaultSelector()

    def run(self) -> bytes:
        """Until both outputs are closed; what stood on standard error."""
        actions: list[tuple[IO[bytes] | None, int, Callable[[IO[bytes]], None]]] = [
            (self.process.stdin, selectors.EVENT_WRITE, self._feed),
            (self.process.stdout, selectors.EVENT_READ, self._read_output),
            (self.process.stderr, selectors.EVENT_READ, self._read_errors),
        ]
        for pipe, event, action in actions:
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
                self.selector.register(pipe, event, action)
        started = time.monotonic()
        with self.selector:
            while self.selector.get_map().keys() - {self._input()}:
                for key, _ in self._wait(started):
                    key.data(key.fileobj)
        return b"".join(self.errors)

    def _input(self) -> int:
        return self.process.stdin.fileno() if self.process.stdin and not self.process.stdin.closed else -1

    def _wait(self, started: float) -> list[tuple[selectors.SelectorKey, int]]:
        """The pipes that are ready; an error when none is for too long."""
        left_s = None if self.timeout_s is None else self.timeout_s - (time.monotonic() - started)
        limits = [limit for limit in (left_s, self.silence_s) if limit is not None]
        ready = self.selector.select(max(0.0, min(limits)) if limits else None)
        if ready and (left_s is None or left_s > 0):
            return ready
        if self.timeout_s is not None and time.monotonic() - started >= self.timeout_s:
            raise DeviceError(f"The adb client was not done after {self.timeout_s:g} s: the device hangs, or the link to it.")
        raise DeviceError(f"Nothing passed the adb client for {self.silence_s:g} s: the device hangs, or the link to it.")

    def _feed(self, pipe: IO[bytes]) -> None:
        """Write the next piece; close the pipe behind the last one, or when nobody reads it."""
        if not self.rest:
            self.rest = memoryview(next(self.given, b""))
        try:
            if self.rest:
                self.rest = self.rest[os.write(pipe.fileno(), self.rest[:_PIECE]) :]
                return
        except BlockingIOError:
            return
        except BrokenPipeError:
            pass
        self.selector.unregister(pipe)
        pipe.close()

    def _read_output(self, pipe: IO[bytes]) -> None:
        if piece := self._read(pipe):
            self.take(piece)

    def _read_errors(self, pipe: IO[bytes]) -> None:
        if piece := self._read(pipe):
            self.errors.append(piece)

    def _read(self, pipe: IO[bytes]) -> bytes:
        piece = os.read(pipe.fileno(), _PIECE)
        if not piece:
            self.selector.unregister(pipe)
            pipe.close()
        return piece


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing of a call: kill what still runs of it, close its pipes."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
