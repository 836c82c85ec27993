"""Where a field stands in a TOML text, for messages: the parser itself keeps no lines."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence

__all__ = ["line_of"]


def line_of(text: str, place: Sequence[str]) -> int | None:
    r"""1-based line that sets the field ``place``, or that opens its table; None where neither is written out.

    Elements of an array of tables count from ``"0"``.

    >>> line_of('a = 1\n[t.u]\nb = 2', ["t", "u", "b"]), line_of('[t]\nb.c = 2', ["t", "b", "c"]), line_of("a = 1", ["z"])
    (3, 2, None)
    >>> line_of('[[t]]\n[[t]]\na = 1\n[t.u]\nb = 2', ["t", "1", "u", "b"])
    5
    """
    lines = {found: number for number, found in reversed(list(_assignments(text)))}
    for length in range(len(place), 0, -1):
        if number := lines.get(tuple(place[:length])):
            return number
    return None


def _assignments(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(line number, dotted place) of every table header and key at the start of a line."""
    table: tuple[str, ...] = ()
    counts: dict[tuple[str, ...], int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.split("#")[0].strip()
        if stripped.startswith("[[") and stripped.endswith("]]"):
            array = _dotted(stripped[2:-2])
            counts[array] = counts.get(array, -1) + 1
            table = (*array, str(counts[array]))
            yield number, array
            yield number, table
        elif stripped.startswith("[") and stripped.endswith("]"):
            table = _in_last_element(_dotted(stripped[1:-1]), counts)
            yield number, table
        elif "=" in stripped:
            yield number, (*table, *_dotted(stripped.split("=")[0]))


def _in_last_element(table: tuple[str, ...], counts: dict[tuple[str, ...], int]) -> tuple[str, ...]:
    """The place of a table below an array of tables: it belongs to the element opened last."""
    for length in range(len(table), 0, -1):
        if table[:length] in counts:
            return (*table[:length], str(counts[table[:length]]), *table[length:])
    return table


def _dotted(key: str) -> tuple[str, ...]:
    """Parts of a TOML key: ``runtimes."my target".runtime``."""
    try:
        found: object = tomllib.loads(f"{key} = 0")
    except (tomllib.TOMLDecodeError, RecursionError):
        return (key.strip(),)
    parts: list[str] = []
    while isinstance(found, dict):
        name, found = next(iter(found.items()))
        parts.append(name)
    return tuple(parts)
