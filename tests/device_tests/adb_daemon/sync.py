"""Service ``sync:``: files by STAT, LIST, SEND and RECV (SYNC.TXT, file_sync_protocol.h), and the second version of STAT."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

from .streams import Stream

_REQUEST = struct.Struct("<4sI")
_STAT_V1 = struct.Struct("<4sIII")
_STAT_V2 = struct.Struct("<4sIQQIIIIQqqq")
_ENTRY = struct.Struct("<4sIIII")
_PIECE = 64 * 1024


async def serve(stream: Stream) -> None:
    """Answer requests until the client quits."""
    while True:
        kind, length = _REQUEST.unpack(await stream.read_exactly(_REQUEST.size))
        path = (await stream.read_exactly(length)).decode()
        if kind == b"QUIT":
            return
        if kind == b"STAT":
            await stream.write(_stat(path))
        elif kind in {b"STA2", b"LST2"}:
            await stream.write(_stat_v2(kind, path))
        elif kind == b"LIST":
            await stream.write(_listing(path))
        elif kind == b"RECV":
            await _receive(stream, path)
        elif kind == b"SEND":
            await _send(stream, path)
        else:
            await stream.write(_failure(f"unknown request {kind!r}"))
            return


def _stat(path: str) -> bytes:
    try:
        found = os.lstat(path)
    except OSError:
        return _STAT_V1.pack(b"STAT", 0, 0, 0)
    return _STAT_V1.pack(b"STAT", found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime))


def _stat_v2(kind: bytes, path: str) -> bytes:
    try:
        found = os.lstat(path) if kind == b"LST2" else Path(path).stat()
    except OSError as reason:
        return _STAT_V2.pack(kind, reason.errno or 1, *[0] * 10)
    times = (int(found.st_atime), int(found.st_mtime), int(found.st_ctime))
    owner = (found.st_mode, found.st_nlink, found.st_uid, found.st_gid)
    return _STAT_V2.pack(kind, 0, found.st_dev & 0xFFFFFFFFFFFFFFFF, found.st_ino, *owner, found.st_size, *times)


def _listing(path: str) -> bytes:
    listing = b""
    for name in sorted(os.listdir(path)) if Path(path).is_dir() else []:  # noqa: PTH208
        found = (Path(path) / name).lstat()
        encoded = name.encode()
        listing += _ENTRY.pack(b"DENT", found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime), len(encoded)) + encoded
    return listing + _ENTRY.pack(b"DONE", 0, 0, 0, 0)


async def _receive(stream: Stream, path: str) -> None:
    """RECV: a file goes to the client."""
    try:
        with Path(path).open("rb") as source:
            while piece := source.read(_PIECE):
                await stream.write(_REQUEST.pack(b"DATA", len(piece)) + piece)
    except OSError as reason:
        if isinstance(reason, ConnectionError):
            raise
        await stream.write(_failure(f"open failed: {reason.strerror}"))
        return
    await stream.write(_REQUEST.pack(b"DONE", 0))


async def _send(stream: Stream, spec: str) -> None:
    """SEND: a file comes from the client; one that does not arrive whole is removed, as a phone does."""
    path, _, mode = spec.rpartition(",")
    target, failure, is_whole = Path(path), "", False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        file = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, stat.S_IMODE(int(mode)))
    except OSError as reason:
        file, failure = -1, f"couldn't create file: {reason.strerror}"
    try:
        while True:
            kind, length = _REQUEST.unpack(await stream.read_exactly(_REQUEST.size))
            if kind == b"DONE":
                break
            failure = failure or _append(file, await stream.read_exactly(length))
        is_whole = not failure
    finally:
        if file >= 0:
            os.close(file)
            if not is_whole:
                target.unlink(missing_ok=True)
    if is_whole:
        os.utime(target, (length, length))
    await stream.write(_REQUEST.pack(b"OKAY", 0) if is_whole else _failure(failure))


def _append(file: int, piece: bytes) -> str:
    """Write one piece; why it could not be, in words."""
    view = memoryview(piece)
    try:
        while view:
            view = view[os.write(file, view) :]
    except OSError as reason:
        return f"write failed: {reason.strerror}"
    return ""


def _failure(words: str) -> bytes:
    encoded = words.encode()
    return _REQUEST.pack(b"FAIL", len(encoded)) + encoded
