"""All rewrites, in the order in which they are carried out. A new one is a file beside this and a line here."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from edgekit.converters.rewrites.rewrite import Rewrite

__all__ = ["MODULES", "rewrites_of"]

MODULES: tuple[str, ...] = (
    "spectral",
    "branches",
    "masks",
    "pooling",
    "distances",
    "scans",
    "views",
    "embedding",
    "sorting",
    "scatter",
    "resize",
    "volumes",
    "ranks",
    "coreml_resize",
    "coreml_moves",
    "coreml_windows",
    "coreml_reductions",
    "coreml_arithmetic",
    "coreml_logic",
    "coreml_constants",
    "coreml_outputs",
)
"""Files beside this one; each has a tuple ``REWRITES``."""


def rewrites_of(target: str) -> Iterator[Rewrite]:
    """The rewrites a target needs."""
    for name in MODULES:
        for rewrite in importlib.import_module(f"edgekit.converters.rewrites.{name}").REWRITES:
            if target in rewrite.targets:
                yield rewrite
