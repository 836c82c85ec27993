"""What happens to a program before any vendor's converter sees it, in the worker, for one target.

::

    program ─ shapes fixed, preprocessing baked in, where asked for ─ rewrites ─> program the vendor takes
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.converters.fixed_shapes import fix_shapes
from edgekit.converters.preprocessing import bake
from edgekit.converters.rewrites import rewrite_for

if TYPE_CHECKING:
    from edgekit.core.artifact import ExportOptions, RewriteRecord
    from edgekit.core.compressed import Compressed

__all__ = ["prepare"]


def prepare(compressed: Compressed, *, target: str, options: ExportOptions) -> tuple[Compressed, tuple[RewriteRecord, ...]]:
    """The program as the target's converter is given it, and what was rewritten.

    Args:
        compressed: What the run holds.
        target: Name of the converter.
        options: Choices of the export.

    Raises:
        ConversionError: A rewrite changed the program's answers, there is no preprocessing to bake in, or the target cannot
            take open axes.
    """
    fixed = fix_shapes(compressed, target=target, options=options)
    return rewrite_for(bake(fixed, target=target, options=options), target)
