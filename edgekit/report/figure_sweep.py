"""Figure: what each point of a sweep costs (size, latency) against how good its answers are, and the front."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from edgekit.core.stages import Stage
from edgekit.core.sweep import SweepPoint, SweepReport
from edgekit.report import quantities, svg
from edgekit.report.palette import colour
from edgekit.report.svg import Scale

__all__ = ["against_latency", "against_size"]

_HEIGHT_PX = 300.0
_DOT_PX = 5.5
_LEAST_SPAN_PERCENT = 1.0
"""The accuracy axis never spans less: noise of a tenth of a point must not look like a cliff."""
_LINE_PX = 15.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Dot:
    name: str
    x: float
    y: float
    low: float
    high: float
    on_front: bool
    is_dense: bool


def against_size(report: SweepReport, *, width: float) -> str:
    """Metric against the size of the file; an SVG. Empty where no file was measured."""
    unit, name = 1e6, "MB"
    if all(point.stage.timed.size_bytes < unit for point in report.points if point.stage and point.stage.timed):
        unit, name = 1e3, "kB"
    return _draw(
        report, lambda stage: stage.timed.size_bytes / unit if stage.timed else None, width=width, x_title=f"size, {name}"
    )


def against_latency(report: SweepReport, *, width: float) -> str:
    """Metric against latency as a share of the dense program's, which was timed in turn; an SVG. Empty where none was timed."""
    timed = [point.stage.timed for point in report.points if point.stage and point.stage.timed]
    evidence = sorted({one.evidence.value for one in timed})
    title = f"latency, dense = 1 ({', '.join(evidence)} on {report.device})"
    return _draw(report, lambda stage: 1 / stage.timed.speedup if stage.timed else None, width=width, x_title=title)


def _draw(report: SweepReport, cost: Callable[[Stage], float | None], *, width: float, x_title: str) -> str:
    dots = [dot for point in report.points if (dot := _dot(point, cost)) is not None]
    if not dots:
        return ""
    low, high = min(dot.low for dot in dots), max(dot.high for dot in dots)
    missing = max(_LEAST_SPAN_PERCENT - (high - low), 0.2 * (high - low))
    x = Scale(low=0, high=1.18 * max(dot.x for dot in dots) or 1.0, start=46, end=width - 10)
    y = Scale(low=low - missing / 2, high=high + missing / 2, start=_HEIGHT_PX - 44, end=26)
    metric = next((point.stage.metric_name for point in report.points if point.stage), "metric")
    front = sorted((x(dot.x), y(dot.y)) for dot in dots if dot.on_front)
    parts = [*_axes(x, y, x_title=x_title, y_title=f"{metric}, %"), svg.polyline(front, class_="trend")]
    for dot in dots:
        parts += _mark(dot, x, y)
    parts += _names(dots, x, y, width=width)
    return svg.figure(parts, width=width, height=_HEIGHT_PX, title=f"{metric} against {x_title}")


def _dot(point: SweepPoint, cost: Callable[[Stage], float | None]) -> _Dot | None:
    stage = point.stage
    x = cost(stage) if stage is not None else None
    if stage is None or stage.metric is None or x is None:
        return None
    y = 100 * stage.metric
    low = high = y
    if stage.change is not None and stage.change_interval is not None:
        low, high = (y + 100 * (end - stage.change) for end in stage.change_interval)
    return _Dot(
        name=point.label, x=x, y=y, low=min(low, y), high=max(high, y), on_front=point.on_front, is_dense=point.ratio is None
    )


def _axes(x: Scale, y: Scale, *, x_title: str, y_title: str) -> list[str]:
    parts = [
        svg.text(0, 12, y_title, class_="axis-title"),
        svg.text(x.end, y.start + 36, x_title, class_="axis-title", anchor="end"),
        svg.line(x.start, y.start, x.end, y.start, class_="axis"),
    ]
    for value in y.ticks(5):
        parts += [svg.line(x.start, y(value), x.end, y(value), class_="grid")]
        parts += [svg.text(x.start - 8, y(value) + 4, f"{value:g}", class_="tick", anchor="end")]
    parts += [svg.text(x(value), y.start + 17, f"{value:g}", class_="tick", anchor="middle") for value in x.ticks(5)]
    return parts


def _hue(dot: _Dot) -> str:
    return colour("onnx") if dot.on_front else colour("torch")


def _mark(dot: _Dot, x: Scale, y: Scale) -> list[str]:
    tip = f"{dot.name}: {dot.y:.2f} %, {quantities.significant(dot.x)}{', on the front' if dot.on_front else ''}"
    kind = "hollow" if dot.is_dense else "dot"
    mark = svg.circle(x(dot.x), y(dot.y), _DOT_PX, class_=f"{kind} {_hue(dot)}", tip=tip)
    if dot.high <= dot.low:
        return [mark]
    return [svg.line(x(dot.x), y(dot.low), x(dot.x), y(dot.high), class_=f"whisker {_hue(dot)}"), mark]


def _names(dots: Sequence[_Dot], x: Scale, y: Scale, *, width: float) -> list[str]:
    """Each name beside its dot, to the side with room, moved down until it covers no other."""
    parts: list[str] = []
    taken: list[tuple[float, float, float]] = []
    for dot in sorted(dots, key=lambda dot: (-dot.y, dot.x)):
        wide, centre = svg.text_width(dot.name), x(dot.x)
        is_right = centre + 12 + wide <= width
        left = centre + 12 if is_right else centre - 12 - wide
        top = y(dot.y)
        while any(left < end and start < left + wide and abs(top - other) < _LINE_PX for start, end, other in taken):
            top += 3
        taken.append((left, left + wide, top))
        at = left if is_right else left + wide
        parts.append(svg.text(at, top + 4, dot.name, class_=f"coloured {_hue(dot)}", anchor="start" if is_right else "end"))
    return parts
