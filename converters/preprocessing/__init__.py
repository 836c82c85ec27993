"""The declared preprocessing on its way into an artifact: baked into the program, or described in the target's own metadata."""

from __future__ import annotations

from edgekit.converters.preprocessing.baking import bake

__all__ = ["bake"]
