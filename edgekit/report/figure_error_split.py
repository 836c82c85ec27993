"""Figure: the error of every layer as a column of its parts, in output steps squared, in program order."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.core.error_split import PARTS, LayerSplit
from edgekit.report import quantities, svg
from edgekit.report.error_split import PART_HUES, PART_WORDS, power
from edgekit.report.svg import Scale

__all__ = ["split_figure"]

_PLOT_PX = 170.0
_TOP_PX = 26.0
_LEFT_PX = 46.0
_IDEAL = 1 / 12
"""Mean square of rounding to whole steps, where real values lie anywhere between two of them."""


def split_figure(layers: Sequence[LayerSplit], *, width: float) -> str:
    """Columns of the parts' powers; empty without layers.

    Args:
        layers: In program order.
        width: Pixels.
    """
    if not layers:
        return ""
    pitch = (width - _LEFT_PX - 4) / len(layers)
    sums = [sum(row.power(part) or 0.0 for part in PARTS) for row in layers]
    y = Scale(low=0.0, high=1.08 * max([_IDEAL, *sums]), start=_TOP_PX + _PLOT_PX, end=_TOP_PX)
    parts = [svg.text(0, 12, "mean square error, output steps squared (lower is better)", class_="axis-title")]
    for value in y.ticks(4):
        parts.append(svg.line(_LEFT_PX, y(value), width - 4, y(value), class_="grid"))
        parts.append(svg.text(_LEFT_PX - 8, y(value) + 4, f"{value:g}", class_="tick", anchor="end"))
    for index, row in enumerate(layers):
        parts += _column(row, index, y, pitch=pitch)
    parts.append(
        svg.line(_LEFT_PX, y(_IDEAL), width - 4, y(_IDEAL), class_="road hue-0", tip="1/12: rounding alone, evenly spread")
    )
    parts += _positions(len(layers), pitch=pitch, y=y.start + 16)
    return svg.figure(parts, width=width, height=y.start + 22, title="error of every layer by its causes, in program order")


def _column(row: LayerSplit, index: int, y: Scale, *, pitch: float) -> list[str]:
    gap = 2.0 if pitch > 8 else 0.5
    x, below, drawn = _LEFT_PX + pitch * index + gap / 2, 0.0, []
    for part in PARTS:
        value = row.power(part) or 0.0
        if value <= 0:
            continue
        top, bottom = y(below + value), y(below)
        ratio = quantities.decibels(row.snr_db(part))
        tip = f"{index + 1}. {row.entry} ({row.op}): {PART_WORDS[part]} {power(value)} steps², {ratio}"
        drawn.append(svg.rectangle(x, top, pitch - gap, bottom - top, class_=f"cell {PART_HUES[part]}", tip=tip))
        below += value
    return drawn


def _positions(count: int, *, pitch: float, y: float) -> list[str]:
    """Layer numbers: the first, and every so many."""
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**6) if s * pitch >= 22)
    chosen = [number for number in range(1, count + 1) if number % step == 0 or number == 1]
    return [svg.text(_LEFT_PX + pitch * (number - 0.5), y, str(number), class_="tick", anchor="middle") for number in chosen]
