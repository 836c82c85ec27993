"""Damage done to what a format is made of: protobuf fields, JSON values, members of a zip archive, files of a folder.

What is around the damage stays whole (lengths, checksums, directories), so that it gets past the outermost checks.
"""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

from fuzzing.mutations import TRAVERSALS, Draw, corner, damage

__all__ = ["damage_json", "damage_protobuf", "damage_text", "damage_zip"]

_MOST_DEPTH = 12
_NEST = 3000
"""Levels of JSON arrays that overflow Python's stack, were it recursive without a limit."""
_ROOM_BYTES = 64 * 2**20
"""Size of what a zip bomb's member says it unpacks to."""

Field = tuple[int, int, Any]
"""Number, wire type, value: an integer, bytes, or a list of fields."""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if not byte & 128:
            return value, at
        if shift > 63:
            raise ValueError("a varint of more than ten bytes")


def _to_varint(value: int) -> bytes:
    found = bytearray()
    value %= 2**64
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def parse_protobuf(data: bytes, depth: int = 0) -> list[Field]:
    """Fields of a message, by its wire format alone; nested where the bytes could be a message.

    Raises:
        ValueError: They could not be one.
    """
    at, fields = 0, []
    try:
        while at < len(data):
            key, at = _varint(data, at)
            number, wire = key >> 3, key & 7
            if not number or wire not in {0, 1, 2, 5}:
                raise ValueError("no field")
            value: Any
            if wire == 0:
                value, at = _varint(data, at)
            else:
                length, at = _varint(data, at) if wire == 2 else (8 if wire == 1 else 4, at)
                value, at = data[at : at + length], at + length
                if at > len(data):
                    raise ValueError("longer than what holds it")
                is_name = wire == 2 and value.isascii() and re.fullmatch(rb"[\w./:\- ]+", value) is not None
                if wire == 2 and 1 < length < 65536 and depth < _MOST_DEPTH and not is_name:
                    value = _nested(value, depth)
            fields.append((number, wire, value))
    except IndexError as reason:
        raise ValueError("cut off") from reason
    return fields


def _nested(value: bytes, depth: int) -> Any:
    try:
        return parse_protobuf(value, depth + 1)
    except ValueError:
        return value


def write_protobuf(fields: Sequence[Field]) -> bytes:
    """The message, with the lengths its fields have."""
    found = bytearray()
    for number, wire, value in fields:
        found += _to_varint(number << 3 | wire)
        if wire == 0:
            found += _to_varint(value)
        else:
            whole = write_protobuf(value) if isinstance(value, list) else value
            found += (_to_varint(len(whole)) if wire == 2 else b"") + whole
    return bytes(found)


def _messages(fields: list[Field]) -> list[list[Field]]:
    """Every message in a message, itself first."""
    return [fields] + [inner for _, _, value in fields if isinstance(value, list) for inner in _messages(value)]


def damage_protobuf(data: bytes, draw: Draw, *, others: Sequence[bytes] = ()) -> bytes:
    """Fields deleted, repeated, exchanged, filled with corners or with another file's, in a message that stays well-formed."""
    try:
        fields = parse_protobuf(data)
        donors = _messages(parse_protobuf(others[int(draw.integers(len(others)))])) if others else _messages(fields)
    except ValueError:
        return damage(data, draw, others=others)
    for _ in range(min(6, int(draw.geometric(0.5)))):
        messages = [message for message in _messages(fields) if message]
        if messages:
            _damage_message(messages[int(draw.integers(len(messages)))], draw, [donor for donor in donors if donor] or messages)
    return write_protobuf(fields)


def _damage_message(message: list[Field], draw: Draw, donors: Sequence[list[Field]]) -> None:
    at = int(draw.integers(len(message)))
    number, wire, value = message[at]
    donor = donors[int(draw.integers(len(donors)))]
    match int(draw.integers(9)):
        case 0:
            del message[at]
        case 1:
            message[at:at] = [message[at]] * int(draw.integers(1, 60))
        case 2:
            other = int(draw.integers(len(message)))
            message[at], message[other] = message[other], message[at]
        case 3:
            message.insert(at, donor[int(draw.integers(len(donor)))])
        case 4:
            message[at] = (int(draw.integers(1, 30)), wire, value)
        case _:
            message[at] = (number, *_other_value(wire, value, draw))


def _other_value(wire: int, value: Any, draw: Draw) -> tuple[int, Any]:
    if wire == 0:
        return 0, corner(draw) if draw.random() < 0.6 else int(value) + int(draw.integers(-3, 4))
    if wire in {1, 5}:
        return wire, damage(value, draw)[: len(value)].ljust(len(value), b"\0")
    if isinstance(value, list):
        return 2, b"" if draw.random() < 0.3 else damage(write_protobuf(value), draw)
    if draw.random() < 0.3:
        return 2, TRAVERSALS[int(draw.integers(len(TRAVERSALS)))].encode()
    return 2, damage(value, draw) if value else b"x"


def damage_json(data: bytes, draw: Draw) -> bytes:
    """Keys renamed or removed, values of another type or size, in a document that stays JSON most of the time."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):  # nested too deep by an earlier damage
        return damage_text(data, draw)
    for _ in range(min(6, int(draw.geometric(0.5)))):
        places = list(_places(document))
        if not places:
            return damage_text(data, draw)
        holder, key = places[int(draw.integers(len(places)))]
        _damage_place(holder, key, draw)
    text = json.dumps(document)
    if draw.random() < 0.02:
        text = text[:-1] + ', "deep": ' + "[" * _NEST + "]" * _NEST + text[-1:]
    return text.encode("utf-8", "surrogatepass")


def _places(value: Any) -> list[tuple[Any, Any]]:
    rows = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    return [(value, key) for key, _ in rows] + [place for _, inner in rows for place in _places(inner)]


def _damage_place(holder: Any, key: Any, draw: Draw) -> None:
    if draw.random() < 0.2:
        del holder[key]
    elif isinstance(holder, dict) and draw.random() < 0.15:
        holder[f"{key}x" if draw.random() < 0.5 else TRAVERSALS[int(draw.integers(len(TRAVERSALS)))]] = holder.pop(key)
    elif isinstance(holder, list) and draw.random() < 0.2:
        holder[key:key] = [holder[key]] * int(draw.integers(1, 200))
    else:
        holder[key] = _other_json(holder[key], draw)


def _other_json(value: Any, draw: Draw) -> Any:
    number = corner(draw)
    choices: list[Callable[[], Any]] = [
        lambda: None, list, dict, lambda: "", lambda: number, lambda: -number, lambda: [value], lambda: {"x": value},
        lambda: float("nan"), lambda: float("-inf"), lambda: 1e308, lambda: 10**400, lambda: True, lambda: str(value),
        lambda: "x" * 20_000,
        lambda: TRAVERSALS[int(draw.integers(len(TRAVERSALS)))], lambda: [0] * 10_000, lambda: "\ud800",
    ]  # fmt: skip
    if isinstance(value, int) and not isinstance(value, bool):
        choices += [lambda: number, lambda: -number, lambda: value + 1, lambda: value - 1] * 2
    if isinstance(value, str):
        choices += [lambda: TRAVERSALS[int(draw.integers(len(TRAVERSALS)))], lambda: value[:-1], lambda: value + "/.."] * 3
    return choices[int(draw.integers(len(choices)))]()


def damage_text(data: bytes, draw: Draw) -> bytes:
    """Lines and numbers of a text exchanged; else its bytes."""
    lines = data.split(b"\n")
    at, other = (int(draw.integers(len(lines))) for _ in range(2))
    match int(draw.integers(5)):
        case 0:
            lines[at], lines[other] = lines[other], lines[at]
        case 1:
            lines[at:at] = [lines[other]] * int(draw.integers(1, 30))
        case 2:
            lines[at] = re.sub(rb"-?\d+", lambda _: str(corner(draw)).encode(), lines[at])
        case 3:
            name = TRAVERSALS[int(draw.integers(len(TRAVERSALS)))]
            lines[at] = re.sub(rb'"[^"]*"', lambda _: json.dumps(name).encode(), lines[at])
        case _:
            return damage(data, draw)
    return b"\n".join(lines)


def damage_zip(data: bytes, draw: Draw, *, inner: Callable[[str, bytes, Draw], bytes]) -> bytes:
    """A member damaged by ``inner`` and stored with its right checksum; names that lead elsewhere, links, bombs."""
    if draw.random() < 0.2:
        return damage(data, draw)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OSError, KeyError, RuntimeError):
        return damage(data, draw)
    if not members:
        return damage(data, draw)
    at = int(draw.integers(len(members)))
    name, content = members[at]
    extra = 0
    match int(draw.integers(10)):
        case 0:
            del members[at]
        case 1:
            members[at] = (TRAVERSALS[int(draw.integers(len(TRAVERSALS)))].replace("\0", "nul") or "empty", content)
        case 2:
            members.append((name, inner(name, content, draw)))
        case 3:
            members[at], extra = (name, b"/etc/passwd"), 0o120777 << 16
        case 4:
            members[at] = (name, bytes(_ROOM_BYTES) if draw.random() < 0.2 else content + bytes(2**16))
        case _:
            members[at] = (name, inner(name, content, draw))
    packed = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        warnings.simplefilter("ignore")  # two members of one name are meant
        for place, (member, text) in enumerate(members):
            info = zipfile.ZipInfo(member)
            info.external_attr = extra if place == at else 0
            info.compress_type = zipfile.ZIP_DEFLATED if len(text) > 2**20 else zipfile.ZIP_STORED
            archive.writestr(info, text)
    return packed.getvalue()
