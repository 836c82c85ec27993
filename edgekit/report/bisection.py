"""Where a file parts from its program: in a terminal, and in a notebook."""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgekit.core.bisection import RENDERERS, BisectedLayer, Bisection, Divergence, Remedy
from edgekit.core.error_split import ErrorSplit
from edgekit.report import error_split, quantities
from edgekit.report.error_split import layer_table, spread_sentences

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Bisection", "describe", "notebook_html", "render_terminal"]

_AROUND = 4
"""Rows shown before the first divergence."""
_SHOWN = 12
_ALTERED = 3


def describe(result: Bisection) -> Iterator[str]:
    """What was found, in sentences."""
    first = result.first
    if first is None:
        yield (
            f"{result.label} computes what {result.program} computes: {len(result.layers)} values found in the file, none differs"
            f" by more than rounding ({result.tolerance})."
        )
        return
    yield f"First divergence: layer {first.name} ({', '.join(first.ops)})."
    if first.source:
        yield f"{first.source}: {first.code}" if first.code else first.source
    yield (
        f"Local error {error(first, first.local_error)} (rounding: {first.tolerance:.3g}) in {first.share:.2%} of the values;"
        f" with what was inherited {error(first, first.inherited_error)}."
    )
    sources = ", ".join(f"'{name}'" for name in first.reads) or "the inputs"
    yield f"In the file: tensor '{first.tensor}', by {', '.join(first.file_ops) or 'no operator'} from {sources}."
    if first.grid:
        yield f"Its grid is not the contract's: {first.grid}."
    for line in first.altered[:_ALTERED]:
        yield f"Not as exported: {line}."
    if first.reproduction:
        yield f"Reproduce: python {first.reproduction}/repro.py"
    for remedy in result.remedies:
        yield _remedy(remedy)
    if len(result.divergences) > 1:
        yield f"{len(result.divergences) - 1} more after it: {', '.join(one.name for one in result.divergences[1:])}."


def error(row: BisectedLayer, value: float) -> str:
    """An error with its unit."""
    return f"{value:.3g} steps" if row.unit == "steps" else f"{value:.3g} of the largest value"


def _remedy(remedy: Remedy) -> str:
    if remedy.error_after is None:
        return f"Tried: {remedy.action} It could not be done: {remedy.note}"
    verdict = "It helps" if remedy.helped else "It does not help"
    return (
        f"Tried: {remedy.action} {verdict}: the outputs' largest error goes from {remedy.error_before:.3g} to"
        f" {remedy.error_after:.3g} of the largest output."
    )


def shown_layers(result: Bisection) -> list[BisectedLayer]:
    """The rows around the first divergence; without one the largest local errors."""
    first = result.first
    if first is None:
        return sorted(result.layers, key=lambda row: (row.unit != "steps", -row.local_error))[:_SHOWN]
    at = next(index for index, row in enumerate(result.layers) if row.node == first.node)
    return list(result.layers[max(0, at - _AROUND) : at + _SHOWN - _AROUND])


def accuracy_losses(result: Bisection) -> list[tuple[str, float, float]]:
    """(layer, decibels before, decibels after) of the largest drops against the float program, largest first."""
    rows = [row for row in result.layers if row.float_snr_db is not None and row.unit == "steps"]
    drops = [
        (row.layer or row.node, before.float_snr_db, row.float_snr_db)
        for before, row in itertools.pairwise(rows)
        if before.float_snr_db is not None and row.float_snr_db is not None
    ]
    return sorted(drops, key=lambda drop: drop[2] - drop[1])[:3]


def render_terminal(result: Bisection, console: Console) -> None:
    """Print the rows around the first divergence, and what is known of it."""
    from rich.table import Table
    from rich.text import Text

    console.print(Text.assemble((result.label, "bold"), f"  {result.path}"), soft_wrap=True)
    against_float = any(row.float_snr_db is not None for row in result.layers)
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("layer", "op", "tensor in the file"):
        table.add_column(title, overflow="fold")
    for title in ("local", "inherited", *(["dB to float"] if against_float else [])):
        table.add_column(title, justify="right", no_wrap=True)
    for row in shown_layers(result):
        cells = [row.layer or "–", row.op, row.tensor, _short(row, row.local_error), _short(row, row.inherited_error)]
        cells += [_decibels(row.float_snr_db)] if against_float else []
        table.add_row(*(Text(cell, style="" if row.is_equal else "red") for cell in cells))
    console.print(table)
    for number, line in enumerate(describe(result)):
        style = "" if number else "green" if result.passed else "bold red"
        console.print(line, style=style, markup=False, soft_wrap=True)
    for layer, before, after in accuracy_losses(result) if against_float else ():
        console.print(f"Against the float program: {before:.1f} dB before {layer}, {after:.1f} dB behind.", markup=False)
    if result.split is not None:
        _print_split(result.split, console)
    for line in _facts(result):
        console.print(line, style="dim", markup=False, soft_wrap=True)


def _print_split(split: ErrorSplit, console: Console) -> None:
    """Every layer's error by its causes, and the layers that make executors differ."""
    console.print()
    console.print(
        f"Error by its causes in {split.executor}, mean squares in output steps squared; SNR in dB, exact in %",
        style="bold",
        markup=False,
    )
    console.print(layer_table(split.layers))
    console.print()
    for line in (*error_split.describe(split), *split.notes, *spread_sentences(split)):
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"Simulation: {split.simulation}.", style="dim", markup=False, soft_wrap=True)


def _facts(result: Bisection) -> Iterator[str]:
    found = result.provenance
    yield (
        f"{len(found.matches)} nodes of the program found in the file, {len(found.unmatched_nodes)} have no tensor of their own;"
        f" {len(found.unmatched_tensors)} tensors hold none."
    )
    yield f"Reference values, {result.sample_count} golden samples, by {result.method}; not a device's."
    yield from result.notes


def _short(row: BisectedLayer, value: float) -> str:
    return f"{value:.3g} steps" if row.unit == "steps" else f"{value:.2g}"


def _decibels(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def notebook_html(result: Bisection) -> str:
    """The same as a fragment of HTML."""
    rows = "".join(_row(row) for row in shown_layers(result))
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in (*describe(result), *_facts(result)))
    head = "".join(f"<th>{title}</th>" for title in ("layer", "op", "tensor in the file", "local", "inherited"))
    split = "" if result.split is None else _split_html(result.split)
    return f"<div><b>{html.escape(result.label)}</b><table><tr>{head}</tr>{rows}</table>{lines}{split}</div>"


def _split_html(split: ErrorSplit) -> str:
    titles = ("layer", "op", *error_split.PART_WORDS.values(), "total", "kernel exact")
    head = "".join(f"<th>{title}</th>" for title in titles)
    rows = ""
    for row in split.layers:
        powers = [error_split.power(row.power(part)) for part in error_split.PART_WORDS]
        cells = (row.entry, row.file_op or row.op, *powers, quantities.decibels(row.snr_db()), quantities.share(row.exact_share))
        rows += f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"
    lines = (*error_split.describe(split), *split.notes, *spread_sentences(split))
    words = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    return f"<b>Error by its causes in {html.escape(split.executor)}</b><table><tr>{head}</tr>{rows}</table>{words}"


def _row(row: BisectedLayer | Divergence) -> str:
    cells = (row.layer or "–", row.op, row.tensor, _short(row, row.local_error), _short(row, row.inherited_error))
    style = "" if row.is_equal else ' style="color:#b00020"'
    return f"<tr{style}>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"


RENDERERS["text/html"] = notebook_html
