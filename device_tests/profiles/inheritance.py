"""``extends``: a profile says only what tells it from another.

=========================== ====================================================================
what the file sets          what becomes of it
=========================== ====================================================================
a value, an array           replaces the base's
a table                     is merged with the base's key by key
``runtimes.TARGET``         replaces the base's whole entry, options too; so does an entry of ``systems``
``false``                   takes the base's key away (not in ``connection``, where it is a value)
``name``, ``extends``       are never inherited
``title``                   is inherited with the name in brackets behind it
=========================== ====================================================================
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.core.errors import ProfileError
from edgekit.device_tests.profiles.folders import nearest_names, path_of_name
from edgekit.device_tests.profiles.places import line_of

__all__ = ["Layer", "chain", "merged", "parse_layers", "problem", "read_layers"]

_LARGEST_BYTES = 2**20
"""No profile written by hand comes near."""
_DEEPEST = 16
_WHOLE = {"runtimes": 2, "systems": 3}
"""Table -> depth at which its entries are replaced as a whole."""
_VALUES = "connection"
"""The table in which ``false`` is a value."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """What one file says of one device.

    Args:
        path: The file.
        text: Its text.
        table: The device's table.
        prefix: Where that table lies in the file: empty, or ``("devices", "0")``.
    """

    path: Path
    text: str
    table: Mapping[str, Any]
    prefix: tuple[str, ...] = ()

    @property
    def extends(self) -> Any:
        """The base it names, if any."""
        return self.table.get("extends")

    def where(self, place: Sequence[str]) -> str:
        """``path:line`` of a field, or the path alone where the file does not write the field out."""
        line = line_of(self.text, [*self.prefix, *place])
        return f"{self.path}:{line}" if line else str(self.path)


def read_layers(path: Path) -> tuple[Layer, ...]:
    """The devices of one file: those of its ``[[devices]]`` tables, or the file itself.

    Raises:
        ProfileError: It cannot be read, is not TOML, or mixes devices with other fields.
    """
    return parse_layers(_text(path), path)


def parse_layers(text: str, path: Path) -> tuple[Layer, ...]:
    """The devices in the text of a file; see :func:`read_layers`."""
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as reason:
        raise ProfileError(f"{path} is not TOML: {reason}.") from reason
    if not _is_shallow(table):
        raise ProfileError(f"{path} nests tables more than {_DEEPEST} deep: it is no device profile.")
    if "devices" not in table:
        return (Layer(path, text, table),)
    whole = Layer(path, text, table)
    if others := [key for key in table if key not in {"devices", "schema_version"}]:
        raise ProfileError(
            f"{whole.where(others[:1])}: unknown field '{others[0]}' beside [[devices]]: a file of several devices holds nothing"
            " else; put the field into each of them, or into a file they extend."
        )
    devices = table["devices"]
    if not isinstance(devices, list) or not devices or not all(isinstance(device, dict) for device in devices):
        raise ProfileError(f"{whole.where(['devices'])}: field 'devices' must be one or more [[devices]] tables.")
    return tuple(Layer(path, text, device, ("devices", str(index))) for index, device in enumerate(devices))


def chain(layer: Layer) -> tuple[Layer, ...]:
    """The layer, its base, the base's base … nearest first.

    Raises:
        ProfileError: A base does not exist, holds several devices, or extends what extends it.
    """
    layers, seen = [layer], [(layer.path.resolve(), layer.prefix)]
    while layers[-1].extends is not None:
        last = layers[-1]
        base, *_ = read_layers(_base_path(last))
        if base.prefix:
            raise ProfileError(
                f"{last.where(['extends'])}: 'extends' names {base.path}, which holds [[devices]]; only a file of one device"
                " can be extended."
            )
        layers.append(base)
        if (base.path.resolve(), ()) in seen:
            names = " -> ".join(step.path.stem for step in layers)
            raise ProfileError(f"{last.where(['extends'])}: 'extends' goes round in a circle: {names}.")
        seen.append((base.path.resolve(), ()))
    return tuple(layers)


def merged(layers: Sequence[Layer]) -> dict[str, Any]:
    """The device's table with all that its bases say, as the table above has it."""
    result: dict[str, Any] = {}
    for layer in reversed(layers):
        result.pop("name", None)
        result = _laid_over(result, layer.table, ()) if layer is not layers[-1] else dict(layer.table)
    result.pop("extends", None)
    return result | _own_title(layers, result)


def _own_title(layers: Sequence[Layer], table: Mapping[str, Any]) -> dict[str, str]:
    """An inherited title with the device's name, so that two devices of one model are told apart."""
    name, title = table.get("name"), table.get("title")
    is_inherited = "title" not in layers[0].table and all(layer.table.get("name") != name for layer in layers[1:])
    return {"title": f"{title} ({name})"} if is_inherited and isinstance(name, str) and isinstance(title, str) else {}


def problem(layers: Sequence[Layer], place: Sequence[str], message: str, *, is_missing: bool = False) -> ProfileError:
    """An error that names file and line of the layer that sets the field.

    Args:
        layers: As :func:`chain` gives them.
        place: The field.
        message: What is wrong with it.
        is_missing: Nobody sets the field: the table it belongs into is shown.
    """
    shown = list(place[:-1] if is_missing else place)
    setter = next((layer for layer in layers if shown and _holds(layer.table, shown)), layers[0])
    by = "" if setter is layers[0] else f" ('{layers[0].table.get('name', layers[0].path.stem)}' extends it.)"
    error = ProfileError(f"{setter.where(shown)}: {message}{by}")
    error.field = ".".join(place)
    return error


def _base_path(layer: Layer) -> Path:
    base, where = layer.extends, layer.where(["extends"])
    if not isinstance(base, str) or not base:
        raise ProfileError(f"{where}: field 'extends' must be the name or the path of a profile (found {base!r}).")
    if base.endswith(".toml") or "/" in base:
        path = layer.path.parent / base
        try:
            is_there = path.is_file()
        except ValueError:  # a null character
            is_there = False
        if not is_there:
            raise ProfileError(f"{where}: 'extends' names {path}, which is no file; paths are relative to the profile's folder.")
        return path
    # A lab's devices may extend a profile of the same name; so may a user's own file that hides a shipped one.
    named = path_of_name(base, besides=layer.path)
    if named is None and path_of_name(base) is not None:
        raise ProfileError(f"{where}: 'extends' goes round in a circle: '{base}' names the file itself.")
    if named is None:
        close = nearest_names(base)
        guess = f" Did you mean {' or '.join(repr(name) for name in close)}?" if close else ""
        raise ProfileError(f"{where}: 'extends' names the unknown profile '{base}'.{guess}")
    return named


def _laid_over(base: Mapping[str, Any], over: Mapping[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        inner = (*place, key)
        if value is False and place[:1] != (_VALUES,):
            result.pop(key, None)
        elif isinstance(value, dict) and len(inner) != _WHOLE.get(inner[0]):
            old = result.get(key)
            result[key] = _laid_over(old if isinstance(old, dict) else {}, value, inner)
        else:
            result[key] = value
    return result


def _holds(table: Any, place: Sequence[str]) -> bool:
    for part in place:
        if isinstance(table, list) and part.isdecimal() and int(part) < len(table):
            table = table[int(part)]
        elif isinstance(table, dict) and part in table:
            table = table[part]
        else:
            return False
    return True


def _is_shallow(table: Any) -> bool:
    """Whether tables and arrays nest no deeper than a profile's do; found without recursion, whose limit is the question."""
    level = [table]
    for _ in range(_DEEPEST):
        level = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return True
    return False


def _text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise ProfileError(f"{path} is no plain file; a device profile is a .toml file.")
        if path.stat().st_size > _LARGEST_BYTES:
            raise ProfileError(f"{path} is larger than {_LARGEST_BYTES >> 20} MiB: it is no device profile.")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as reason:
        raise ProfileError(f"{path} does not exist.") from reason
    except (OSError, ValueError) as reason:
        raise ProfileError(f"{path} cannot be read as text: {reason}.") from reason
