"""Parts by name, through entry points: nothing is imported before it is used.

Built-in parts are declared in edgekit's own ``pyproject.toml``; a plug-in declares the same groups in its own.
"""

from __future__ import annotations

import functools
import importlib.metadata
from typing import Any

from edgekit.core.errors import UsageError, nearest

__all__ = ["load", "names"]

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
    points = _group(group)
    if name not in points:
        what = _SINGULAR.get(group, group.removesuffix("s"))
        raise UsageError(f"Unknown {what} '{name}'; known: {', '.join(sorted(points))}.{nearest(name, points)}")
    return points[name].load()
