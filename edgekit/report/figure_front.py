"""Figure: accuracy against latency over devices, targets and releases, with the front of those that were measured.

A dot holds the number of the device or release it stands for; colours are targets. Estimates are hollow and dashed and have no
part in the front; times of emulators and reference executors are not in it at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from edgekit.core.history_entry import History
from edgekit.core.measurement import Evidence
from edgekit.core.validation import ValidationReport
from edgekit.report import quantities, svg
from edgekit.report.matrix import rows
from edgekit.report.overview import NOT_TIMED
from edgekit.report.palette import colour
from edgekit.report.svg import Scale

__all__ = ["FrontPoint", "front_figure", "points_of_history", "points_of_report"]

_HEIGHT_PX = 320.0
_DOT_PX = 8.5
_LEAST_SPAN_PERCENT = 1.0
"""The accuracy axis never spans less: noise of a tenth of a point must not look like a cliff."""
_LINEAR_RATIO = 6.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrontPoint:
    """One artifact on one device, or of one release.

    Args:
        number: Of its device or release, as the legend has it.
        name: What the pointer says.
        target: For the colour.
        latency_ms: Median.
        score: Of the task's metric, percent.
        low: Lower end of the score's 95 % interval.
        high: Upper end.
        evidence: Of the latency.
    """

    number: int
    name: str
    target: str
    latency_ms: float
    score: float
    low: float
    high: float
    evidence: Evidence


def points_of_report(report: ValidationReport) -> list[FrontPoint]:
    """Compressed and float artifacts that have a metric and a latency; numbered by device."""
    found = []
    for number, device in enumerate(report.devices, 1):
        for row in rows(report, device):
            metric, latency = row.result.metric if row.result else None, row.taken("latency")
            if metric is None or latency is None or latency.evidence in NOT_TIMED or latency.value <= 0:
                continue
            ends = [100 * metric.float_value - drop for drop in metric.drop_interval]
            name = f"{row.label} on {device.profile.title}"
            found.append(_point(number, name, row.target, latency.value, 100 * metric.value, ends, latency.evidence))
    return found


def points_of_history(history: History, runs: Sequence[str]) -> list[FrontPoint]:
    """The last validation of each run on each device; numbered by run."""
    last = {}
    for entry in history.entries:
        for result in entry.results:
            score, latency = result.find("score"), result.find("latency")
            if (
                entry.kind == "validate"
                and entry.run in runs
                and score
                and latency
                and latency.evidence not in NOT_TIMED
                and latency.value > 0
            ):
                last[entry.run, entry.device, result.label] = (entry, result, score, latency)
    found = []
    for entry, result, score, latency in last.values():
        name = f"{result.label} of {entry.run} on {entry.device_title or entry.device}"
        ends = [100 * end for end in score.interval or (score.value, score.value)]
        number = runs.index(entry.run) + 1
        found.append(_point(number, name, result.target, latency.value, 100 * score.value, ends, latency.evidence))
    return found


def _point(
    number: int, name: str, target: str, latency_ms: float, score: float, ends: Sequence[float], evidence: Evidence
) -> FrontPoint:
    low, high = min(*ends, score), max(*ends, score)
    return FrontPoint(
        number=number, name=name, target=target, latency_ms=latency_ms, score=score, low=low, high=high, evidence=evidence
    )


def front_figure(points: Sequence[FrontPoint], *, metric: str, width: float) -> str:
    """An SVG; empty where there are fewer than two points."""
    if len(points) < 2:
        return ""
    x, y = _scales(points, width)
    weak = sorted({point.evidence.value for point in points if point.evidence is not Evidence.MEASURED})
    kinds = "measured" + "".join(f"; dashed: {kind}" for kind in weak)
    title = f"latency, ms ({kinds}{'; axis logarithmic' if x.logarithmic else ''})"
    parts = svg.axes(x, y, x_title=title, y_title=f"{metric}, %", x_ticks=6)
    parts.append(svg.polyline([(x(p.latency_ms), y(p.score)) for p in _front(points)], class_="trend"))
    for point in sorted(points, key=lambda one: one.evidence is Evidence.MEASURED):
        parts += _mark(point, x, y)
    return svg.figure(parts, width=width, height=_HEIGHT_PX, title=f"{metric} against latency over devices and targets")


def _scales(points: Sequence[FrontPoint], width: float) -> tuple[Scale, Scale]:
    fastest, slowest = min(p.latency_ms for p in points), max(p.latency_ms for p in points)
    logarithmic = slowest / fastest > _LINEAR_RATIO
    start, end = 46.0, width - 14
    x = Scale(
        low=fastest / 1.25 if logarithmic else 0.0, high=slowest * (1.25 if logarithmic else 1.1), start=start, end=end,
        logarithmic=logarithmic,
    )  # fmt: skip
    low, high = min(p.low for p in points), max(p.high for p in points)
    missing = max(_LEAST_SPAN_PERCENT - (high - low), 0.16 * (high - low))
    return x, Scale(low=low - missing / 2, high=high + missing / 2, start=_HEIGHT_PX - 44, end=26)


def _front(points: Sequence[FrontPoint]) -> list[FrontPoint]:
    """Measured points that no other measured one beats in both, from the fastest on.

    Which device was measured matters less than what is to be had: the front goes over all of them.
    """
    found: list[FrontPoint] = []
    for point in sorted(points, key=lambda one: (one.latency_ms, -one.score)):
        if point.evidence is Evidence.MEASURED and (not found or point.score > found[-1].score):
            found.append(point)
    return found


def _mark(point: FrontPoint, x: Scale, y: Scale) -> list[str]:
    at, height, hue = x(point.latency_ms), y(point.score), colour(point.target)
    is_measured = point.evidence is Evidence.MEASURED
    tip = f"{point.name}: {point.score:.2f} %, {quantities.milliseconds(point.latency_ms)} ({point.evidence.value})"
    whisker = svg.line(at, y(point.low), at, y(point.high), class_=f"whisker {hue}")
    kind = "hollow" if "float" in point.name.split(" ", 1)[0] else "dot"
    dot = svg.circle(at, height, _DOT_PX, class_=f"{kind if is_measured else 'estimate'} {hue}", tip=tip)
    inside = "inside" if is_measured and kind == "dot" else f"inside coloured {hue}"
    return [whisker, dot, svg.text(at, height + 4, str(point.number), class_=inside, anchor="middle")]
