"""What tells two model files apart, in a terminal and in a notebook."""

from __future__ import annotations

import html
from importlib import resources
from typing import TYPE_CHECKING

from edgekit.core.difference import RENDERERS, ConstantChange, Difference, GraphChange, OutputChange
from edgekit.core.listing import Listing
from edgekit.report import quantities

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Difference", "notebook_html", "render_terminal"]

_SHOWN = 12
_RELATIONS = {
    "same": "the same numbers in the same order",
    "rescaled": "the same integers on another grid",
    "moved": "the same numbers in another axis order",
    "changed": "other numbers under the same name",
    "only in A": "only in A",
    "only in B": "only in B",
}


def render_terminal(found: Difference, console: Console) -> None:
    """Print what was found, the answers last."""
    from edgekit.report.terminal_tables import text

    for title, lines in _sections(found):
        console.print(text(title, style="bold"), soft_wrap=True)
        for line in lines:
            console.print(text(f"  {line}"), soft_wrap=True)
    console.print(text(conclusion(found), style="bold"), soft_wrap=True)


def notebook_html(found: Difference) -> str:
    """The difference as a piece of HTML for a notebook's output cell."""
    style = resources.files("edgekit.report").joinpath("report.css").read_text(encoding="utf-8")
    parts = "".join(
        f"<h2>{html.escape(title)}</h2><ul>{''.join(f'<li>{html.escape(line)}</li>' for line in lines)}</ul>"
        for title, lines in _sections(found)
    )
    lead = f'<p class="lead">{html.escape(conclusion(found))}</p>'
    return f'<style>{style}</style><div class="edgekit-report notebook">{lead}{parts}</div>'


RENDERERS["text/html"] = notebook_html


def conclusion(found: Difference) -> str:
    """One sentence: are they the same, and how far are their answers apart?"""
    if found.is_identical:
        return "The files are byte for byte the same."
    if not found.outputs:
        return "The files differ; their answers were not compared."
    tried = f"{found.sample_count} inputs"
    if found.answers_alike:
        return f"The files differ, but answer bit for bit the same to {tried}."
    worst = max(found.outputs, key=lambda output: output.relative)
    return f"The answers differ by up to {worst.relative:.2g} of the largest value (output '{worst.first}', {tried})."


def _sections(found: Difference) -> list[tuple[str, list[str]]]:
    files = [f"{letter}: {_file(listing)}" for letter, listing in (("A", found.first), ("B", found.second))]
    graph = [f"{op}: {a} in A, {b} in B" for op, (a, b) in found.operators.items()]
    graph += [_place(change) for change in found.graph[:_SHOWN]]
    graph += [f"and {len(found.graph) - _SHOWN} more places"] if len(found.graph) > _SHOWN else []
    metadata = [f"{key}: {_short(a)} in A, {_short(b)} in B" for key, (a, b) in found.metadata.items()]
    sections = [
        ("Files", files),
        ("Inputs and outputs", list(found.edges)),
        ("Graph", graph),
        ("Constants", _constants(found)),
        ("Metadata", metadata),
        (f"Answers to {found.sample_count} inputs", [_answer(output) for output in found.outputs]),
        ("Notes", list(found.notes)),
    ]
    return [(title, lines) for title, lines in sections if lines]


def _file(listing: Listing) -> str:
    work = f", {listing.macs:,} multiply-accumulates" if listing.macs else ""
    return f"{listing.path}  {listing.format}, {quantities.size(listing.size_bytes)}, {len(listing.operations)} operations{work}"


def _place(change: GraphChange) -> str:
    first, second = ("; ".join(part) or "nothing" for part in (change.first, change.second))
    return f"behind '{change.near or 'the inputs'}': {first} in A, {second} in B"


def _constants(found: Difference) -> list[str]:
    lines = [f"{count} {_RELATIONS[relation]}" for relation, count in found.relations.items()]
    lines += [_change(change) for change in found.constants if change.relation in {"changed", "rescaled"}][:_SHOWN]
    for relation in ("only in A", "only in B"):
        names = [change.first or change.second for change in found.constants if change.relation == relation]
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            lines.append(f"{relation}: {', '.join(names[:_SHOWN])}{more}")
    return lines


def _change(change: ConstantChange) -> str:
    if change.relation == "rescaled":
        return f"{change.first}: same integers, other scales or zero points"
    return f"{change.first}: {change.differing:,} of {change.values:,} values differ, by up to {change.largest:.6g}"


def _answer(output: OutputChange) -> str:
    name = output.first if output.first == output.second else f"{output.first} / {output.second}"
    if output.equal_share == 1:
        return f"{name}: identical"
    snr = f", {output.snr_db:.1f} dB" if output.snr_db is not None else ""
    agree = f", same largest value in {output.agreement:.1%}" if output.agreement is not None else ""
    return f"{name}: up to {output.largest:.4g} apart ({output.relative:.2g} of the largest value){snr}{agree}"


def _short(value: str) -> str:
    return "nothing" if not value else value if len(value) <= 60 else f"{value[:60]}…"
