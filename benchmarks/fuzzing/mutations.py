"""Damage done to bytes without knowing their format, and the choice among all kinds of damage."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["TRAVERSALS", "Draw", "corner", "damage"]

Draw = np.random.Generator

TRAVERSALS = (
    "../../canary/stolen", "../../../../../../tmp/edgekit-fuzz-stolen", "/etc/passwd", "/dev/zero", "/proc/self/mem", "..", "/",
    "a/../../canary/x", "\\..\\..\\x", "\0", "x" * 5000, "", "file:///etc/passwd", "~/x", "CON", "a\nb", "\x1b[2J", "％n%s%n",
)  # fmt: skip
"""Names that lead elsewhere, or nowhere."""

_CORNERS = (
    0, 1, -1, 2, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**24, 2**30, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
    2**48, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -2, -128, -(2**31), -(2**63),
)  # fmt: skip


def corner(draw: Draw, *, width: int = 8) -> int:
    """An integer at which arithmetic breaks, modulo ``2 ** (8 * width)``."""
    return int(_CORNERS[draw.integers(len(_CORNERS))]) % (1 << (8 * width))


def damage(data: bytes, draw: Draw, *, others: Sequence[bytes] = ()) -> bytes:
    """One to eight kinds of damage, few being likelier."""
    for _ in range(min(8, int(draw.geometric(0.5)))):
        kind = _KINDS[int(draw.integers(len(_KINDS)))]
        data = kind(data, draw, others) if data else bytes(draw.integers(0, 256, 16, np.uint8))
    return data


def _place(data: bytes, draw: Draw) -> int:
    """A position; half of the time near an end, where headers and directories lie."""
    if draw.random() < 0.5:
        return int(draw.integers(len(data)))
    near = int(draw.integers(min(len(data), 256)))
    return near if draw.random() < 0.6 else len(data) - 1 - near


def _length(data: bytes, draw: Draw) -> int:
    return int(min(len(data), max(1, draw.exponential(24))))


def _flip(data: bytes, draw: Draw, _: Sequence[bytes]) -> bytes:
    at = _place(data, draw)
    return data[:at] + bytes([data[at] ^ (1 << int(draw.integers(8)))]) + data[at + 1 :]


def _set(data: bytes, draw: Draw, _: Sequence[bytes]) -> bytes:
    at = _place(data, draw)
    return data[:at] + bytes([int(draw.integers(256))]) + data[at + 1 :]


def _integer(data: bytes, draw: Draw, _: Sequence[bytes]) -> bytes:
    width = int(draw.choice([1, 2, 4, 4, 8]))
    at = _place(data, draw)
    at -= at % width if draw.random() < 0.7 else 0
    return data[:at] + corner(draw, width=width).to_bytes(width, "little") + data[at + width :]


def _nudge(data: bytes, draw: Draw, _: Sequence[bytes]) -> bytes:
    width = int(draw.choice([1, 2, 4, 8]))
    at = _place(data, draw) // width * width
    value = int.from_bytes(data[at : at + width], "little") + int(draw.integers(-16, 17))
    return data[:at] + (value % (1 << (8 * width))).to_bytes(width, "little") + data[at + width :]


def _offset(data: bytes, draw: Draw, _: Sequence[bytes]) -> bytes:
    """Where four aligned bytes could be an offset into the file, as in a FlatBuffer, let them lead elsewhere."""
    words = np.frombuffer(data[: len(data) // 4 * 4], "<u4").astype(np.int64)
    room = len(data) - 4 * np.arange(len(words))
    places = np.flatnonzero((words >= 4) & (words < room))
    if not len(places):
        return data
    at = 4 * int(places[draw.integers(len(places))])
    value = int(draw.choice([0, 4, len(data) - at - 4, len(data) - at, int(draw.integers(len(data))), corner(draw, width=4)]))
    if draw.random() < 0.3:  # what it leads to: the length of a vector, or a table's own offset
        at, value = min(at + int(words[at // 4]), len(data) - 4), corner(draw, width=4)
    return data[:at] + (value % 2**32).to_bytes(4, "little") + data[at + 4 :]


def _delete(data: bytes, draw: Draw, _: Sequence[bytes]) -> bytes:
    at = _place(data, draw)
    return data[:at] + data[at + _length(data, draw) :]


def _repeat(data: bytes, draw: Draw, _: Sequence[bytes]) -> bytes:
    at, length = _place(data, draw), _length(data, draw)
    return data[:at] + data[at : at + length] * int(draw.integers(1, 20)) + data[at:]


def _copy(data: bytes, draw: Draw, _: Sequence[bytes]) -> bytes:
    source, target, length = int(draw.integers(len(data))), _place(data, draw), _length(data, draw)
    return data[:target] + data[source : source + length] + data[target + length :]


def _noise(data: bytes, draw: Draw, _: Sequence[bytes]) -> bytes:
    at, length = _place(data, draw), _length(data, draw)
    return data[:at] + draw.integers(0, 256, length, np.uint8).tobytes() + data[at + length :]


def _cut(data: bytes, draw: Draw, _: Sequence[bytes]) -> bytes:
    return data[: _place(data, draw)]


def _extend(data: bytes, draw: Draw, _: Sequence[bytes]) -> bytes:
    return data + (bytes(int(draw.integers(1, 4096))) if draw.random() < 0.5 else data[: int(draw.integers(len(data)))])


def _splice(data: bytes, draw: Draw, others: Sequence[bytes]) -> bytes:
    other = others[int(draw.integers(len(others)))] if others else data
    if not other:
        return data
    at, source, length = _place(data, draw), int(draw.integers(len(other))), int(draw.integers(1, len(other) + 1))
    return data[:at] + other[source : source + length] + data[at + (length if draw.random() < 0.5 else 0) :]


def _name(data: bytes, draw: Draw, _: Sequence[bytes]) -> bytes:
    name = TRAVERSALS[int(draw.integers(len(TRAVERSALS)))].encode()
    at = _place(data, draw)
    return data[:at] + name + data[at + len(name) :]


_KINDS: tuple[Callable[[bytes, Draw, Sequence[bytes]], bytes], ...] = (
    _flip, _flip, _set, _integer, _integer, _integer, _nudge, _offset, _offset, _delete, _repeat, _copy, _noise, _cut, _extend,
    _splice, _name,
)  # fmt: skip
