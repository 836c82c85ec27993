"""Device profiles: one TOML file a device; built-in ones by name, a user's own by path.

>>> load_profile("host").transport
'local'
"""

from __future__ import annotations

import importlib.resources
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pydantic

from edgekit import registry
from edgekit.core.errors import ProfileError, nearest
from edgekit.core.profile import DeviceProfile

__all__ = ["load_profile", "profile_names"]


def profile_names() -> tuple[str, ...]:
    """Names of the built-in profiles."""
    folder = importlib.resources.files(__name__)
    return tuple(sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")))


def load_profile(source: str | Path) -> DeviceProfile:
    """Read a profile.

    Args:
        source: Name of a built-in profile, or path of a ``.toml`` file.

    Raises:
        ProfileError: There is no such profile; or a field is unknown, impossible, or names a runtime or transport that
            is not installed. The message gives file and line.
    """
    text = str(source)
    if text.endswith(".toml") or "/" in text or isinstance(source, Path):
        return _read(Path(source))
    names = profile_names()
    if text not in names:
        raise ProfileError(
            f"Unknown device '{text}'; built-in profiles are {', '.join(names)}.{nearest(text, names)}"
            " For a profile of your own give the path of its .toml file."
        )
    with importlib.resources.as_file(importlib.resources.files(__name__) / f"{text}.toml") as path:
        return _read(path)


def _read(path: Path) -> DeviceProfile:
    try:
        profile = DeviceProfile.read_toml(path)
    except ProfileError as reason:
        cause = reason.__cause__
        if isinstance(cause, pydantic.ValidationError):
            raise ProfileError(_with_line(str(reason), path, cause.errors()[0]["loc"])) from cause
        if isinstance(cause, FileNotFoundError):
            raise ProfileError(f"{reason} Built-in profiles are {', '.join(profile_names())}.") from cause
        raise
    _check_parts(profile, path)
    return profile


def _check_parts(profile: DeviceProfile, path: Path) -> None:
    """Refuse a transport or runtime that nobody provides."""
    transports = registry.names("transports")
    if profile.transport not in transports:
        message = f"{path}: unknown transport '{profile.transport}'; known: {', '.join(transports)}."
        raise ProfileError(_with_line(message + nearest(profile.transport, transports), path, ("transport",)))
    runtimes = registry.names("runtimes")
    tables = [(("runtimes",), profile.runtimes), *((("systems", system), table) for system, table in profile.systems.items())]
    for place, table in tables:
        for target, choice in table.items():
            if ":" not in choice.runtime and choice.runtime not in runtimes:
                message = f"{path}: unknown runtime '{choice.runtime}' for target '{target}'; known: {', '.join(runtimes)}."
                message += nearest(choice.runtime, runtimes)
                raise ProfileError(_with_line(message, path, (*place, target, "runtime")))


def _with_line(message: str, path: Path, place: Sequence[str | int]) -> str:
    """``message`` with the line after the path, where the field can be found in the file."""
    line = _line_of(path.read_text(encoding="utf-8"), [str(part) for part in place])
    return message.replace(f"{path}:", f"{path}:{line}:", 1) if line else message


def _line_of(text: str, place: Sequence[str]) -> int | None:
    r"""1-based line that sets the field ``place``, or that opens its table; None where neither is written out.

    >>> _line_of('a = 1\n[t.u]\nb = 2', ["t", "u", "b"]), _line_of('[t]\nb.c = 2', ["t", "b", "c"]), _line_of("a = 1", ["z"])
    (3, 2, None)
    """
    lines = {found: number for number, found in reversed(list(_assignments(text)))}
    for length in range(len(place), 0, -1):
        if number := lines.get(tuple(place[:length])):
            return number
    return None


def _assignments(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(line number, dotted place) of every table header and key at the start of a line."""
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.split("#")[0].strip()
        if stripped.startswith("[") and stripped.endswith("]"):
            table = _dotted(stripped.strip("[]"))
            yield number, table
        elif "=" in stripped:
            yield number, (*table, *_dotted(stripped.split("=")[0]))


def _dotted(key: str) -> tuple[str, ...]:
    """Parts of a TOML key: ``runtimes."my target".runtime``."""
    try:
        found: object = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        return (key.strip(),)
    parts: list[str] = []
    while isinstance(found, dict):
        name, found = next(iter(found.items()))
        parts.append(name)
    return tuple(parts)
