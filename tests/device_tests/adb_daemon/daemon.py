"""Connections of the test daemon: introduction, authentication, streams, and faults at a chosen message."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from . import processes, sync
from .messages import (
    AUTH_PUBLIC_KEY,
    AUTH_SIGNATURE,
    AUTH_TOKEN,
    VERSION,
    VERSION_WITH_CHECKSUMS,
    Message,
    ProtocolError,
    read_message,
)
from .streams import Stream

_LARGEST_PAYLOAD = 256 * 1024
_LARGEST_PAYLOAD_OF_OLD = 4096
REBOOTS = 75
"""Exit status by which the daemon asks for a reboot."""


@dataclasses.dataclass
class Fault:
    """What goes wrong, and when.

    Args:
        kind: ``"cut"`` ends every connection, ``"tear"`` does so in the middle of a message that goes out, ``"stall"`` leaves
            them open and says no more on them, ``"reboot"`` kills everything and comes back, ``"die"`` kills everything for good.
        at: The message, counted from 1 over both directions; 0 for none.
        at_bytes: The message with this byte in it, counted over both directions; 0 for none.
        down_s: How long no connection is taken after a cut.
    """

    kind: str = ""
    at: int = 0
    at_bytes: int = 0
    down_s: float = 0.0


class Daemon:
    """The device's side.

    Args:
        port: Where to listen, on loopback.
        properties: What the daemon introduces itself with.
        is_old: Speak as phones before Android 7 do: no ``shell,v2:``, small payloads, checksums.
    """

    def __init__(self, port: int, *, properties: dict[str, str], is_old: bool) -> None:
        self.port = port
        self.properties = properties
        self.is_old = is_old
        self.authorises = True
        self.fault = Fault()
        self.later: list[Fault] = []
        self.messages = 0
        self.bytes = 0
        self.connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Listen, and obey the control channel until it ends."""
        await self._listen()
        control = asyncio.create_task(self._control())
        await self._ended.wait()
        control.cancel()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, limit=1 << 22)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self, reader, writer)
        self.connections.add(connection)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ProtocolError):
            await connection.serve()
        self.connections.discard(connection)
        connection.drop()

    async def count(self, connection: Connection, message: Message, packed: bytes = b"") -> None:
        """One more message, to be sent if it is packed; the fault happens at its number, or at one of its bytes."""
        before = self.bytes
        self.messages += 1
        self.bytes += len(message.payload)
        if self.fault.kind and (self.messages == self.fault.at or before < self.fault.at_bytes <= self.bytes):
            await self._fail(connection.writer, packed)
        if connection.is_stalled:
            await asyncio.Event().wait()

    async def _fail(self, writer: asyncio.StreamWriter, packed: bytes) -> None:
        fault, self.fault = self.fault, self.later.pop(0) if self.later else Fault()
        if fault.kind in {"reboot", "die"}:
            os._exit(REBOOTS if fault.kind == "reboot" else 1)
        if fault.kind == "stall":
            for connection in self.connections:
                connection.is_stalled = True
            return
        if fault.kind == "tear":
            writer.write(packed[: len(packed) // 2])
            with contextlib.suppress(ConnectionError):
                await writer.drain()
        for connection in list(self.connections):
            connection.drop()
        if fault.down_s and self._server:
            self._server.close()
            asyncio.get_running_loop().call_later(fault.down_s, lambda: asyncio.ensure_future(self._listen()))
        raise ConnectionAbortedError("cut, as told to")

    async def _control(self) -> None:
        """Commands as lines of JSON on standard input, an answer to each on standard output."""
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        _say({"ready": True})
        while line := await reader.readline():
            asked: dict[str, Any] = json.loads(line)
            if "faults" in asked:
                self.fault, *self.later = [Fault(**one) for one in asked["faults"]] or [Fault()]
                self.messages = self.bytes = 0
            if "authorises" in asked:
                self.authorises = asked["authorises"]
            if asked.get("drop_stalled"):
                for connection in [one for one in self.connections if one.is_stalled]:
                    connection.drop()
            _say({"messages": self.messages, "bytes": self.bytes, "processes": _processes()})
        self._ended.set()


class Connection:
    """One adb server that is connected."""

    def __init__(self, daemon: Daemon, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.daemon = daemon
        self.reader = reader
        self.writer = writer
        self.streams: dict[int, Stream] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.with_checksum = True
        self.largest = _LARGEST_PAYLOAD_OF_OLD if daemon.is_old else _LARGEST_PAYLOAD
        self._count = 0
        self.is_stalled = False
        self._is_known = False

    def drop(self) -> None:
        """End it without a word."""
        self.writer.transport.abort()
        for stream in self.streams.values():
            stream.closed()

    async def serve(self) -> None:
        """Answer messages until the connection ends."""
        answers: dict[bytes, Callable[[Message], Awaitable[None]]] = {
            b"CNXN": self._introduced, b"AUTH": self._authenticated, b"OPEN": self._opened,
        }  # fmt: skip
        while True:
            message = await read_message(self.reader, with_checksum=self.with_checksum)
            await self.daemon.count(self, message)
            if message.command in answers:
                await answers[message.command](message)
            elif stream := self.streams.get(message.second):
                self._passed_on(message, stream)

    async def send(self, message: Message) -> None:
        """Send a message."""
        packed = message.packed(with_checksum=self.with_checksum)
        await self.daemon.count(self, message, packed)
        self.writer.write(packed)
        await self.writer.drain()

    async def _introduced(self, message: Message) -> None:
        self.largest = min(self.largest, message.second)
        if self.daemon.authorises:
            await self._introduce()
        else:
            await self.send(Message(b"AUTH", AUTH_TOKEN, 0, os.urandom(20)))

    async def _introduce(self) -> None:
        features = "" if self.daemon.is_old else "features=shell_v2,stat_v2,fixed_push_mkdir"
        words = "".join(f"{name}={value};" for name, value in self.daemon.properties.items())
        version = VERSION_WITH_CHECKSUMS if self.daemon.is_old else VERSION
        await self.send(Message(b"CNXN", version, self.largest, f"device::{words}{features}".encode()))
        self.with_checksum = self.daemon.is_old
        self._is_known = True

    async def _authenticated(self, message: Message) -> None:
        """No key is known here: a signature gets another token, a public key waits for the owner's consent."""
        if message.first == AUTH_SIGNATURE:
            await self.send(Message(b"AUTH", AUTH_TOKEN, 0, os.urandom(20)))
        elif message.first == AUTH_PUBLIC_KEY:
            while not self.daemon.authorises:
                await asyncio.sleep(0.05)
            await self._introduce()

    async def _opened(self, message: Message) -> None:
        service = message.payload.rstrip(b"\0").decode()
        start = self._find(service)
        if start is None or not self._is_known:
            await self.send(Message(b"CLSE", 0, message.first))
            return
        self._count += 1
        stream = Stream(self._count, message.first, send=self.send, largest=self.largest)
        self.streams[self._count] = stream
        await self.send(Message(b"OKAY", stream.own, stream.peer))
        task = asyncio.create_task(self._carry_out(stream, start))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _find(self, service: str) -> Callable[[Stream], Awaitable[None]] | None:
        """What carries out a service; None for those this daemon does not have."""
        name, _, rest = service.partition(":")
        if name.startswith("shell,v2") and not self.daemon.is_old:
            return lambda stream: processes.run_shell_v2(stream, rest)
        if name in {"shell", "exec"}:
            return lambda stream: processes.run_plain(stream, rest)
        if name == "sync":
            return sync.serve
        if name == "reboot":
            return _reboot
        return None

    async def _carry_out(self, stream: Stream, service: Callable[[Stream], Awaitable[None]]) -> None:
        with contextlib.suppress(ConnectionError):
            try:
                await service(stream)
            finally:
                await stream.close()
        self.streams.pop(stream.own, None)

    def _passed_on(self, message: Message, stream: Stream) -> None:
        if message.command == b"OKAY":
            stream.acknowledged()
        elif message.command == b"WRTE":
            stream.arrived(message.payload)
        elif message.command == b"CLSE":
            stream.closed()


async def _reboot(_: Stream) -> None:
    os._exit(REBOOTS)


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _processes() -> list[str]:
    """Command lines of what runs in the sandbox besides the sandbox itself and the daemon."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            if int(folder.name) not in {1, os.getpid()} and state != "Z":
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip())
    return found
