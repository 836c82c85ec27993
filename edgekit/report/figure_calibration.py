"""Figure: how far the scales are from where they end, after so many calibration samples."""

from __future__ import annotations

import itertools

from edgekit.core.calibration import CalibrationReport
from edgekit.report import svg
from edgekit.report.svg import Scale

__all__ = ["convergence"]

_HEIGHT_PX = 260.0
_HIGHEST = 1.0
"""The axis ends at 100 %: beyond it, only that it is far off matters."""


def convergence(report: CalibrationReport, *, width: float) -> str:
    """Largest and median distance from the final scales against the number of samples. Empty with fewer than two points."""
    if len(report.curve) < 2:
        return ""
    last = report.curve[-1].sample_count
    x = Scale(low=0, high=last, start=46, end=width - 12)
    highest = min(_HIGHEST, max(0.2, *(point.largest_change for point in report.curve)))
    y = Scale(low=0, high=highest, start=_HEIGHT_PX - 44, end=24)
    parts = _axes(x, y)
    parts += [svg.line(x.start, y(report.tolerance), x.end, y(report.tolerance), class_="median hue-3", tip="tolerance")]
    if report.stable_after is not None:
        at = x(report.stable_after)
        parts += [svg.line(at, y.start, at, y.end, class_="median hue-3", tip=f"stable after {report.stable_after} samples")]
        parts += [svg.text(at + 6, y.end + 10, f"stable after {report.stable_after}", class_="coloured hue-3")]
    for field, hue in (("largest_change", "hue-1"), ("median_change", "hue-2")):
        values = [(point.sample_count, min(getattr(point, field), highest)) for point in report.curve]
        steps = [(x(count), y(value)) for count, value in _as_steps(values)]
        parts += [svg.element("g", svg.polyline(steps, class_=f"whisker {hue}"), class_=hue, fill="none")]
    parts += [svg.text(x.end, y.end + 10, "largest", class_="coloured hue-1", anchor="end")]
    parts += [svg.text(x.end, y.end + 26, "median", class_="coloured hue-2", anchor="end")]
    return svg.figure(parts, width=width, height=_HEIGHT_PX, title="distance from the final scales against calibration samples")


def _as_steps(values: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """A value holds until the next one is known."""
    points = [values[0]]
    for (_, before), (count, value) in itertools.pairwise(values):
        points += [(count, before), (count, value)]
    return points


def _axes(x: Scale, y: Scale) -> list[str]:
    parts = [
        svg.text(0, 12, "distance from the final scale", class_="axis-title"),
        svg.text(x.end, y.start + 36, "calibration samples", class_="axis-title", anchor="end"),
        svg.line(x.start, y.start, x.end, y.start, class_="axis"),
    ]
    for value in y.ticks(4):
        parts += [svg.line(x.start, y(value), x.end, y(value), class_="grid")]
        parts += [svg.text(x.start - 8, y(value) + 4, f"{100 * value:g} %", class_="tick", anchor="end")]
    parts += [svg.text(x(value), y.start + 17, f"{value:g}", class_="tick", anchor="middle") for value in x.ticks(6)]
    return parts
