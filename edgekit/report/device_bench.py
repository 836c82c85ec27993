"""Benchmarks of a run's artifacts on devices, in a terminal and in a notebook."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgekit.core.device_bench import RENDERERS, BenchedDevice, RunBench
from edgekit.core.errors import MissingExtraError
from edgekit.core.measurement import Evidence
from edgekit.report import quantities, wording
from edgekit.report.bench_view import BenchView, bench_views

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

__all__ = ["RunBench", "notebook_html", "render_terminal"]

_NARROW = ("latency", "speed", "cold start", "peak memory")
_ROOMY = 140
"""From this width on, every column is shown."""
_MOST_TYPES = 6


def render_terminal(devices: Sequence[BenchedDevice], console: Console) -> None:
    """Print what was timed, device by device."""
    from edgekit.report.terminal_tables import text

    for view in bench_views(devices):
        console.print()
        console.print(text(f"Benchmark on {view.device.profile.title}", style="bold underline"))
        if view.times:
            console.print(_times(view, is_roomy=console.width >= _ROOMY))
        if view.scenarios:
            console.print()
            console.print(text("Scenarios", style="bold"))
            console.print(_scenarios(view, is_roomy=console.width >= _ROOMY))
        for one in view.sustained:
            console.print()
            console.print(text(f"Sustained run of {one.artifact.label}, {one.run.minutes:g} minutes", style="bold"))
            for sentence in one.sentences:
                console.print(text(f"· {sentence}"), soft_wrap=True)
        for artifact, _, remark in view.profiles:
            console.print()
            console.print(text(f"Where the time of {artifact.label} goes", style="bold"))
            for row in artifact.profile.by_type()[:_MOST_TYPES] if artifact.profile else ():
                words = f"{quantities.milliseconds(row.time_ms)}, {quantities.share(row.share, decimals=1)}"
                console.print(text(f"· {row.type} × {row.count}: {words}, {row.kind}"))
            console.print(text(remark, style="dim"), soft_wrap=True)
        if view.audits:
            console.print()
            console.print(text("Audit", style="bold"))
            console.print(_audits(view))
        for label, sentence in view.remarks:
            console.print(text(f"· {label}: {sentence}", style="dim"), soft_wrap=True)


def _times(view: BenchView, *, is_roomy: bool) -> Table:
    from edgekit.report.terminal_tables import plain_table, text

    names = [name for name, *_ in view.times[0].cells if is_roomy or name in _NARROW]
    table = plain_table("artifact", *names, "evidence")
    for row in view.times:
        cells = {name: value for name, value, _, _ in row.cells}
        if row.artifact.failure:
            table.add_row(text(row.artifact.label), *[quantities.NOTHING for _ in names], text("failed", style="bold red"))
            continue
        shown = [text(cells[name] or quantities.NOTHING) for name in names]
        table.add_row(text(row.artifact.label), *shown, _evidence(row.artifact.evidence, row.artifact.target))
    return table


def _evidence(kind: Evidence, target: str) -> Text:
    from edgekit.report.terminal_tables import text

    return text(wording.evidence_label(kind, target), style="dim" if kind is Evidence.MEASURED else "yellow")


def _scenarios(view: BenchView, *, is_roomy: bool) -> Table:
    from edgekit.report.terminal_tables import plain_table, text

    more = ("95 % interval", "queries", "ended") if is_roomy else ()
    table = plain_table("artifact", "scenario", "latency of a query", "throughput", *more, left=("artifact", "scenario", "ended"))
    for row in view.scenarios:
        rest = [text(row.interval or quantities.NOTHING), text(row.queries), text(row.ended)] if is_roomy else []
        style = "yellow" if row.scenario.interference.is_flagged else ""
        table.add_row(text(row.artifact.label), text(row.name), text(row.latency, style=style), text(row.throughput), *rest)
    return table


def _audits(view: BenchView) -> Table:
    from edgekit.report.terminal_tables import plain_table, text

    styles = {"passed": "green", "failed": "bold red", "undecided": "bold yellow"}
    table = plain_table("artifact", "outcome", "question", "found", left=("artifact", "outcome"), fold=("question", "found"))
    for artifact, check, question in view.audits:
        outcome = text(check.outcome, style=styles[check.outcome])
        table.add_row(text(artifact.label), outcome, text(question or check.name), text(check.sentence))
    return table


def notebook_html(found: RunBench) -> str:
    """Tables and figures, as a piece of HTML that brings its own style; without jinja2 what the terminal shows."""
    try:
        from edgekit.report.page import bench_html

        return bench_html(found)
    except MissingExtraError as reason:
        from rich.console import Console

        stream = io.StringIO()
        console = Console(file=stream, width=120, color_system=None, force_terminal=False, legacy_windows=False)
        render_terminal(found.devices, console)
        return f"<pre>{html.escape(stream.getvalue())}\n{html.escape(str(reason))}</pre>"


RENDERERS["text/html"] = notebook_html
