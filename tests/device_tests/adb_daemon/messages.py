"""Messages of the adb transport: 24 bytes of header, then a payload (protocol.txt)."""

from __future__ import annotations

import asyncio
import dataclasses
import struct

_HEADER = struct.Struct("<4sIIIII")
_MOST_PAYLOAD = 1 << 20

VERSION_WITH_CHECKSUMS = 0x01000000
VERSION = 0x01000001

AUTH_TOKEN, AUTH_SIGNATURE, AUTH_PUBLIC_KEY = 1, 2, 3


class ProtocolError(Exception):
    """The client sent what the protocol does not know."""


@dataclasses.dataclass(frozen=True)
class Message:
    """One message: ``CNXN``, ``AUTH``, ``OPEN``, ``OKAY``, ``WRTE`` or ``CLSE``."""

    command: bytes
    first: int
    second: int
    payload: bytes = b""

    def packed(self, *, with_checksum: bool) -> bytes:
        """Its bytes on the wire. The checksum is the sum of the payload's bytes; newer peers agree to leave it out."""
        magic = int.from_bytes(self.command, "little") ^ 0xFFFFFFFF
        check = sum(self.payload) & 0xFFFFFFFF if with_checksum else 0
        return _HEADER.pack(self.command, self.first, self.second, len(self.payload), check, magic) + self.payload


async def read_message(reader: asyncio.StreamReader, *, with_checksum: bool) -> Message:
    """The next message of a connection."""
    command, first, second, length, check, magic = _HEADER.unpack(await reader.readexactly(_HEADER.size))
    if magic != int.from_bytes(command, "little") ^ 0xFFFFFFFF or length > _MOST_PAYLOAD:
        raise ProtocolError(f"bad header of {command!r}")
    payload = await reader.readexactly(length)
    if with_checksum and check != sum(payload) & 0xFFFFFFFF:
        raise ProtocolError(f"bad checksum of {command!r}")
    return Message(command, first, second, payload)
