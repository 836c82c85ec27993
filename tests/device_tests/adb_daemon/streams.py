"""One stream of a connection: after every ``WRTE`` its sender waits for the receiver's ``OKAY``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from .messages import Message

Send = Callable[[Message], Awaitable[None]]


class Stream:
    """The device's end of one stream.

    Args:
        own: The daemon's number for it.
        peer: The client's number for it.
        send: Sends a message on the connection.
        largest: Most bytes of one payload.
    """

    def __init__(self, own: int, peer: int, *, send: Send, largest: int) -> None:
        self.own = own
        self.peer = peer
        self.largest = largest
        self._send = send
        self._arrived: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._taken = asyncio.Event()
        self._taken.set()
        self._rest = b""
        self._ended = False
        self.is_closed = asyncio.Event()

    def acknowledged(self) -> None:
        """The client took the last ``WRTE``."""
        self._taken.set()

    def arrived(self, payload: bytes) -> None:
        """The client wrote."""
        self._arrived.put_nowait(payload)

    def closed(self) -> None:
        """The client closed the stream, or the connection is gone."""
        self.is_closed.set()
        self._taken.set()
        self._arrived.put_nowait(None)

    async def read(self) -> bytes:
        """What the client wrote next; empty at the end."""
        if self._ended:
            return b""
        payload = await self._arrived.get()
        if payload is None:
            self._ended = True
            return b""
        await self._send(Message(b"OKAY", self.own, self.peer))
        return payload

    async def read_exactly(self, count: int) -> bytes:
        """The next ``count`` bytes of what the client wrote.

        Raises:
            ConnectionError: The stream ended before.
        """
        while len(self._rest) < count:
            more = await self.read()
            if not more:
                raise ConnectionError("the stream ended in the middle of a request")
            self._rest += more
        wanted, self._rest = self._rest[:count], self._rest[count:]
        return wanted

    async def write(self, payload: bytes) -> None:
        """Write to the client, as much at a time as it takes.

        Raises:
            ConnectionError: The client closed the stream.
        """
        for start in range(0, len(payload), self.largest):
            await self._taken.wait()
            if self.is_closed.is_set():
                raise ConnectionError("the client closed the stream")
            self._taken.clear()
            await self._send(Message(b"WRTE", self.own, self.peer, payload[start : start + self.largest]))

    async def close(self) -> None:
        """End the stream once the client has taken everything."""
        await self._taken.wait()
        if not self.is_closed.is_set():
            await self._send(Message(b"CLSE", self.own, self.peer))
