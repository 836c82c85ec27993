"""Figure: a sustained run window by window; latency above, temperature, clock and power below on the same axis of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgekit.core.measurement import Evidence
from edgekit.core.sustained import SustainedRun, Window
from edgekit.report import quantities, svg
from edgekit.report.palette import colour
from edgekit.report.svg import Scale

__all__ = ["sustained_figure"]

_LATENCY_PX = 170.0
_PANEL_PX = 74.0
_GAP_PX = 26.0
_LEFT_PX = 52.0

_Reading = Callable[[Window], float | None]
_READINGS: tuple[tuple[str, _Reading], ...] = (
    ("temperature, °C", lambda window: window.temperature_c),
    ("clock, MHz", lambda window: window.clock_mhz),
    ("power, mW", lambda window: window.power_mw),
    ("processor taken by others, %", lambda window: None if window.waiting_share is None else 100 * window.waiting_share),
)


def sustained_figure(run: SustainedRun, *, target: str, label: str, width: float) -> str:
    """An SVG; empty where there are fewer than two windows."""
    if len(run.windows) < 2:
        return ""
    panels = [(title, values) for title, read in _READINGS if (values := _taken(run.windows, read))]
    end = run.windows[-1].start_s + run.windows[-1].seconds
    unit, name = (60.0, "minutes") if end > 300 else (1.0, "seconds")
    x = Scale(low=0.0, high=end / unit, start=_LEFT_PX, end=width - 10)
    is_measured = run.evidence is Evidence.MEASURED
    title = f"latency of {label}, ms ({run.evidence.value}{'' if is_measured else ', not the device’s'})"
    parts = _latency(run, x, unit=unit, title=title, hue=colour(target), is_measured=is_measured)
    top = _LATENCY_PX
    for panel, values in panels:
        parts += _panel(panel, values, x, unit=unit, top=top + _GAP_PX)
        top += _GAP_PX + _PANEL_PX
    parts += [svg.text(x(value), top + 17, f"{value:g}", class_="tick", anchor="middle") for value in x.ticks(8)]
    parts += [svg.text(x.end, top + 34, f"{name} from the first window", class_="axis-title", anchor="end")]
    return svg.figure(parts, width=width, height=top + 40, title=f"sustained run of {label}: latency over time")


def _taken(windows: Sequence[Window], read: _Reading) -> list[tuple[float, float]]:
    """Middle of each window in seconds, and what was read at it."""
    return [(window.start_s + window.seconds / 2, value) for window in windows if (value := read(window)) is not None]


def _latency(run: SustainedRun, x: Scale, *, unit: float, title: str, hue: str, is_measured: bool) -> list[str]:
    """The median as a line, up to the 90th percentile a band; CPU time thinner beside it; the trend dashed."""
    middles = [(window.start_s + window.seconds / 2) / unit for window in run.windows]
    lowest = min(min(window.p50_ms, window.cpu_ms) if window.cpu_ms > 0 else window.p50_ms for window in run.windows)
    highest = max(window.p90_ms for window in run.windows)
    spare = max(0.15 * highest - (highest - lowest), 0.08 * (highest - lowest), 1e-9)
    y = Scale(low=max(lowest - spare, 0.0), high=highest + spare, start=_LATENCY_PX, end=26)
    parts = [svg.text(0, 12, title, class_="axis-title")]
    parts += _grid(x, y, 4)
    band = [(x(at), y(window.p90_ms)) for at, window in zip(middles, run.windows, strict=True)]
    line = [(x(at), y(window.p50_ms)) for at, window in zip(middles, run.windows, strict=True)]
    kind = "band" if is_measured else "band weak"
    parts.append(svg.path([*band, *reversed(line)], class_=f"{kind} {hue}", tip="median to 90th percentile"))
    parts.append(svg.polyline(line, class_=f"line {hue}{'' if is_measured else ' weak'}"))
    if all(window.cpu_ms > 0 for window in run.windows):
        cpu = [(x(at), y(window.cpu_ms)) for at, window in zip(middles, run.windows, strict=True)]
        parts.append(svg.polyline(cpu, class_="line cpu"))
    for at, window in zip(middles, run.windows, strict=True):
        tip = f"{at:.1f}: median {quantities.milliseconds(window.p50_ms)}, p90 {quantities.milliseconds(window.p90_ms)},"
        tip += f" CPU {quantities.milliseconds(window.cpu_ms)}, {quantities.count(window.inference_count)} inferences"
        parts.append(svg.circle(x(at), y(window.p50_ms), 2.4, class_=f"dot {hue}", tip=tip))
    return parts


def _panel(title: str, values: Sequence[tuple[float, float]], x: Scale, *, unit: float, top: float) -> list[str]:
    lowest, highest = min(value for _, value in values), max(value for _, value in values)
    spare = max(0.12 * (highest - lowest), 0.02 * abs(highest), 0.5)
    y = Scale(low=max(lowest - spare, 0.0), high=highest + spare, start=top + _PANEL_PX - 4, end=top + 20)
    parts = [svg.text(0, top + 12, title, class_="axis-title"), *_grid(x, y, 3)]
    parts.append(svg.polyline([(x(at / unit), y(value)) for at, value in values], class_="line reading"))
    parts += [
        svg.circle(x(at / unit), y(value), 2.0, class_="reading", tip=f"{at / unit:.1f}: {quantities.significant(value)}")
        for at, value in values
    ]
    return parts


def _grid(x: Scale, y: Scale, count: int) -> list[str]:
    parts = []
    for value in y.ticks(count):
        parts += [svg.line(x.start, y(value), x.end, y(value), class_="grid")]
        parts += [svg.text(x.start - 8, y(value) + 4, f"{value:,g}", class_="tick", anchor="end")]
    return [*parts, svg.line(x.start, y.start, x.end, y.start, class_="axis")]
