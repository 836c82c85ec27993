"""A model file's listing in a terminal and in a notebook: totals, inputs and outputs, operators, layers, metadata."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import TYPE_CHECKING

from edgekit.core.listing import RENDERERS, Listing, Operation, Value
from edgekit.report import quantities

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["Listing", "notebook_html", "render_terminal"]

_LAYER_HEADINGS: tuple[str, ...] = ("layer", "operator", "MACs", "size", "arithmetic", "output", "source")
_LEFT = {"layer", "operator", "arithmetic", "output", "source"}
_NUMBERS = {"MACs", "size"}
_ROOMY_COLUMNS = 110
_IF_ROOMY = {"source", "arithmetic"}
_PLAIN = re.compile(r"^(aten|quantized_decomposed)\.|\.default$")
"""What every operator of torch's has in front and behind."""
_SHOWN_METADATA = 100


def render_terminal(listing: Listing, console: Console, *, layers: int | None = 20) -> None:
    """Print a listing.

    Args:
        listing: What to print.
        console: Where.
        layers: At most so many layers, the largest; None: every operation in order.
    """
    from edgekit.report.terminal_tables import text

    console.print(text(_title(listing), style="bold"), soft_wrap=True)
    for sentence in _facts(listing):
        console.print(text(sentence), soft_wrap=True)
    for what, edges in (("input", listing.inputs), ("output", listing.outputs)):
        for edge in edges:
            console.print(text(f"{what:<7} {edge.name}  {_shape(edge)}"), soft_wrap=True)
    console.print()
    console.print(text(f"Operators: {_counts(listing.op_counts)}."), soft_wrap=True)
    if listing.kernels:
        console.print(
            text(f"Kernels that multiply, after the runtime's own fusions: {_counts(listing.kernels)}."), soft_wrap=True
        )
    console.print()
    chosen = _chosen(listing, layers)
    console.print(_layers(chosen, is_roomy=console.width >= _ROOMY_COLUMNS))
    if len(chosen) < len(listing.operations):
        rest = f"The {len(chosen)} largest of {len(listing.operations)} operations; --all shows every one in order."
        console.print(text(rest, style="dim"), soft_wrap=True)
    for key, value in _metadata(listing):
        console.print(text(f"{key}: {value}"), soft_wrap=True)
    for note in listing.notes:
        console.print(text(note, style="dim"), soft_wrap=True)


def _layers(operations: Sequence[Operation], *, is_roomy: bool) -> Table:
    """The operations; names give way before numbers do."""
    from edgekit.report.terminal_tables import plain_table, text

    cells = [dict(zip(_LAYER_HEADINGS, _cells(operation, grids=is_roomy), strict=True)) for operation in operations]
    names = [name for name in _LAYER_HEADINGS if (is_roomy or name not in _IF_ROOMY) and any(row[name] for row in cells)]
    table = plain_table(*names, left=sorted(_LEFT))
    for column, name in zip(table.columns, names, strict=True):
        if name in _NUMBERS:
            column.min_width = max(len(row[name]) for row in cells)
    for row in cells:
        table.add_row(*(text(row[name]) for name in names))
    return table


def notebook_html(listing: Listing) -> str:
    """The listing as a piece of HTML for a notebook's output cell, every operation in order."""
    style = resources.files("edgekit.report").joinpath("report.css").read_text(encoding="utf-8")
    edges = [
        (what, value.name, _shape(value))
        for what, values in (("input", listing.inputs), ("output", listing.outputs))
        for value in values
    ]
    cells = [_cells(operation) for operation in listing.operations]
    facts = "".join(f"<li>{html.escape(fact)}</li>" for fact in (*_facts(listing), *listing.notes))
    return (
        f'<style>{style}</style><div class="edgekit-report notebook"><h1>{html.escape(_title(listing))}</h1><ul>{facts}</ul>'
        f"{_table(('', 'name', 'shape'), edges)}{_table(_LAYER_HEADINGS, cells)}"
        f"{_table(('key', 'value'), _metadata(listing))}</div>"
    )


RENDERERS["text/html"] = notebook_html


def _title(listing: Listing) -> str:
    return f"{listing.path}: {listing.format}, {quantities.size(listing.size_bytes)}, sha256 {listing.sha256[:12]}…"


def _facts(listing: Listing) -> list[str]:
    stored = ", ".join(f"{dtype} {quantities.size(size)}" for dtype, size in listing.bytes_by_dtype.items()) or "none"
    facts = [f"Constants: {stored}."]
    if listing.macs:
        share = listing.integer_mac_share
        integers = "which of them run as integers the device decides" if share is None else f"{share:.1%} in integer kernels"
        facts.append(f"Multiply-accumulates: {listing.macs:,}, {integers}. Found from: {listing.method}.")
    return facts


def _shape(value: Value, *, grid: bool = True) -> str:
    sizes = "shape not recorded" if value.shape is None else str([size or "?" for size in value.shape]).replace("'", "")
    numbers = f", scale {value.scale:.6g}, zero point {value.zero_point}" if grid and value.scale is not None else ""
    return f"{value.dtype} {sizes}{numbers}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} × {count}" for name, count in counts.items()) or "none"


def _chosen(listing: Listing, layers: int | None) -> Sequence[Operation]:
    """The operations with the largest constants or the most work, in the file's order."""
    if layers is None or len(listing.operations) <= layers:
        return listing.operations
    total_bytes, total_macs = max(listing.weight_bytes, 1), max(listing.macs, 1)
    weight = [operation.weight_bytes / total_bytes + operation.macs / total_macs for operation in listing.operations]
    best = sorted(range(len(weight)), key=lambda at: -weight[at])[:layers]
    return [listing.operations[at] for at in sorted(best)]


def _cells(operation: Operation, *, grids: bool = True) -> tuple[str, ...]:
    fused = f" + {operation.fused}" if operation.fused else ""
    return (
        operation.name,
        f"{_PLAIN.sub('', operation.op)}{fused}",
        f"{operation.macs:,}" if operation.macs else "",
        quantities.size(operation.weight_bytes) if operation.weight_bytes else "",
        operation.arithmetic,
        "; ".join(_shape(value, grid=grids) for value in operation.outputs),
        operation.source,
    )


def _metadata(listing: Listing) -> list[tuple[str, str]]:
    entries = {**listing.versions, **listing.metadata}
    return [(key, value if len(value) <= _SHOWN_METADATA else f"{value[:_SHOWN_METADATA]}…") for key, value in entries.items()]


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th{_side(heading)}>{html.escape(heading)}</th>" for heading in headings)
    body = "".join(
        "<tr>" + "".join(f"<td{_side(name)}>{html.escape(cell)}</td>" for name, cell in zip(headings, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _side(heading: str) -> str:
    return ' class="number"' if heading in _NUMBERS else ""
