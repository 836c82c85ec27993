"""Figure: what each step of the recipe made of the metric, of the work, of the file and of its latency."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from edgekit.core.measurement import Evidence
from edgekit.core.stages import Stage
from edgekit.report import svg
from edgekit.report.palette import colour
from edgekit.report.stages import StageRow, stage_rows
from edgekit.report.svg import Scale

__all__ = ["stage_figure"]

_WIDE_PX = 600
_ROW_PX = 26.0
_BAR_PX = 12.0
_TITLE_PX = 26.0
_GAP_PX = 28.0
_LEAST_SPAN_POINTS = 1.0
"""The axis of the change never spans less: noise of a tenth of a point must not look like a cliff."""


@dataclasses.dataclass(frozen=True)
class _Bars:
    """A panel of bars, each a share of the dense program's.

    Args:
        title: Above the bars.
        value: The quantity; None where there is none.
        shown: The number beside the bar.
    """

    title: str
    value: Callable[[Stage], float | None]
    shown: Callable[[StageRow], str]


def stage_figure(stages: Sequence[Stage], *, width: float) -> str:
    """Change of the metric with its interval, and bars of MACs, size and latency; empty without stages."""
    rows = stage_rows(stages)
    if len(rows) < 2:
        return ""
    bars = [panel for panel in _panels(stages) if any(panel.value(stage) for stage in stages)]
    has_change = any(row.stage.change is not None for row in rows)
    is_wide = width >= _WIDE_PX
    left = max(svg.text_width(row.stage.label) for row in rows) + 18
    count = len(bars) + has_change
    panel_height = _TITLE_PX + _ROW_PX * len(rows)
    room = (width - left - _GAP_PX * (count - 1)) / count if is_wide else width - left
    parts: list[str] = []
    for index in range(count):
        x = left + (room + _GAP_PX) * index if is_wide else left
        top = 0.0 if is_wide else (panel_height + 14) * index
        if not is_wide or index == 0:
            parts += _names(rows, top=top)
        if has_change and index == 0:
            parts += _changes(rows, x=x, top=top, width=room)
        else:
            parts += _bars(bars[index - has_change], rows, x=x, top=top, width=room)
    height = panel_height + 4 if is_wide else (panel_height + 14) * count
    return svg.figure(parts, width=width, height=height, title="what each step of the recipe changed, against the dense program")


def _panels(stages: Sequence[Stage]) -> list[_Bars]:
    measured = all(stage.timed.evidence is Evidence.MEASURED for stage in stages if stage.timed)
    return [
        _Bars("MACs", lambda stage: stage.macs, lambda row: row.macs),
        _Bars("file size", lambda stage: stage.timed.size_bytes if stage.timed else None, lambda row: row.size),
        _Bars(
            "latency" if measured else "time (not the device's)",
            lambda stage: 1 / stage.timed.speedup if stage.timed else None,
            lambda row: row.latency if row.is_dense else f"{row.speedup} as fast",
        ),
    ]


def _names(rows: Sequence[StageRow], *, top: float) -> list[str]:
    return [svg.text(0, _base(top, at) + 4, row.stage.label, class_="name") for at, row in enumerate(rows)]


def _base(top: float, at: int) -> float:
    """Middle of a row."""
    return top + _TITLE_PX + _ROW_PX * (at + 0.5)


def _changes(rows: Sequence[StageRow], *, x: float, top: float, width: float) -> list[str]:
    """Dots with intervals on an axis of points, a line at no change."""
    found = [(at, row, row.stage.change, row.stage.change_interval) for at, row in enumerate(rows)]
    edges = [100 * edge for _, _, change, interval in found for edge in (*(interval or ()), change or 0.0)]
    low, high = min([*edges, 0.0]), max([*edges, 0.0])
    spare = max(_LEAST_SPAN_POINTS - (high - low), 0.0) / 2
    words = max(svg.text_width(row.change) for row in rows) + 10
    scale = Scale(low=low - spare, high=high + spare, start=x + 4, end=x + width - words)
    bottom = _base(top, len(rows) - 1) + _ROW_PX / 2
    name = next((row.stage.metric_name for row in rows if row.stage.metric_name), "metric")
    parts = [svg.text(x, top + 12, f"{name}, points", class_="axis-title")]
    parts.append(svg.line(scale(0.0), top + _TITLE_PX, scale(0.0), bottom, class_="axis"))
    for at, row, change, interval in found:
        if change is None:
            continue
        hue, y = _hue(row.stage), _base(top, at)
        if interval and not row.is_dense:
            parts.append(svg.line(scale(100 * interval[0]), y, scale(100 * interval[1]), y, class_=f"whisker {hue}"))
        tip = f"after {row.stage.label}: {row.metric}" + (
            "" if row.is_dense else f", {row.change} points ({row.change_interval})"
        )
        parts.append(svg.circle(scale(100 * change), y, 5.0, class_=f"{_fill(row)} {hue}", tip=tip))
        parts.append(svg.text(x + width, y + 4, row.metric if row.is_dense else row.change, class_="tick", anchor="end"))
    return parts


def _bars(panel: _Bars, rows: Sequence[StageRow], *, x: float, top: float, width: float) -> list[str]:
    values = [panel.value(row.stage) for row in rows]
    words = max(svg.text_width(panel.shown(row)) for row in rows) + 10
    largest = max((value for value in values if value), default=1.0)
    scale = Scale(low=0.0, high=largest, start=x, end=x + width - words)
    parts = [svg.text(x, top + 12, panel.title, class_="axis-title")]
    for at, (row, value) in enumerate(zip(rows, values, strict=True)):
        if value is None:
            continue
        y, tip = _base(top, at), f"after {row.stage.label}: {panel.title} {panel.shown(row)}"
        length = max(scale(value) - x, 1.5)
        kind = "stage baseline" if row.is_dense else "stage" if row.stage.helped else "stage idle"
        parts.append(svg.rectangle(x, y - _BAR_PX / 2, length, _BAR_PX, class_=f"{kind} {_hue(row.stage)}", tip=tip, radius=2))
        parts.append(svg.text(x + length + 6, y + 4, panel.shown(row), class_="tick"))
    return parts


def _hue(stage: Stage) -> str:
    return colour(stage.timed.target if stage.timed else "torch")


def _fill(row: StageRow) -> str:
    return "hollow" if row.is_dense or not row.stage.helped else "dot"
