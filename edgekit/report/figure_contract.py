"""Figure: what each target's file made of the contract's entries, one stacked bar a target."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.report import svg
from edgekit.report.matrix import Row

__all__ = ["OUTCOMES", "contract_bars"]

OUTCOMES = ("honoured", "re-typed", "folded", "dropped")
_WIDE_PX = 600
_BAR_PX = 22.0


def contract_bars(rows: Sequence[Row], *, width: float) -> str:
    """Shares of honoured, re-typed, folded and dropped entries, with their counts. Empty if no artifact has a contract report."""
    found = [row for row in rows if row.contract.outcomes]
    if not found:
        return ""
    is_wide = width >= _WIDE_PX
    left = max(svg.text_width(row.label) for row in found) + 18 if is_wide else 0.0
    pitch = _BAR_PX + (14 if is_wide else 26)
    parts: list[str] = []
    for index, row in enumerate(found):
        top = pitch * index + (4 if is_wide else 18)
        parts += [svg.text(0, top + (15 if is_wide else -5), row.label, class_="name")]
        parts += _bar(row, left=left, top=top, width=width - left)
    height = pitch * len(found) + 4
    return svg.figure(
        parts, width=width, height=height, title="contract entries honoured, re-typed, folded and dropped by each target"
    )


def _bar(row: Row, *, left: float, top: float, width: float) -> list[str]:
    counts = row.contract.counts
    total = sum(counts.values())
    parts: list[str] = []
    x = left
    for outcome in OUTCOMES:
        count = counts.get(outcome, 0)
        if not count:
            continue
        length = max(width * count / total, 3.0)
        tip = f"{row.label}: {count} of {total} entries {outcome}"
        parts.append(svg.rectangle(x, top, max(length - 1.5, 1.5), _BAR_PX, class_=f"part {outcome}", tip=tip, radius=2))
        words = str(count)
        if svg.text_width(words) + 8 < length:
            parts.append(svg.text(x + 7, top + 15, words, class_=f"on {outcome}"))
        x += length
    return parts
