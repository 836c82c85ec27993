"""Figure: what an artifact costs (device latency, size) against how good its answers are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from edgekit.core.measurement import Evidence
from edgekit.report import quantities, svg
from edgekit.report.matrix import Row
from edgekit.report.palette import colour
from edgekit.report.svg import Scale

__all__ = ["against_latency", "against_size"]

_DOT_PX = 5.5
_LEADER_PX = 20
"""A name farther from its dot than this gets a line to it."""
_ORDERS = 6
_AWAY_COST = 1.5
_LEAST_SPAN_PERCENT = 1.0
"""The accuracy axis never spans less: noise of a tenth of a point must not look like a cliff."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Point:
    row: Row
    x: float
    y: float
    low: float
    high: float

    @property
    def name(self) -> str:
        weak = self.row.evidence not in {None, Evidence.MEASURED}
        return f"{self.row.label} ({self.row.evidence})" if weak else self.row.label


Box = tuple[float, float, float, float]


def against_latency(rows: Sequence[Row], *, width: float) -> str:
    """Metric against device latency; artifacts without a ``measured`` latency are not in it. Empty if none has one."""
    found = _points(rows, lambda row: row.latency.value if row.latency else None)
    return _draw(found, width=width, x_title="median device latency, ms (measured)", x_text=quantities.milliseconds)


def against_size(rows: Sequence[Row], *, width: float) -> str:
    """Metric against the size of what ships. Empty if no artifact has a metric."""
    found = _points(rows, lambda row: quantities.megabytes(row.artifact.size_bytes))
    unit = 1e3 if found and max(point.x for point in found) < 1 else 1.0
    scaled = [dataclasses.replace(point, x=point.x * unit) for point in found]
    name = "kB" if unit > 1 else "MB"
    return _draw(scaled, width=width, x_title=f"size, {name}", x_text=lambda x: f"{quantities.significant(x)} {name}")


def _points(rows: Sequence[Row], cost: Callable[[Row], float | None]) -> list[_Point]:
    found = []
    for row in rows:
        metric, x = row.result.metric if row.result else None, cost(row)
        if metric is None or x is None:
            continue
        low, high = (100 * metric.float_value - drop for drop in reversed(metric.drop_interval))
        y = 100 * metric.value
        found.append(_Point(row=row, x=x, y=y, low=min(low, y), high=max(high, y)))
    return found


def _draw(points: Sequence[_Point], *, width: float, x_title: str, x_text: Callable[[float], str]) -> str:
    if not points:
        return ""
    height = 300.0
    x, y = _scales(points, width=width, height=height)
    metric = points[0].row.result.metric.name if points[0].row.result and points[0].row.result.metric else ""
    parts = svg.axes(x, y, x_title=x_title, y_title=f"{metric}, %")
    parts += _roads(points, x, y)
    for point in points:
        parts += _mark(point, x, y, x_text)
    parts += _labels(points, x, y, limits=(x.start, 14, width, height - 40))
    return svg.figure(parts, width=width, height=height, title=f"{metric} against {x_title}")


def _scales(points: Sequence[_Point], *, width: float, height: float) -> tuple[Scale, Scale]:
    low, high = min(point.low for point in points), max(point.high for point in points)
    missing = max(_LEAST_SPAN_PERCENT - (high - low), 0.16 * (high - low))
    x = Scale(low=0, high=1.18 * max(point.x for point in points) or 1.0, start=46, end=width - 10)
    return x, Scale(low=low - missing / 2, high=high + missing / 2, start=height - 44, end=26)


def _roads(points: Sequence[_Point], x: Scale, y: Scale) -> list[str]:
    """A line from each float artifact to the compressed one of the same target."""
    floats = {point.row.target: point for point in points if point.row.is_baseline}
    ends = [(floats[p.row.target], p) for p in points if not p.row.is_baseline and p.row.target in floats]
    return [svg.line(x(a.x), y(a.y), x(b.x), y(b.y), class_=f"road {colour(b.row.target)}") for a, b in ends]


def _mark(point: _Point, x: Scale, y: Scale, x_text: Callable[[float], str]) -> list[str]:
    tip = f"{point.name}: {point.y:.2f} %, {x_text(point.x)}"
    kind = "hollow" if point.row.is_baseline else "dot"
    dot = svg.circle(x(point.x), y(point.y), _DOT_PX, class_=f"{kind} {colour(point.row.target)}", tip=tip)
    if point.high <= point.low:
        return [dot]
    return [svg.line(x(point.x), y(point.low), x(point.x), y(point.high), class_=f"whisker {colour(point.row.target)}"), dot]


def _labels(points: Sequence[_Point], x: Scale, y: Scale, *, limits: Box) -> list[str]:
    """Names beside their dots: of several orders of placing them one by one, the one whose names are least in the way."""
    dots = [_around(x(point.x), y(point.y), _DOT_PX + 2) for point in points]
    whiskers = [(x(point.x) - 1, y(point.high), x(point.x) + 1, y(point.low)) for point in points]
    order = sorted(points, key=lambda point: (point.x, point.y))
    orders = [turned[at:] + turned[:at] for turned in (order, order[::-1]) for at in range(min(len(order), _ORDERS))]
    best = min((_placed(turned, x, y, dots, whiskers, limits) for turned in orders), key=lambda found: found[0])
    return [part for place in best[1] for part in place.draw()]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a name stands, and how much it is in the way there."""

    point: _Point
    dot: tuple[float, float]
    box: Box
    anchor: str
    away: float
    cost: float

    def draw(self) -> list[str]:
        left, top, right, bottom = self.box
        at = {"start": left, "middle": (left + right) / 2, "end": right}[self.anchor]
        name = svg.text(at, bottom - 3, self.point.name, class_=f"coloured {colour(self.point.row.target)}", anchor=self.anchor)
        if self.away < _LEADER_PX:
            return [name]
        x, y = self.dot
        end = bottom if bottom < y else top
        return [svg.line(x, y, min(max(x, left + 8), right - 8), end, class_="leader"), name]


def _placed(
    points: Sequence[_Point], x: Scale, y: Scale, dots: Sequence[Box], whiskers: Sequence[Box], limits: Box
) -> tuple[float, list[_Place]]:
    solid = list(dots)
    found = []
    for point in points:
        best = None
        for place in _candidates(point, (x(point.x), y(point.y)), solid, whiskers, limits):
            if best is not None and _AWAY_COST * place.away > best.cost:
                break  # every further place is farther away, so none can be better
            best = place if best is None or place.cost < best.cost else best
        if best is None:
            continue
        solid.append(best.box)
        found.append(best)
    return sum(place.cost for place in found), found


def _candidates(
    point: _Point, dot: tuple[float, float], solid: Sequence[Box], whiskers: Sequence[Box], limits: Box
) -> Iterator[_Place]:
    width, height = svg.text_width(point.name), 14.0
    lefts = {"start": dot[0] + 10, "end": dot[0] - 10 - width, "middle": dot[0] - width / 2}
    for away in range(0, 105, 7):
        for direction in (-1, 1) if away else (1,):
            top = dot[1] - height / 2 + direction * away
            for anchor, left in lefts.items():
                box = (left, top, left + width, top + height)
                outside = (
                    max(limits[0] - left, 0) + max(box[2] - limits[2], 0) + max(limits[1] - top, 0) + max(box[3] - limits[3], 0)
                )
                covered = 25 * sum(_overlap(box, other) for other in solid) + sum(_overlap(box, other) for other in whiskers)
                cost = 60 * outside + covered + _AWAY_COST * away + {"start": 0, "end": 3, "middle": 6}[anchor]
                yield _Place(point=point, dot=dot, box=box, anchor=anchor, away=away, cost=cost)


def _overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _around(x: float, y: float, radius: float) -> Box:
    return (x - radius, y - radius, x + radius, y + radius)
