"""A process that imported a runtime once and forks a child for each model file: AFL's fork server, for callers that open many.

A new Python that imports torch takes seconds, a fork of one that has a few milliseconds. The server imports, and does nothing
else: no session is made in it and no file is read, so that it has no threads that a fork would leave behind half-way. Each
child leads a process group of its own, gives up its rights before it sees the file (:mod:`edgekit.core.model_server`), and
serves one :class:`~edgekit.core.served_model.ServedModel`.

See M. Zalewski, "Fuzzing random programs without execve()", 2014, https://lcamtuf.blogspot.com/2014/10/fuzzing-binaries-without-execve.html.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from edgekit.core.confinement import prepare
from edgekit.core.errors import WorkerError
from edgekit.core.frames import Channel
from edgekit.core.model_server import Order, serve
from edgekit.core.supervision import last_words

__all__ = ["ForkServer", "ForkedChild"]

_PID = struct.Struct("<i")
_STATUS = struct.Struct("<?iq")
_FORK, _WAIT = b"F", b"W"
_START_S = 120.0
_LOOK_S = 0.002


class ForkServer:
    """The caller's side; a context manager.

    Args:
        imports: Modules the server imports, and each child has from the start.
        hides: Modules that must not be importable.
        environment: Its whole environment, and its children's.
        log: What the server itself writes goes here.

    Raises:
        WorkerError: It could not be started.
    """

    def __init__(self, imports: Sequence[str], *, hides: Sequence[str] = (), environment: Mapping[str, str], log: Path) -> None:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        plan = json.dumps({"imports": list(imports), "hides": list(hides)})
        with there, log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "edgekit.core.fork_server", str(there.fileno()), plan],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(environment),
                pass_fds=(there.fileno(),),
                start_new_session=True,
            )
        self._socket, self._lock = here, threading.Lock()
        self._socket.settimeout(_START_S)
        try:
            ready = self._socket.recv(1)
        except TimeoutError:
            ready = b""
        if ready != _FORK:
            self.close()
            raise WorkerError(f"The fork server did not start. Last words: {last_words(log)}")

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    def fork(self, log: IO[bytes]) -> ForkedChild:
        """A child that waits for its order.

        Args:
            log: What it writes to its standard output and error goes here.

        Raises:
            WorkerError: The server is gone.
        """
        child_reads, writes = os.pipe()
        reads, child_writes = os.pipe()
        try:
            with self._lock:
                socket.send_fds(self._socket, [_FORK], [child_reads, child_writes, log.fileno()])
                (pid,) = _PID.unpack(_receive(self._socket, _PID.size))
        except OSError as reason:
            os.close(reads)
            os.close(writes)
            raise WorkerError(f"The fork server is gone: {reason}. Start another.") from reason
        finally:
            os.close(child_reads)
            os.close(child_writes)
        return ForkedChild(self, pid, reads=reads, writes=writes)

    def status(self, pid: int) -> tuple[int, int] | None:
        """Exit code of a child as ``subprocess`` gives it and its peak memory in bytes; None while it runs.

        A child whose status was told is forgotten.

        Raises:
            OSError: The server is gone.
        """
        with self._lock:
            self._socket.sendall(_WAIT + _PID.pack(pid))
            has_ended, code, peak_bytes = _STATUS.unpack(_receive(self._socket, _STATUS.size))
        return (code, peak_bytes) if has_ended else None

    def close(self) -> None:
        """End the server; its children end with it."""
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()


class ForkedChild:
    """A :class:`~edgekit.core.served_model.Child` that a server forked.

    Args:
        server: Which one.
        pid: The child; it stays a zombie until the server was asked for its status, so that no other gets its number.
        reads: Descriptor its answers come from.
        writes: Descriptor it is asked through.
    """

    def __init__(self, server: ForkServer, pid: int, *, reads: int, writes: int) -> None:
        self._server, self.pid, self.reads, self.writes = server, pid, reads, writes
        self.peak_bytes = 0
        """Most resident memory it had; known once it has ended."""
        self._code: int | None = None
        self._is_open = True

    def wait(self, timeout_s: float) -> int | None:
        """See :class:`~edgekit.core.served_model.Child`."""
        deadline = time.monotonic() + timeout_s
        while self._code is None:
            try:
                status = self._server.status(self.pid)
            except OSError:
                status = (-signal.SIGKILL, 0)  # the server is gone, and its children go with it
            if status is not None:
                self._code, self.peak_bytes = status
            if self._code is None:
                if time.monotonic() >= deadline:
                    return None
                time.sleep(_LOOK_S)
        return self._code

    def end(self) -> None:
        """See :class:`~edgekit.core.served_model.Child`."""
        if not self._is_open:
            return
        self._is_open = False
        os.close(self.writes)
        os.close(self.reads)
        if self._code is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self.wait(60.0)


def _receive(stream: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = stream.recv(count - len(data))
        if not part:
            raise ConnectionError("it closed its socket")
        data += part
    return data


def _main(descriptor: int, plan: Mapping[str, Sequence[str]]) -> None:
    """The server: import, then fork as asked until the caller hangs up."""
    for name in plan["hides"]:
        sys.modules[name] = None  # type: ignore[assignment]  # the documented way to make an import fail
    for name in plan["imports"]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    prepare()
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page that it touches
    with socket.socket(fileno=descriptor) as stream:
        stream.sendall(_FORK)
        while True:
            word, descriptors, _, _ = socket.recv_fds(stream, 1, 3)
            if word == _FORK:
                pid = _fork(stream, descriptors)
                stream.sendall(_PID.pack(pid))
            elif word == _WAIT:
                stream.sendall(_STATUS.pack(*_reap(_PID.unpack(_receive(stream, _PID.size))[0])))
            else:
                return


def _fork(stream: socket.socket, descriptors: list[int]) -> int:
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            os.close(told)  # the server goes on once the child can be ended by its group
            os.close(ready)
            stream.close()
            _serve(*descriptors)
        finally:
            os._exit(1)
    os.close(told)
    select.select([ready], [], [])
    os.close(ready)
    for descriptor in descriptors:
        os.close(descriptor)
    return pid


def _serve(reads: int, writes: int, log: int) -> None:
    code = 1
    try:
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        channel = Channel(reads=reads, writes=writes)
        order, _ = channel.receive(limit_bytes=0)
        if order.get("scratch"):
            os.environ.update(dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME", "KERAS_HOME"), str(order["scratch"])))
        serve(channel, Order(**order))
        code = 0
    except (BrokenPipeError, EOFError):
        code = 0  # nobody wants the answer any more
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # frameworks' exit handlers can hang or crash after the work is done


def _reap(pid: int) -> tuple[bool, int, int]:
    try:
        done, status, usage = os.wait4(pid, os.WNOHANG)
    except ChildProcessError:
        return True, -signal.SIGKILL, 0
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return (True, os.waitstatus_to_exitcode(status), usage.ru_maxrss * unit) if done == pid else (False, 0, 0)


if __name__ == "__main__":
    _main(int(sys.argv[1]), json.loads(sys.argv[2]))
