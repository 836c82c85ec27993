"""Services that run commands: ``shell:``, ``shell,v2:`` (with exit codes) and ``exec:``.

As with a phone's daemon a command is not killed when its stream or the connection ends: it loses its input and output.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import subprocess

from .streams import Stream

_PIECE = 32 * 1024
_PACKET = struct.Struct("<BI")
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = 0, 1, 2, 3, 4
_SHELL = "/system/bin/sh"


async def run_plain(stream: Stream, command: str) -> None:
    """``shell:`` and ``exec:``: input and output go through as they are, errors with the output; the exit code is lost."""
    process, (given, output, _) = _start(command, with_errors=False)
    feeding = asyncio.create_task(_feed_plain(stream, given))
    await _pass_on(stream, output, packet=None)
    await _exit_code(process)
    feeding.cancel()


async def run_shell_v2(stream: Stream, command: str) -> None:
    """``shell,v2:``: packets of input, output and errors, and the exit code at the end (shell_protocol.h)."""
    process, (given, output, errors) = _start(command, with_errors=True)
    feeding = asyncio.create_task(_feed_packets(stream, given))
    await asyncio.gather(_pass_on(stream, output, packet=_STDOUT), _pass_on(stream, errors, packet=_STDERR))
    code = await _exit_code(process)
    feeding.cancel()
    with contextlib.suppress(ConnectionError):
        await stream.write(_PACKET.pack(_EXIT, 1) + bytes([code & 0xFF]))


def _start(command: str, *, with_errors: bool) -> tuple[subprocess.Popen[bytes], tuple[int, int, int]]:
    """Start a command in a session of its own; the daemon's ends of its input, output and errors."""
    given, output, errors = os.pipe(), os.pipe(), os.pipe()
    process = subprocess.Popen(
        [_SHELL, "-c", command] if command else [_SHELL, "-s"],
        stdin=given[0],
        stdout=output[1],
        stderr=errors[1] if with_errors else output[1],
        start_new_session=True,
    )
    for end in (given[0], output[1], errors[1]):
        os.close(end)
    os.set_blocking(given[1], False)
    return process, (given[1], output[0], errors[0])


async def _feed_plain(stream: Stream, given: int) -> None:
    try:
        while (payload := await stream.read()) and await _write(stream, given, payload):
            pass
    finally:
        os.close(given)


async def _feed_packets(stream: Stream, given: int) -> None:
    is_open = True
    try:
        while not stream.is_closed.is_set():
            kind, length = _PACKET.unpack(await stream.read_exactly(_PACKET.size))
            payload = await stream.read_exactly(length)
            if kind == _STDIN and is_open:
                is_open = await _write(stream, given, payload)
            elif kind == _CLOSE_STDIN and is_open:
                os.close(given)
                given, is_open = -1, False
    except ConnectionError:
        pass  # the client is gone: the command sees the end of its input
    finally:
        if given >= 0:
            os.close(given)


async def _write(stream: Stream, given: int, payload: bytes) -> bool:
    """Write to a command's input; False once it reads no more. What is not taken when the client goes is lost."""
    view = memoryview(payload)
    while view and not stream.is_closed.is_set():
        try:
            view = view[os.write(given, view) :]
        except BlockingIOError:
            await _until_writable(stream, given)
        except BrokenPipeError:
            return False
    return True


async def _until_writable(stream: Stream, given: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(given, ready.set)
    waits = [asyncio.create_task(ready.wait()), asyncio.create_task(stream.is_closed.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_writer(given)
        for wait in waits:
            wait.cancel()


async def _pass_on(stream: Stream, output: int, *, packet: int | None) -> None:
    """Send what a command writes until its output ends or nobody listens."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(output, "rb", 0))
    gone = asyncio.create_task(stream.is_closed.wait())
    try:
        while True:
            reading = asyncio.create_task(reader.read(_PIECE))
            await asyncio.wait({reading, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                reading.cancel()
                return
            piece = reading.result()
            if not piece:
                return
            await stream.write(piece if packet is None else _PACKET.pack(packet, len(piece)) + piece)
    except ConnectionError:
        return  # the command gets a broken pipe when it writes next
    finally:
        gone.cancel()
        transport.close()


async def _exit_code(process: subprocess.Popen[bytes]) -> int:
    """Wait for a command without holding a thread."""
    handle = os.pidfd_open(process.pid)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(handle, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)
    code = process.wait()
    return code if code >= 0 else 128 - code
