"""A sensitivity report in a terminal, as a picture, and in a notebook."""

from __future__ import annotations

import html
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.core.files import write_text
from edgekit.core.sensitivity import RENDERERS, LayerSensitivity, SensitivityReport
from edgekit.report import quantities, svg
from edgekit.report.svg import Scale

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["SensitivityReport", "notebook_html", "picture", "render_terminal", "write_figure"]

_SHOWN = 16
_ROW_PX = 22.0
_HEADINGS = ("layer", "share", "weights", "4-bit", "values", "alone", "operators")
_EXPLANATION = (
    "share: of the noise at the outputs. weights, 4-bit, values (activations): signal to noise at the layer's own output, dB."
    " alone: at the model's outputs with only this layer rounded, dB, measured."
)


def render_terminal(report: SensitivityReport, console: Console) -> None:
    """Print the layers, the worst first."""
    from rich.table import Table

    from edgekit.report.terminal_tables import text

    console.print(text(_title(report), style="bold"))
    console.print(text(_summary(report)), soft_wrap=True)
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for heading in _HEADINGS:
        table.add_column(heading, justify="left" if heading in {"layer", "operators"} else "right", no_wrap=True)
    for row in report.layers[:_SHOWN]:
        table.add_row(*(text(cell) for cell in _cells(row)))
    console.print(table)
    console.print(text(_EXPLANATION, style="dim"), soft_wrap=True)


def picture(report: SensitivityReport, *, width: float = 760) -> str:
    """Bars of each layer's share of the noise at the outputs, weights and activations apart; an SVG. Empty without shares."""
    rows = [row for row in report.layers if row.share][:_SHOWN]
    if not rows:
        return ""
    left = min(max(svg.text_width(row.layer) for row in rows) + 12, width * 0.45)
    x = Scale(low=0, high=max(row.share or 0.0 for row in rows), start=left, end=width - 60)
    parts = [svg.text(0, 12, "share of the noise at the outputs", class_="axis-title")]
    parts += [
        svg.text(left, 12, "weights", class_="coloured hue-1"),
        svg.text(left + 70, 12, "activations", class_="coloured hue-2"),
    ]
    for index, row in enumerate(rows):
        parts += _bar(row, x, top=22 + _ROW_PX * index)
    return svg.figure(parts, width=width, height=28 + _ROW_PX * len(rows), title="which layers make the noise at the outputs")


def write_figure(report: SensitivityReport, path: Path) -> None:
    """Write the picture as one page (``.html``) or as an SVG file with its own colours (``.svg``).

    Raises:
        OutputError: The disk is full, or the place cannot be written.
    """
    if path.suffix == ".svg":
        drawn = picture(report) or svg.figure(
            [svg.text(0, 12, "no gradients: no shares")], width=400, height=20, title="no shares"
        )
        style = svg.element("style", _style())
        head, _, rest = drawn.partition(">")
        write_text(path, f'{head} xmlns="http://www.w3.org/2000/svg" class="edgekit-report">{style}{rest}\n')
        return
    title = html.escape(_title(report))
    write_text(
        path,
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<title>{title}</title><style>{_style()}</style></head>\n<body class="edgekit-report"><main>{_body(report)}</main>'
        "</body></html>\n",
    )


def notebook_html(report: SensitivityReport) -> str:
    """The report as a piece of HTML for a notebook's output cell."""
    return f'<style>{_style()}</style><div class="edgekit-report notebook">{_body(report)}</div>'


RENDERERS["text/html"] = notebook_html


def _bar(row: LayerSensitivity, x: Scale, *, top: float) -> list[str]:
    """One layer's bar: the part of its weights, then of its activations."""
    weights, values = (
        10 ** (-db / 10) if db is not None else 0.0 for db in (row.weights_output_snr_db, row.activations_output_snr_db)
    )
    share = row.share or 0.0
    split = share * weights / (weights + values) if weights + values else 0.0
    middle, end = x(split), x(share)
    tip = f"{row.layer} ({row.op}): {quantities.share(share)} of the noise"
    height = _ROW_PX - 8
    return [
        svg.text(0, top + height - 2, row.layer, class_="name"),
        svg.element(
            "g", svg.rectangle(x.start, top, max(middle - x.start, 0.0), height, class_="dot hue-1", tip=tip), class_="hue-1"
        ),
        svg.element("g", svg.rectangle(middle, top, max(end - middle, 0.5), height, class_="dot hue-2", tip=tip), class_="hue-2"),
        svg.text(end + 6, top + height - 2, f"{share:.0%}", class_="tick"),
    ]


def _title(report: SensitivityReport) -> str:
    return f"{report.task}: sensitivity of its layers to {report.recipe}"


def _summary(report: SensitivityReport) -> str:
    whole = report.predicted_snr_db
    known = f"{whole:.1f} dB at the outputs with every layer rounded to nearest, added up" if whole is not None else (
        "no gradients reach the layers, so only their own noise is known"
    )  # fmt: skip
    return f"{len(report.layers)} layers, {report.sample_count} samples; {known}"


def _cells(row: LayerSensitivity) -> Sequence[str]:
    decibels = (row.weights_snr_db, row.narrow_weights_snr_db, row.activations_snr_db, row.checked_snr_db)
    written = ["" if value is None else f"{value:.1f}" for value in decibels]
    return (row.layer, "" if row.share is None else f"{row.share:.1%}", *written, row.op)


def _style() -> str:
    return resources.files("edgekit.report").joinpath("report.css").read_text(encoding="utf-8")


def _body(report: SensitivityReport) -> str:
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in _HEADINGS)
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(row)) + "</tr>" for row in report.layers)
    return (
        f'<h1>{html.escape(_title(report))}</h1><p class="meta">{html.escape(_summary(report))}</p>'
        f"<figure>{picture(report)}</figure>"
        f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        f'<p class="lead">{html.escape(_EXPLANATION)}</p>'
    )
