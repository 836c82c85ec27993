"""A sweep in a terminal, as a page, and in a notebook."""

from __future__ import annotations

import html
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.core.files import write_text
from edgekit.core.sweep import RENDERERS, SweepPoint, SweepReport
from edgekit.report import quantities
from edgekit.report.figure_sweep import against_latency, against_size

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["SweepReport", "notebook_html", "render_terminal", "write_page"]

_HEADINGS = ("", "point", "metric", "change", "95 % interval", "MACs", "parameters", "size", "latency ms", "speed-up")
_IF_ROOMY = {"95 % interval", "MACs", "parameters"}
_ROOMY_COLUMNS = 110
_EXPLANATION = (
    "*: on the front: no other point is at least as good in metric, size and speed-up, and better in one. change: points of the"
    " metric against the dense program, same samples. speed-up: over the dense program's file, timed in turn."
)


def render_terminal(report: SweepReport, console: Console) -> None:
    """Print the points in the order of their ratios, the front marked."""
    from rich.table import Table

    from edgekit.report.terminal_tables import text

    console.print(text(_title(report), style="bold"))
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    shown = [at for at, heading in enumerate(_HEADINGS) if console.width >= _ROOMY_COLUMNS or heading not in _IF_ROOMY]
    for at in shown:
        table.add_column(_HEADINGS[at], justify="left" if _HEADINGS[at] in {"", "point"} else "right", no_wrap=True)
    for point in report.points:
        style = "bold" if point.on_front else "" if point.stage else "dim"
        cells = _cells(point)
        table.add_row(*(text(cells[at], style=style) for at in shown))
    console.print(table)
    for sentence in _remarks(report):
        console.print(text(sentence), soft_wrap=True)
    console.print(text(f"{_EXPLANATION} {_evidence(report)}", style="dim"), soft_wrap=True)


def write_page(report: SweepReport, path: Path) -> None:
    """Write table and pictures as one page that needs nothing beside it.

    Raises:
        OutputError: The disk is full, or the place cannot be written.
    """
    title = html.escape(_title(report))
    write_text(
        path,
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<title>{title}</title><style>{_style()}</style></head>\n<body class="edgekit-report"><main>{_body(report)}</main>'
        "</body></html>\n",
    )


def notebook_html(report: SweepReport) -> str:
    """The report as a piece of HTML for a notebook's output cell."""
    return f'<style>{_style()}</style><div class="edgekit-report notebook">{_body(report)}</div>'


RENDERERS["text/html"] = notebook_html


def _title(report: SweepReport) -> str:
    count = sum(point.ratio is not None for point in report.points)
    return f"{report.task}: {count} pruning ratios with {report.recipe['name']}, judged as {report.target} on {report.device}"


def _cells(point: SweepPoint) -> Sequence[str]:
    mark, stage = "*" if point.on_front else "", point.stage
    if stage is None:
        return (mark, point.label, *["–"] * (len(_HEADINGS) - 2))
    cells = [mark, point.label, quantities.share(stage.metric)]
    if point.ratio is None and stage.label == "dense":
        cells += ["", ""]
    else:
        low, high = stage.change_interval or (None, None)
        interval = f"{_points(low)} to {_points(high)}" if stage.change_interval else ""
        cells += [_points(stage.change), interval]
    cells += [f"{stage.macs:,}", f"{stage.parameter_count:,}"]
    if stage.timed is None:
        return (*cells, "", "", "")
    timed = stage.timed
    cells += [quantities.size(timed.size_bytes), quantities.significant(timed.latency.value), quantities.ratio(timed.speedup)]
    return cells


def _points(change: float | None) -> str:
    return quantities.points(None if change is None else 100 * change, signed=True)


def _remarks(report: SweepReport) -> list[str]:
    failures = [f"{point.label}: {point.failure}" for point in report.points if point.failure]
    said = [f"{point.label}: {point.stage.remark}" for point in report.points if point.stage and point.stage.remark]
    return [*failures, *said]


def _evidence(report: SweepReport) -> str:
    kinds = sorted({point.stage.timed.evidence.value for point in report.points if point.stage and point.stage.timed})
    return f"Latency: {', '.join(kinds)}." if kinds else "No file was timed."


def _style() -> str:
    return resources.files("edgekit.report").joinpath("report.css").read_text(encoding="utf-8")


def _body(report: SweepReport) -> str:
    head = "".join(f"<th{_side(heading)}>{html.escape(heading)}</th>" for heading in _HEADINGS)
    rows = "".join(
        "<tr>"
        + "".join(f"<td{_side(name)}>{html.escape(cell)}</td>" for name, cell in zip(_HEADINGS, _cells(point), strict=True))
        + "</tr>"
        for point in report.points
    )
    figures = "".join(
        f"<figure>{drawn}</figure>" for draw in (against_latency, against_size) if (drawn := draw(report, width=560))
    )
    remarks = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in _remarks(report))
    return (
        f'<h1>{html.escape(_title(report))}</h1><div class="pair">{figures}</div>'
        '<p class="lead">Blue and joined: on the front. Hollow: not pruned. Whiskers: 95 % interval of the change.</p>'
        f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        f"{f'<ul>{remarks}</ul>' if remarks else ''}"
        f'<p class="lead">{html.escape(_EXPLANATION)} {html.escape(_evidence(report))}</p>'
    )


def _side(heading: str) -> str:
    return "" if heading in {"", "point"} else ' class="number"'
