"""Parts by name, through entry points: nothing is imported before it is used.

Built-in parts are declared in edgekit's own ``pyproject.toml``; a plug-in declares the same groups in its own.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
from typing import TYPE_CHECKING, Any

from edgekit.core.errors import MissingExtraError, UsageError, nearest

if TYPE_CHECKING:
    from edgekit.core.plugins import Framework

__all__ = ["load", "missing_module", "names", "place", "require"]

_SINGULAR = {"criteria": "pruning criterion", "losses": "distillation loss"}


@functools.cache
def _group(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=f"edgekit.{group}")}


def names(group: str) -> tuple[str, ...]:
    """Names in a group (``converters``, ``runtimes``, ``criteria`` ...), without importing any."""
    return tuple(sorted(_group(group)))


def load(group: str, name: str) -> Any:
    """The object a group knows by this name.

    Raises:
        UsageError: There is none; the nearest name is given.
    """
    return _point(group, name).load()


def place(group: str, name: str) -> str:
    """Where the object a group knows by this name is, ``"package.module:NAME"``.

    Raises:
        UsageError: There is none; the nearest name is given.
    """
    return _point(group, name).value


def missing_module(part: Framework) -> str:
    """The first module the part needs that is not installed; empty if none is missing."""
    for module in part.modules:
        try:
            found = importlib.util.find_spec(module) is not None
        except (ImportError, ValueError):
            found = False
        if not found:
            return module
    return ""


def require(part: Framework) -> None:
    """Raise :class:`MissingExtraError` with the pip command if the part's modules are not installed."""
    module = missing_module(part)
    if module:
        raise MissingExtraError(part.extra, module=module)


def _point(group: str, name: str) -> importlib.metadata.EntryPoint:
    points = _group(group)
    if name not in points:
        what = _SINGULAR.get(group, group.removesuffix("s"))
        raise UsageError(f"Unknown {what} '{name}'; known: {', '.join(sorted(points))}.{nearest(name, points)}")
    return points[name]
