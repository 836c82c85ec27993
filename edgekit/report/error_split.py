"""Where a layer's error comes from, and which layers make executors differ: sentences, and tables for the terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edgekit.core.error_split import PARTS, ErrorSplit, KernelSpread, LayerSplit, Part
from edgekit.report import quantities

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "PART_HUES",
    "PART_WORDS",
    "SpreadRow",
    "describe",
    "layer_table",
    "power",
    "spread_rows",
    "spread_sentences",
    "spread_table",
]

PART_WORDS: dict[Part, str] = {
    "weights": "weights", "clipping": "clipping", "rounding": "rounding", "rewrite": "converter rewrite", "kernel": "kernel",
}  # fmt: skip
PART_HUES: dict[Part, str] = {
    "weights": "hue-4", "clipping": "hue-5", "rounding": "hue-0", "rewrite": "hue-6", "kernel": "hue-1",
}  # fmt: skip
"""Part -> class that colours it."""
_SHORT: dict[Part, str] = {
    "weights": "weights", "clipping": "clip", "rounding": "round", "rewrite": "rewrite", "kernel": "kernel",
}  # fmt: skip
_LAYER_COLUMNS = 16
_NAMED = 3
_LEAST_SHOWN = 1e-5
_NO_NOISE = 1e-12
"""A power below it is float64's own rounding, not the layer's."""


def power(value: float | None) -> str:
    """A part's power, in output steps squared.

    >>> power(0.08333), power(0.0), power(None)
    ('0.0833', '0', '–')
    """
    if value is None:
        return quantities.NOTHING
    if abs(value) < _NO_NOISE:
        return "0"
    return "<0.00001" if abs(value) < _LEAST_SHOWN else quantities.significant(value)


def describe(split: ErrorSplit) -> Iterator[str]:
    """What a reader should take home, in sentences."""
    totals: dict[Part, float] = {part: sum(row.power(part) or 0.0 for row in split.layers) for part in PARTS}
    whole = sum(totals.values())
    if whole > 0:
        kept: list[Part] = [part for part in PARTS if totals[part] > _NO_NOISE * whole]
        ordered = sorted(kept, key=totals.__getitem__, reverse=True)
        shares = ", ".join(f"{PART_WORDS[part]} {quantities.share(totals[part] / whole)}" for part in ordered)
        yield f"Error made by the layers of {split.label} in {split.executor}, each fed the program's integers: {shares}."
    inexact = sorted((row for row in split.layers if row.exact_share < 1), key=lambda row: row.exact_share)
    explained = split.explained_share
    if explained is not None:
        yield f"The rounding rules of {split.rules} reproduce {quantities.share(explained)} of its integers bit for bit."
    if inexact:
        names = ", ".join(f"{row.entry} {quantities.share(row.exact_share)}" for row in inexact[:_NAMED])
        more = f" and {len(inexact) - _NAMED} more" if len(inexact) > _NAMED else ""
        yield f"Layers whose kernels answer otherwise than the simulation (share equal): {names}{more}."
    elif split.layers:
        yield f"Every layer's integers equal the simulation of the file: {split.executor} adds no error of its own."


def spread_sentences(split: ErrorSplit) -> Iterator[str]:
    """One sentence for each pair with the split's own executor: the layers that differ most, and how either rounds there."""
    own = [spread for spread in split.spreads if split.executor in {spread.first, spread.second}]
    for row in spread_rows(own):
        yield f"{row.pair}: {row.words}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpreadRow:
    """One pair of executors, as a reader sees it.

    Args:
        pair: Both names.
        identical: Share of equal integers.
        layers: How many layers differ, of how many.
        words: The layers that differ most, and the rules.
    """

    pair: str
    identical: str
    layers: str
    words: str


def spread_rows(spreads: Sequence[KernelSpread]) -> list[SpreadRow]:
    """A row for each pair."""
    return [
        SpreadRow(
            pair=f"{spread.first} – {spread.second}",
            identical=quantities.share(spread.identical_share),
            layers=f"{len(spread.layers)} of {spread.layer_count}",
            words=_difference(spread),
        )
        for spread in spreads
    ]


def _difference(spread: KernelSpread) -> str:
    if not spread.layers:
        return f"bit for bit equal in all {spread.layer_count} layers."
    parts = []
    for row in spread.layers[:_NAMED]:
        rules = f" ({row.rules[0]} against {row.rules[1]})" if all(row.rules) and row.rules[0] != row.rules[1] else ""
        steps = f", up to {quantities.steps(row.largest_steps)}" if row.largest_steps > 1 else ""
        parts.append(f"{row.entry} {quantities.share(row.differing_share)} differ{steps}{rules}")
    more = f"; {len(spread.layers) - _NAMED} more layers" if len(spread.layers) > _NAMED else ""
    return f"{'; '.join(parts)}{more}."


def layer_table(layers: Sequence[LayerSplit]) -> Table:
    """Powers of all parts in output steps squared, the total in decibels, and how exactly the runtime answers."""
    from edgekit.report.terminal_tables import plain_table, text

    table = plain_table("layer", *_SHORT.values(), "SNR", "exact", left=("layer",), fold=("layer",))
    table.columns[0].min_width = _LAYER_COLUMNS
    for row in layers:
        found = [power(row.power(part)) for part in PARTS]
        table.add_row(text(row.entry), *(text(cell) for cell in (*found, _decibels(row.snr_db()), _percent(row.exact_share))))
    return table


def spread_table(spreads: Sequence[KernelSpread]) -> Table:
    """A row for each pair of executors: equal integers, layers that differ, and the one that differs most."""
    from edgekit.report.terminal_tables import plain_table, text

    table = plain_table("pair", "equal", "layers", "most", left=("pair", "most"), fold=("pair", "most"))
    for row, spread in zip(spread_rows(spreads), spreads, strict=True):
        worst = spread.layers[0] if spread.layers else None
        most = f"{worst.entry} {quantities.share(worst.differing_share)}" if worst else quantities.NOTHING
        table.add_row(*(text(cell) for cell in (row.pair, row.identical, row.layers, most)))
    return table


def _decibels(value: float | None) -> str:
    return quantities.NOTHING if value is None else quantities.decibels(value).removesuffix(" dB")


def _percent(value: float) -> str:
    return quantities.share(value).removesuffix(" %")
