"""A calibration report in a terminal, as one HTML page, and in a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.core.calibration import RENDERERS, CalibrationReport, CurvePoint, TensorRange
from edgekit.core.files import write_text
from edgekit.report import quantities
from edgekit.report.figure_calibration import convergence

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["CalibrationReport", "notebook_html", "render_terminal", "write_html"]

_SHOWN_TENSORS = 12
_SHOWN_POINTS = 8
_TENSOR_HEADINGS = ("tensor", "range", "tail", "settled", "dead")
_PAGE = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    '<title>{title}</title><style>{style}</style></head>\n<body class="edgekit-report"><main>{body}</main></body></html>\n'
)


def render_terminal(report: CalibrationReport, console: Console) -> None:
    """Print how the scales settle, the tensors worth a look, and the findings."""
    from edgekit.report.terminal_tables import text

    console.print(text(f"{report.task}: calibration data, estimator {report.estimator}", style="bold"))
    console.print(text(_counts(report)))
    console.print()
    console.print(text(settled(report), style="bold green" if report.stable_after is not None else "bold yellow"))
    _print_table(console, ["samples", "largest", "median", "tensor"], _curve_rows(report), left={"tensor"})
    shown = noteworthy(report.tensors)
    console.print()
    console.print(text(f"Tensors ({len(shown)} of {len(report.tensors)}, the widest tails first)", style="bold"))
    _print_table(console, _TENSOR_HEADINGS, _tensor_rows(shown), left={"tensor"})
    console.print(text("tail: largest magnitude over the one that 99.9 % of the values stay below", style="dim"))
    console.print()
    for finding in report.findings:
        style = "bold red" if finding.serious else "bold yellow"
        console.print(text("SERIOUS" if finding.serious else "advice", style=style), text(finding.message), soft_wrap=True)
    if not report.findings:
        console.print(text("Nothing to complain about.", style="green"))


def settled(report: CalibrationReport) -> str:
    """The sentence that answers how many samples are needed."""
    if report.stable_after is None:
        return f"Not stable yet: scales still moved by more than {report.tolerance:.0%} in the last of the samples."
    samples = "1 sample" if report.stable_after == 1 else f"{report.stable_after} samples"
    return f"Stable after {samples}: from there to the end no scale is more than {report.tolerance:.0%} off its final value."


def noteworthy(tensors: Sequence[TensorRange]) -> list[TensorRange]:
    """The tensors with the widest tails, and those with dead channels."""
    ranked = sorted(tensors, key=lambda one: (-one.outlier_ratio, -len(one.dead_channels)))
    return ranked[:_SHOWN_TENSORS]


def write_html(report: CalibrationReport, path: Path) -> None:
    """Write one HTML file that needs nothing beside it: no network, no script.

    Raises:
        OutputError: The disk is full, or the place cannot be written.
    """
    title = html.escape(f"{report.task}: calibration data")
    write_text(path, _PAGE.format(title=title, style=_style(), body=_body(report)))


def notebook_html(report: CalibrationReport) -> str:
    """The report as a piece of HTML for a notebook's output cell."""
    return f'<style>{_style()}</style><div class="edgekit-report notebook">{_body(report)}</div>'


RENDERERS["text/html"] = notebook_html


def _style() -> str:
    return resources.files("edgekit.report").joinpath("report.css").read_text(encoding="utf-8").strip()


def _counts(report: CalibrationReport) -> str:
    beside = f", compared with {report.evaluation_count} evaluation samples" if report.evaluation_count else ""
    return f"{report.sample_count} samples, {len(report.tensors)} tensors{beside}"


def _curve_rows(report: CalibrationReport) -> Iterator[list[str]]:
    for point in _thinned(report.curve):
        yield [str(point.sample_count), f"{point.largest_change:.1%}", f"{point.median_change:.1%}", point.tensor]


def _thinned(curve: Sequence[CurvePoint]) -> list[CurvePoint]:
    """A few points, at counts that double, and the last."""
    wanted = {curve[-1].sample_count >> power for power in range(_SHOWN_POINTS)} if curve else set()
    return [point for point, after in zip(curve, [*curve[1:], None], strict=True)
            if after is None or any(point.sample_count <= count < after.sample_count for count in wanted)]  # fmt: skip


def _tensor_rows(tensors: Sequence[TensorRange]) -> Iterator[list[str]]:
    for one in tensors:
        dead = f"{len(one.dead_channels)} of {one.channel_count}" if one.channel_count is not None else quantities.NOTHING
        yield [
            one.name,
            f"{one.low:.3g} to {one.high:.3g}",
            f"{one.outlier_ratio:.1f}x",
            str(one.settled_after),
            dead,
        ]


def _print_table(console: Console, headings: Sequence[str], rows: Iterator[list[str]], *, left: set[str]) -> None:
    from rich.table import Table

    from edgekit.report.terminal_tables import text

    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="left" if heading in left else "right", no_wrap=heading not in left, overflow="fold")
    for row in rows:
        table.add_row(*(text(cell) for cell in row))
    console.print(table)


def _body(report: CalibrationReport) -> str:
    findings = [
        f'<tr class="{"fail" if finding.serious else "open"}"><td class="outcome {"fail" if finding.serious else "open"}">'
        f"{'serious' if finding.serious else 'advice'}</td><td>{html.escape(finding.message)}</td></tr>"
        for finding in report.findings
    ]
    none = "<p>Nothing to complain about.</p>"
    return "".join(
        [
            f"<h1>{html.escape(report.task)}: calibration data</h1>",
            f'<p class="meta">{html.escape(_counts(report))}, estimator {html.escape(report.estimator)}</p>',
            f"<h2>{html.escape(settled(report))}</h2>",
            f"<figure>{convergence(report, width=760)}</figure>",
            "<h2>Findings</h2>",
            f'<div class="table"><table class="gates"><tbody>{"".join(findings)}</tbody></table></div>' if findings else none,
            "<h2>Tensors</h2>",
            '<p class="lead">Tail: the largest magnitude over the one that 99.9 % of the values stay below. Settled: samples'
            " after which the scale stays near its final value. Dead: channels that never change.</p>",
            _table(_TENSOR_HEADINGS, _tensor_rows(_by_tail(report.tensors))),
        ]
    )


def _by_tail(tensors: Sequence[TensorRange]) -> list[TensorRange]:
    return sorted(tensors, key=lambda one: -one.outlier_ratio)


def _table(headings: Sequence[str], rows: Iterator[list[str]]) -> str:
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
