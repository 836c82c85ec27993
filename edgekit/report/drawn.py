"""A figure for wide and for narrow screens: drawn twice, so that text keeps its size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

__all__ = ["HALF_PX", "PAGE_PX", "Drawn"]

PAGE_PX, HALF_PX, NARROW_PX = 1116.0, 538.0, 360.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
    """One figure; empty where there is nothing to draw."""

    wide: str
    narrow: str

    @classmethod
    def by(cls, draw: Callable[[float], str], *, wide: float = PAGE_PX) -> Drawn:
        """Call ``draw`` with both widths."""
        return cls(wide=draw(wide), narrow=draw(NARROW_PX))
