"""Just enough SVG for the report's figures.

Figures are drawn here and not by a plotting library so that they take their colours from the page's style sheet
(light, dark and print from one file), keep their text as text, stay small, and are the same bytes every time.
Sizes are CSS pixels; colours are classes, never values.
"""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Iterable, Sequence

__all__ = [
    "FONT_PX",
    "Scale",
    "axes",
    "circle",
    "element",
    "figure",
    "line",
    "path",
    "polyline",
    "rectangle",
    "text",
    "text_width",
]

FONT_PX = 12
_MEAN_GLYPH_EM = 0.55
"""Mean width of a glyph of the sans-serif system fonts, in em: only for keeping labels apart."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """Values to pixels along one axis.

    Args:
        low: Value at ``start``.
        high: Value at ``end``.
        start: Pixel of the low end.
        end: Pixel of the high end (smaller than ``start`` for an axis that grows upwards).
        logarithmic: Equal distances are equal ratios.

    >>> Scale(low=0, high=10, start=0, end=100)(2.5)
    25.0
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = math.log(max(value, self.low)), math.log(low), math.log(high)
        place = (value - low) / (high - low) if high > low else 0.5
        return self.start + place * (self.end - self.start)

    def ticks(self, wanted: int = 5) -> list[float]:
        """Round values within the axis, about ``wanted`` of them.

        >>> Scale(low=0, high=0.93, start=0, end=1).ticks(5)
        [0.0, 0.2, 0.4, 0.6, 0.8]
        """
        if self.logarithmic:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            found = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
            return [value for value in found if self.low <= value <= self.high]
        step = _round_step((self.high - self.low) / max(wanted, 1))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        decimals = max(0, 1 - math.floor(math.log10(step)))
        return [round(index * step, decimals) + 0.0 for index in range(first, last + 1)]


def _round_step(raw: float) -> float:
    """The nearest of 1, 2, 2.5, 5 times a power of ten that is not below ``raw``."""
    if raw <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))


def text_width(words: str, *, font_px: float = FONT_PX) -> float:
    """About how wide ``words`` will be, in pixels."""
    return len(words) * font_px * _MEAN_GLYPH_EM


def element(tag: str, content: str = "", *, tip: str = "", **attributes: object) -> str:
    """One element. ``content`` is markup; attribute values and ``tip`` (shown on hover) are escaped.

    >>> element("circle", cx=1.25, class_="dot")
    '<circle cx="1.25" class="dot"/>'
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_attribute(value)}"' for name, value in attributes.items() if value != ""
    )
    inside = (f"<title>{html.escape(tip)}</title>" if tip else "") + content
    return f"<{tag}{written}>{inside}</{tag}>" if inside else f"<{tag}{written}/>"


def _attribute(value: object) -> str:
    if isinstance(value, float):
        return _pixels(value)
    return html.escape(str(value), quote=True)


def _pixels(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"


def text(x: float, y: float, words: str, *, class_: str = "", anchor: str = "start") -> str:
    """A line of text; ``words`` are escaped."""
    return element(
        "text", html.escape(words), x=float(x), y=float(y), class_=class_, text_anchor=anchor if anchor != "start" else ""
    )


def line(x1: float, y1: float, x2: float, y2: float, *, class_: str, tip: str = "") -> str:
    """A straight line."""
    return element("line", tip=tip, x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def rectangle(
    x: float, y: float, width: float, height: float, *, class_: str, tip: str = "", radius: float = 0, opacity: float = 1
) -> str:
    """A rectangle; one with a tip is also what the pointer finds."""
    return element(
        "rect",
        tip=tip,
        x=float(x),
        y=float(y),
        width=float(width),
        height=float(height),
        class_=class_,
        rx=float(radius) if radius else "",
        fill_opacity=float(opacity) if opacity != 1 else "",
    )


def circle(x: float, y: float, radius: float, *, class_: str, tip: str = "") -> str:
    """A dot."""
    return element("circle", tip=tip, cx=float(x), cy=float(y), r=float(radius), class_=class_)


def polyline(points: Sequence[tuple[float, float]], *, class_: str) -> str:
    """An open line through points."""
    return element("polyline", points=" ".join(f"{_pixels(x)},{_pixels(y)}" for x, y in points), class_=class_)


def path(points: Sequence[tuple[float, float]], *, class_: str, tip: str = "") -> str:
    """A closed area."""
    first, *rest = [f"{_pixels(x)} {_pixels(y)}" for x, y in points]
    return element("path", tip=tip, d=f"M{first}L{' '.join(rest)}Z", class_=class_)


def axes(x: Scale, y: Scale, *, x_title: str, y_title: str, x_ticks: int = 5) -> list[str]:
    """Titles, grid lines at the ticks of ``y``, and about ``x_ticks`` ticks below."""
    parts = [
        text(0, 12, y_title, class_="axis-title"),
        text(x.end, y.start + 36, x_title, class_="axis-title", anchor="end"),
    ]
    for value in y.ticks(5):
        parts += [line(x.start, y(value), x.end, y(value), class_="grid")]
        parts += [text(x.start - 8, y(value) + 4, f"{value:g}", class_="tick", anchor="end")]
    parts += [line(x.start, y.start, x.end, y.start, class_="axis")]
    parts += [text(x(value), y.start + 17, f"{value:g}", class_="tick", anchor="middle") for value in x.ticks(x_ticks)]
    return parts


def figure(parts: Iterable[str], *, width: float, height: float, title: str) -> str:
    """The whole picture, which a screen reader announces by its title."""
    return element(
        "svg",
        "".join(parts),
        viewBox=f"0 0 {_pixels(width)} {_pixels(height)}",
        width=float(width),
        height=float(height),
        role="img",
        aria_label=title,
    )
