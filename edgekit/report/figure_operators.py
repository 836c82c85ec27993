"""Figure: where an inference's time goes, a bar for each type of operator; its colour says how they compute."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.core.measurement import Evidence
from edgekit.core.operator_profile import OperatorProfile, OperatorTypeTime
from edgekit.report import quantities, svg

__all__ = ["KIND_HUES", "operator_figure"]

KIND_HUES: dict[str, str] = {"integer": "hue-1", "float": "hue-2", "conversion": "hue-5", "movement": "hue-0"}
"""How an operator computes -> the class of its colour."""

_ROW_PX = 24.0
_BAR_PX = 13.0
_MOST_TYPES = 14


def operator_figure(profile: OperatorProfile, *, width: float) -> str:
    """An SVG; empty where no operator was timed."""
    rows = profile.by_type()
    if not rows or rows[0].time_ms <= 0:
        return ""
    shown, rest = rows[:_MOST_TYPES], rows[_MOST_TYPES:]
    names = [f"{row.type} × {row.count}" if row.count > 1 else row.type for row in shown]
    left = min(max(map(svg.text_width, names)) + 14, 0.42 * width)
    words = [_words(row) for row in shown]
    room = width - left - max(map(svg.text_width, words)) - 8
    parts: list[str] = []
    for at, row in enumerate(shown):
        parts += _bar(row, names[at], words[at], y=_ROW_PX * at, left=left, length=room * row.time_ms / rows[0].time_ms,
                      weak=profile.evidence is not Evidence.MEASURED)  # fmt: skip
    if rest:
        parts.append(svg.text(0, _ROW_PX * len(shown) + 15, _rest(rest), class_="tick"))
    height = _ROW_PX * (len(shown) + bool(rest)) + 6
    return svg.figure(parts, width=width, height=height, title=f"time by type of operator, {profile.model}")


def _words(row: OperatorTypeTime) -> str:
    return f"{quantities.milliseconds(row.time_ms)}, {quantities.share(row.share, decimals=1)}"


def _rest(rows: Sequence[OperatorTypeTime]) -> str:
    share = quantities.share(sum(row.share for row in rows), decimals=1)
    return f"and {len(rows)} other types, {share} together"


def _bar(row: OperatorTypeTime, name: str, words: str, *, y: float, left: float, length: float, weak: bool) -> list[str]:
    fallback = f", fell back to {row.provider}" if row.is_fallback else f" on {row.provider}"
    tip = f"{row.type}: {row.count} {row.kind} operators{fallback}; {words}"
    kind = f"stage{' idle' if weak or row.is_fallback else ''} {KIND_HUES[row.kind]}"
    most = int(left / svg.text_width("x")) - 1
    short = name if len(name) <= most else f"{name[: most - 1]}…"
    bar = svg.rectangle(left, y + (_ROW_PX - _BAR_PX) / 2, max(length, 1.5), _BAR_PX, class_=kind, tip=tip, radius=2)
    middle = y + _ROW_PX / 2 + 4
    return [svg.text(0, middle, short, class_="name"), bar, svg.text(left + max(length, 1.5) + 6, middle, words, class_="tick")]
