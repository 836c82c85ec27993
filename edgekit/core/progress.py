"""How long work says how far it is."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "silent"]

Progress = Callable[[str, int, int | None], None]
"""``progress(what, done, total)``: called as long work advances; ``total`` is None where it is not known."""


def silent(what: str, done: int, total: int | None) -> None:
    """A :data:`Progress` that shows nothing."""
