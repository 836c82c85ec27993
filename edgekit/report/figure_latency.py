"""Figure: the distribution of device latency, one strip an artifact. Only ``measured`` times are in it."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.core.measurement import Distribution
from edgekit.report import quantities, svg
from edgekit.report.matrix import Row
from edgekit.report.palette import colour
from edgekit.report.svg import Scale

__all__ = ["latency_strips"]

_WIDE_PX = 600
_BINS = 160
_TAIL_RATIO = 2.0
"""The axis reaches to the 99th percentile, but at most this often the 90th: interruptions can be a hundred times a median."""
_LINEAR_RATIO = 12.0
"""Beyond this ratio of slowest to fastest the axis is logarithmic, or the fast strips would be slivers."""


def latency_strips(rows: Sequence[Row], *, width: float, names: Sequence[str] = ()) -> str:
    """Strips on one axis: the shape of the samples, median, 90th and 99th percentile. Empty if nothing was measured.

    Args:
        rows: Artifacts.
        width: Pixels.
        names: What each is called; empty: by its label.
    """
    called = names or [row.label for row in rows]
    found = [
        (row, name, row.latency.distribution)
        for row, name in zip(rows, called, strict=True)
        if row.latency and row.latency.distribution
    ]
    if not found:
        return ""
    is_wide = width >= _WIDE_PX
    left, right = (max(svg.text_width(name) for _, name, _ in found) + 18, 320.0) if is_wide else (2.0, 2.0)
    strip = 46.0 if is_wide else 62.0
    height = strip * len(found) + 40
    scale = _axis([distribution for *_, distribution in found], start=left, end=width - right)
    parts = _ticks(scale, bottom=height - 38, right=width - right)
    for index, (row, name, distribution) in enumerate(found):
        parts += _strip(row, name, distribution, scale, base=strip * (index + 1) - 4, width=width, is_wide=is_wide)
    return svg.figure(parts, width=width, height=height, title="device latency of each artifact, milliseconds, measured")


def _axis(distributions: Sequence[Distribution], *, start: float, end: float) -> Scale:
    """From zero to where nearly all samples are: a long tail is counted beside its strip instead of squeezing all others."""
    fastest = min(d.minimum for d in distributions)
    reach = max(min(d.p99, _TAIL_RATIO * d.p90) for d in distributions)
    logarithmic = fastest > 0 and reach / min(d.p50 for d in distributions) > _LINEAR_RATIO
    return Scale(low=0.9 * fastest if logarithmic else 0.0, high=1.06 * reach, start=start, end=end, logarithmic=logarithmic)


def _ticks(scale: Scale, *, bottom: float, right: float) -> list[str]:
    parts = [svg.line(scale.start, bottom, right, bottom, class_="axis")]
    for value in scale.ticks(6):
        parts += [svg.line(scale(value), 4, scale(value), bottom, class_="grid")]
        parts += [svg.text(scale(value), bottom + 16, f"{value:g}", class_="tick", anchor="middle")]
    kind = "logarithmic" if scale.logarithmic else "from zero"
    return [
        *parts,
        svg.text(right, bottom + 33, f"device latency, ms (measured; axis {kind})", class_="axis-title", anchor="end"),
    ]


def _strip(
    row: Row, name: str, distribution: Distribution, scale: Scale, *, base: float, width: float, is_wide: bool
) -> list[str]:
    hue = colour(row.target)
    kind = "float" if row.is_baseline else "int"
    outline = _shape(distribution, scale, base=base, height=30)
    parts = [svg.path(outline, class_=f"ridge {kind} {hue}", tip=_range(name, distribution))]
    parts += [svg.line(scale(distribution.p50), base, scale(distribution.p50), base - 32, class_=f"median {hue}")]
    for value, size in ((distribution.p90, 12), (distribution.p99, 7)):
        if value > scale.high:
            continue
        parts += [svg.line(scale(value), base, scale(value), base - size, class_=f"percentile {hue}")]
    y = base - (8 if is_wide else 40)
    parts += [svg.text(0, y, name, class_=f"coloured {hue}")]
    beyond = _beyond(distribution, scale.high)
    words = f"{beyond} beyond · {_percentiles(distribution)}" if beyond and is_wide else _percentiles(distribution)
    parts += [svg.text(width, y, words, class_="tick", anchor="end")]
    if beyond and not is_wide:
        parts += [svg.text(scale.end, base - 8, f"{beyond} →", class_="tick", anchor="end")]
    return parts


def _range(name: str, distribution: Distribution) -> str:
    fastest, slowest = (quantities.milliseconds(value) for value in (distribution.minimum, distribution.maximum))
    return f"{name}: {quantities.count(distribution.sample_count)} samples, {fastest} to {slowest}"


def _percentiles(distribution: Distribution) -> str:
    named = {"p50": distribution.p50, "p90": distribution.p90, "p99": distribution.p99}
    return " · ".join(f"{name} {quantities.significant(value)}" for name, value in named.items()) + " ms"


def _beyond(distribution: Distribution, axis_end: float) -> str:
    """Share of the samples that the axis does not reach; empty where it reaches all."""
    found = sum(value > axis_end for value in distribution.samples)
    return quantities.share(found / len(distribution.samples), decimals=1) if found else ""


def _shape(distribution: Distribution, scale: Scale, *, base: float, height: float) -> list[tuple[float, float]]:
    """Outline of a smoothed histogram of the samples on the axis, in pixels."""
    import numpy as np

    samples = distribution.samples or (distribution.minimum, distribution.p50, distribution.p90, distribution.p99)
    places = np.array([scale(value) for value in samples if value <= scale.high])
    counts, edges = np.histogram(places, bins=_BINS, range=(scale.start, scale.end))
    kernel = np.exp(-0.5 * (np.arange(-4, 5) / 1.4) ** 2)
    density = np.convolve(counts, kernel / kernel.sum(), mode="same")
    density = density / max(float(density.max()), 1e-12)
    middles = (edges[:-1] + edges[1:]) / 2
    kept = np.flatnonzero(density > 0.004)
    first, last = int(kept[0]), int(kept[-1])
    outline = [(float(middles[i]), base - height * float(density[i])) for i in range(first, last + 1)]
    return [(outline[0][0], base), *outline, (outline[-1][0], base)]
