"""Figure: one number over releases, a line for each artifact, a panel for each device; intervals as whiskers.

Numbers that are not measured are hollow, dashed, and in panels of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgekit.core.history_changes import Change
from edgekit.core.history_entry import HistoryEntry
from edgekit.core.measurement import Evidence
from edgekit.report import quantities, svg
from edgekit.report.palette import colour
from edgekit.report.svg import Scale

__all__ = ["history_figure", "written"]

_HEIGHT_PX = 190.0
_WIDE_PX = 500.0
_NAME_PX = 112.0
_LINE_PX = 14.0
_PER_LABEL_PX = 82.0

_UNITS = {"share": (100.0, "%"), "bytes": (1e-3, "kB")}


def written(value: float, unit: str, *, signed: bool = False) -> str:
    """A number of the history in its unit.

    >>> written(0.8912, "share"), written(51300, "bytes"), written(0.0941, "ms")
    ('89.12 %', '51.3 kB', '0.0941 ms')
    """
    sign = ("+" if value > 0 else "-" if value < 0 else "") if signed else ""
    return f"{sign}{quantities.measured(abs(value) if signed else value, unit)}"


def history_figure(lines: Sequence[Sequence[Change]], *, title: str, width: float) -> str:
    """An SVG of the series of one device and one kind of evidence; empty where none has two entries.

    Args:
        lines: Series of the same number.
        title: What a screen reader announces.
        width: Pixels.
    """
    lines = [line for line in lines if len(line) > 1]
    if not lines:
        return ""
    entries = sorted({change.now.entry.number: change.now.entry for line in lines for change in line}.items())
    unit = lines[0][0].now.number.unit
    factor, unit_name = _UNITS.get(unit, (1.0, unit))
    ends = [factor * end for line in lines for change in line for end in _interval(change)]
    spare = max(0.12 * (max(ends) - min(ends)), 0.004 * abs(max(ends)), 1e-9)
    low = min(ends) - spare
    y = Scale(low=max(low, 0.0) if min(ends) >= 0 else low, high=max(ends) + spare, start=_HEIGHT_PX - 46, end=28)
    x = Scale(low=0, high=max(len(entries) - 1, 1), start=58, end=width - (_NAME_PX if width > _WIDE_PX else 14))
    places = {number: x(at) for at, (number, _) in enumerate(entries)}
    parts = [svg.text(0, 12, "ratio" if unit_name == "ratio" else unit_name, class_="axis-title")]
    for value in y.ticks(4):
        parts += [svg.line(x.start, y(value), x.end, y(value), class_="grid")]
        parts += [svg.text(x.start - 8, y(value) + 4, f"{value:,g}", class_="tick", anchor="end")]
    parts += [svg.line(x.start, y.start, x.end, y.start, class_="axis")]
    parts += _releases([entry for _, entry in entries], x, top=y.start, is_narrow=width <= _WIDE_PX)
    for line in lines:
        parts += _line(line, places, y, factor)
    parts += _names(lines, y, factor, at=x.end + 14) if width > _WIDE_PX else []
    return svg.figure(parts, width=width, height=_HEIGHT_PX, title=f"{title} over releases")


def _releases(entries: Sequence[HistoryEntry], x: Scale, *, top: float, is_narrow: bool) -> list[str]:
    """Run and day below the axis, as many as there is room for, the last one always."""
    last = len(entries) - 1
    step = max(1, math.ceil(len(entries) * _PER_LABEL_PX / (x.end - x.start)))
    parts = []
    for at in [*(at for at in range(0, last, step) if last - at >= step), last]:
        anchor = "start" if at == 0 else "end" if at == last and is_narrow else "middle"
        for below, words in ((16, entries[at].run[:12]), (30, entries[at].created[5:10])):
            parts.append(svg.text(x(at), top + below, words, class_="tick", anchor=anchor))
    return parts


def _interval(change: Change) -> tuple[float, float]:
    number = change.now.number
    low, high = number.interval or (number.value, number.value)
    return min(low, number.value), max(high, number.value)


def _line(line: Sequence[Change], places: dict[int, float], y: Scale, factor: float) -> list[str]:
    hue = colour(line[0].now.result.target)
    is_measured = line[0].now.number.evidence is Evidence.MEASURED
    points = [(places[change.now.entry.number], y(factor * change.now.number.value)) for change in line]
    parts = [svg.polyline(points, class_=f"line {hue}{'' if is_measured else ' weak'}")]
    for change, (across, up) in zip(line, points, strict=True):
        low, high = (y(factor * end) for end in _interval(change))
        number, entry = change.now.number, change.now.entry
        if low - high > 1:
            parts.append(svg.line(across, low, across, high, class_=f"whisker {hue}"))
        tip = f"{change.now.result.label} of {entry.run}, entry {entry.number}: {written(number.value, number.unit)}"
        tip += f" ({number.evidence.value}{', clearly changed' if change.is_clear else ''})"
        kind = "estimate" if not is_measured else "dot" if change.is_clear or change.before is None else "hollow"
        parts.append(svg.circle(across, up, 4.5, class_=f"{kind} {hue}", tip=tip))
    return parts


def _names(lines: Sequence[Sequence[Change]], y: Scale, factor: float, *, at: float) -> list[str]:
    """Labels at the right end, each at its line's last point or, where that would cover another, above it."""
    parts = []
    ceiling = y.start - 2.0
    ends = [(y(factor * line[-1].now.number.value), line[-1].now.result) for line in lines]
    for end, result in sorted(ends, key=lambda one: -one[0]):
        place = min(end + 4, ceiling)
        ceiling = place - _LINE_PX
        parts.append(svg.text(at, place, result.label, class_=f"coloured {colour(result.target)}"))
    return parts
