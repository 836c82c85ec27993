"""Where a setting comes from, weakest first.

1. the built-in default, or the recipe's own value;
2. the table ``[tool.edgekit.<command>]`` (or ``[tool.edgekit]`` for the shared options) of ``./pyproject.toml``;
3. an environment variable (``EDGEKIT_COMPRESS_RECIPE=int8``);
4. the command line; ``--set a.b=c`` reaches into the recipe.

click orders whole options this way by itself. ``--set`` is different: each layer may set other fields, so the layers
are laid over each other.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from edgekit.core.errors import UsageError, nearest

__all__ = ["Override", "lay_over", "overrides", "project_settings", "refuse_unknown_settings", "source_of"]

PROJECT_FILE = Path("pyproject.toml")
_CHANGES = "changes"
"""The parameter that ``--set`` fills."""
_SOURCES = {
    ParameterSource.COMMANDLINE: "command line",
    ParameterSource.ENVIRONMENT: "environment",
    ParameterSource.DEFAULT_MAP: "pyproject.toml",
}


@dataclasses.dataclass(frozen=True)
class Override:
    """One ``a.b=c``: a place in a table, the value to put there, and where that was asked for."""

    path: str
    value: Any
    source: str

    @classmethod
    def parse(cls, text: str, source: str) -> Override:
        """Read ``a.b=c``; the value is TOML, or else a string.

        >>> Override.parse("steps.0.sample_count=64", "command line").value
        64

        Raises:
            UsageError: There is no ``=``, or nothing before it.
        """
        path, equals, value = text.partition("=")
        if not equals or not path.strip():
            raise UsageError(f"--set {text}: expected a place and a value, such as steps.0.sample_count=64 (from the {source}).")
        return cls(path=path.strip(), value=_toml_value(value.strip()), source=source)


def project_settings(commands: Iterable[str]) -> dict[str, Any]:
    """The defaults ``./pyproject.toml`` gives, by command, as click's ``default_map``.

    Raises:
        UsageError: The file is not TOML, or ``[tool.edgekit]`` names a command that does not exist.
    """
    if not PROJECT_FILE.is_file():
        return {}
    text = PROJECT_FILE.read_text(encoding="utf-8", errors="replace")
    if not re.search(r"tool\s*\.\s*edgekit", text):  # most projects have no such table: spare them the TOML reader
        return {}
    table = _read_project_table(text)
    shared = {_identifier(name): value for name, value in table.items() if not isinstance(value, dict)}
    settings: dict[str, Any] = {name: dict(shared) for name in commands}
    for name, values in table.items():
        if not isinstance(values, dict):
            continue
        if name not in settings:
            raise UsageError(f"{PROJECT_FILE}: [tool.edgekit.{name}]: there is no command '{name}'.{nearest(name, settings)}")
        settings[name] |= {_identifier(key): _as_option(value) for key, value in values.items()}
    return settings


def refuse_unknown_settings(ctx: click.Context) -> None:
    """Refuse a setting in ``./pyproject.toml`` that the command does not have.

    Raises:
        UsageError: Names the setting and the nearest one there is.
    """
    known = {parameter.name or "" for parameter in ctx.command.params}
    for name in ctx.default_map or {}:
        if name not in known:
            raise UsageError(f"{PROJECT_FILE}: [tool.edgekit] has no setting '{name}' for {ctx.info_name}.{nearest(name, known)}")


def source_of(ctx: click.Context, name: str) -> str:
    """Where an option's value came from, in words."""
    source = ctx.get_parameter_source(name)
    return _SOURCES.get(source, "default") if source else "default"


def overrides(ctx: click.Context) -> list[Override]:
    """All ``a.b=c`` settings, weakest first: ``./pyproject.toml``, environment, command line."""
    parameter = next(parameter for parameter in ctx.command.params if parameter.name == _CHANGES)
    layers: list[tuple[str, Iterable[str]]] = [("pyproject.toml", (ctx.default_map or {}).get(_CHANGES, ()))]
    layers.append(("environment", parameter.value_from_envvar(ctx) or ()))
    if ctx.get_parameter_source(_CHANGES) == ParameterSource.COMMANDLINE:
        layers.append(("command line", ctx.params[_CHANGES]))
    return [Override.parse(text, source) for source, texts in layers for text in texts]


def lay_over(data: Any, override: Override) -> Any:
    """A copy of nested tables and arrays with one place changed.

    >>> lay_over({"steps": [{"sample_count": 512}]}, Override("steps.0.sample_count", 64, "command line"))
    {'steps': [{'sample_count': 64}]}

    Raises:
        UsageError: The place lies inside a value that holds nothing, or past the end of an array.
    """
    return _changed(data, override.path.split("."), override)


def _changed(data: Any, parts: list[str], override: Override) -> Any:
    if not parts:
        return override.value
    head, *rest = parts
    if isinstance(data, dict):
        if rest and head not in data:
            raise UsageError(f"--set {override.path}: there is no '{head}'; there are {', '.join(data)}.{nearest(head, data)}")
        return {**data, head: _changed(data.get(head), rest, override)}
    if isinstance(data, list):
        if not head.isdecimal() or int(head) >= len(data):
            raise UsageError(f"--set {override.path}: '{head}' is no place in an array of {len(data)}; places count from 0.")
        return [_changed(value, rest, override) if index == int(head) else value for index, value in enumerate(data)]
    raise UsageError(f"--set {override.path}: '{head}' lies inside {data!r}, which is a single value.")


def _read_project_table(text: str) -> dict[str, Any]:
    import tomllib

    try:
        table = tomllib.loads(text).get("tool", {}).get("edgekit", {})
    except tomllib.TOMLDecodeError as reason:
        raise UsageError(f"{PROJECT_FILE} is not TOML: {reason}.") from reason
    if not isinstance(table, dict):
        raise UsageError(f"{PROJECT_FILE}: [tool.edgekit] is a {type(table).__name__}; make it a table.")
    return table


def _identifier(name: str) -> str:
    identifier = name.replace("-", "_")
    return {"set": _CHANGES, "json": "as_json"}.get(identifier, identifier)


def _as_option(value: Any) -> Any:
    """``set`` may be written as a table; options take texts."""
    if isinstance(value, dict):
        return [f"{path}={json.dumps(inner)}" for path, inner in _flat(value)]
    return value


def _flat(table: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _toml_value(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
