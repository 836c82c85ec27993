"""Figure: quantization error of every layer, and below it, on the same axis, how exactly each target reproduces the layer."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.core.validation import LayerParity
from edgekit.report import quantities, svg
from edgekit.report.layers import Layer, worst_layers
from edgekit.report.palette import colour
from edgekit.report.svg import Scale

__all__ = ["layer_figure"]

_WIDE_PX = 600
_PLOT_PX = 200.0
_STRIP_PX = 16.0
_NAMED = 3
_LEADER_PX = 26
"""A name farther below its dot than this gets a line to it."""


def layer_figure(layers: Sequence[Layer], targets: Sequence[str], *, width: float) -> str:
    """Signal-to-noise ratio by layer, worst layers named; below it one strip of cells a target. Empty without layers.

    Args:
        layers: In program order.
        targets: Targets that have layer parity.
        width: Pixels.
    """
    if not layers:
        return ""
    is_wide = width >= _WIDE_PX
    left = max([38.0, *(svg.text_width(target) + 14 for target in targets)]) if is_wide else 34.0
    pitch = (width - left - 4) / len(layers)
    has_error = any(layer.snr_db is not None for layer in layers)
    parts = _error_plot(layers, left=left, width=width, pitch=pitch) if has_error else []
    top = _PLOT_PX + 44 if has_error else 8.0
    row = _STRIP_PX + (10 if is_wide else 24)
    for index, target in enumerate(targets):
        parts += _strip(layers, target, left=left, top=top + row * index + (0 if is_wide else 16), pitch=pitch, is_wide=is_wide)
    height = top + row * len(targets) + 20
    parts += _positions(layers, left=left, pitch=pitch, y=height - 6)
    return svg.figure(parts, width=width, height=height, title="quantization error and parity of every layer, in program order")


def _error_plot(layers: Sequence[Layer], *, left: float, width: float, pitch: float) -> list[str]:
    values = [layer.snr_db for layer in layers if layer.snr_db is not None]
    own = [layer.error.own_snr_db for layer in layers if layer.error and layer.error.own_snr_db is not None]
    y = Scale(low=min([0.0, *values, *own]), high=1.08 * max([10.0, *values, *own]), start=_PLOT_PX + 22, end=26)
    parts = [svg.text(0, 12, "signal to quantization noise against float, dB (higher is better)", class_="axis-title")]
    for value in y.ticks(4):
        parts += [svg.line(left, y(value), width - 4, y(value), class_="grid")]
        parts += [svg.text(left - 8, y(value) + 4, f"{value:g}", class_="tick", anchor="end")]
    centres = {layer.index: left + pitch * (layer.index - 0.5) for layer in layers}
    points = [(centres[layer.index], y(layer.snr_db)) for layer in layers if layer.snr_db is not None]
    worst = worst_layers(layers, count=min(_NAMED, max(1, len(values) // 4)))
    parts += [svg.polyline(points, class_="trend")]
    parts += [part for layer in layers for part in _dots(layer, centres[layer.index], y, is_worst=layer in worst)]
    return parts + _names(worst, points, centres, y, limits=(left, width))


def _dots(layer: Layer, x: float, y: Scale, *, is_worst: bool) -> list[str]:
    """The layer's own rounding as a dash, its inherited error as a dot; a hollow dot at the top where there is no noise."""
    parts = []
    what = f"{layer.index}. {layer.name} ({layer.op})"
    if layer.error and layer.error.own_snr_db is not None:
        own = y(layer.error.own_snr_db)
        parts.append(
            svg.line(
                x - 4,
                own,
                x + 4,
                own,
                class_="own",
                tip=f"{what}: {quantities.decibels(layer.error.own_snr_db)} by its own rounding",
            )
        )
    if layer.snr_db is not None:
        tip = f"{what}: {quantities.decibels(layer.snr_db)}"
        parts.append(svg.circle(x, y(layer.snr_db), 5 if is_worst else 3.2, class_="worst" if is_worst else "dot hue-0", tip=tip))
    elif layer.is_noiseless:
        parts.append(svg.circle(x, y.end, 3.5, class_="hollow hue-0", tip=f"{what}: no noise"))
    return parts


def _names(
    worst: Sequence[Layer],
    points: Sequence[tuple[float, float]],
    centres: dict[int, float],
    y: Scale,
    *,
    limits: tuple[float, float],
) -> list[str]:
    """Names of the worst layers, below every dot they would cover and below each other."""
    leaders: list[str] = []
    names: list[str] = []
    taken: list[tuple[float, float, float]] = []
    for layer in worst:
        words = f"{layer.name} {quantities.decibels(layer.snr_db)}"
        half = svg.text_width(words) / 2
        x = min(max(centres[layer.index], limits[0] + half), limits[1] - half)
        baseline = max(dot_y for dot_x, dot_y in points if abs(dot_x - x) <= half + 6 or dot_x == centres[layer.index]) + 20
        while any(abs(baseline - other) < 14 and x - half < right and x + half > left for left, right, other in taken):
            baseline += 14
        taken.append((x - half, x + half, baseline))
        dot = y(layer.snr_db or 0.0)
        if baseline - dot > _LEADER_PX:
            leaders.append(svg.line(centres[layer.index], dot + 7, centres[layer.index], baseline - 11, class_="leader"))
        names.append(svg.text(x, min(baseline, y.start + 14), words, class_="name", anchor="middle"))
    return leaders + names


def _strip(layers: Sequence[Layer], target: str, *, left: float, top: float, pitch: float, is_wide: bool) -> list[str]:
    gap = 2.0 if pitch > 8 else 0.5
    x, y = (0.0, top + 12) if is_wide else (left, top - 5)
    where = svg.text(x, y, target, class_=f"coloured {colour(target)}")
    cells = [_cell(layer, target, x=left + pitch * (layer.index - 1) + gap / 2, top=top, width=pitch - gap) for layer in layers]
    return [where, *cells]


def _cell(layer: Layer, target: str, *, x: float, top: float, width: float) -> str:
    found = layer.parity.get(target)
    if found is None:
        return svg.rectangle(
            x, top + _STRIP_PX / 2 - 1, width, 2, class_="absent", tip=f"{layer.name}: no tensor of its own in the {target} file"
        )
    return svg.rectangle(
        x, top, width, _STRIP_PX, class_=f"cell {_kind(found)} {colour(target)}", tip=_cell_tip(found), radius=1.5
    )


def _kind(found: LayerParity) -> str:
    if found.largest_steps > 1:
        return "beyond"
    if found.exact_share == 1:
        return "exact"
    return "near" if found.exact_share >= 0.999 else "close" if found.exact_share >= 0.99 else "far"


def _cell_tip(found: LayerParity) -> str:
    return f"{found.entry}: {quantities.share(found.exact_share)} exact, largest difference {found.largest_steps} steps"


def _positions(layers: Sequence[Layer], *, left: float, pitch: float, y: float) -> list[str]:
    """Layer numbers below the strips: the first, the last, and every so many."""
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**6) if s * pitch >= 22)
    chosen = [layer for layer in layers if layer.index % step == 0 or (layer.index == 1 and step > 2)]
    return [svg.text(left + pitch * (layer.index - 0.5), y, str(layer.index), class_="tick", anchor="middle") for layer in chosen]
