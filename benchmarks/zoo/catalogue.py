"""All architectures of the zoo, by name."""

from __future__ import annotations

import importlib

from zoo.architecture import Architecture

__all__ = ["FAMILIES", "architectures"]

FAMILIES = ("mobile", "residual", "attention", "text", "recurrent", "audio", "dense", "detection", "structures")
"""Files of :mod:`zoo.families`, in the order of the table."""


def architectures(*families: str) -> dict[str, Architecture]:
    """Name -> architecture, of some families in that order, or of all."""
    found: dict[str, Architecture] = {}
    for name in families or FAMILIES:
        module = importlib.import_module(f"zoo.families.{name}")
        for made in module.ARCHITECTURES:
            found[made[0]] = Architecture(made[0], name, *made[1:])
    return found
