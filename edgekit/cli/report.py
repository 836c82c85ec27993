"""``edgekit report``: what validating a run found, on the terminal or as a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.options import command, once, run_argument
from edgekit.cli.summaries import summary_options, write_summaries

if TYPE_CHECKING:
    from rich.console import Console

    from edgekit.cli.console import Terminal
    from edgekit.core.device_bench import BenchedDevice
    from edgekit.core.run import RunFolder
    from edgekit.core.validation import ValidationReport

__all__ = ["report"]


@command(
    examples=[
        "report runs/watch",
        "report runs/watch --html watch.html",
        "report runs/watch --junit watch.xml --markdown watch.md",
        "report runs/watch --json",
    ]
)
@run_argument
@once("--html", type=click.Path(path_type=Path, dir_okay=False), help="Also write the HTML page to this file.")
@summary_options
def report(terminal: Terminal, /, run: Path, html: Path | None, junit: Path | None, markdown: Path | None) -> None:
    """Show what validating RUN found.

    Benchmarks that lie in the run are shown as well, and in the page also what the history knows of the runs before. The run
    itself holds report.json and report.html. Showing a report always ends with code 0, whatever the verdict.
    """
    from edgekit.core.device_bench import RunBench
    from edgekit.core.run import RunFolder
    from edgekit.report import render_terminal, write_html
    from edgekit.report.bench_terminal import render_terminal as render_benches
    from edgekit.report.bench_view import read_benches

    folder = RunFolder(run)
    folder.manifest()
    benches = read_benches(run)
    if benches and not (run / "report.json").is_file() and junit is None and markdown is None:
        _report_benches(terminal, folder, benches, html)
        return
    found = read_report(folder)
    if html is not None:
        write_html(found, html, run=run)
        terminal.note(f"Wrote {html}")
    write_summaries(found, terminal, junit=junit, markdown=markdown)

    def render(console: Console) -> None:
        if benches:
            render_benches(RunBench(run=run.resolve().name, devices=benches), console)
        render_terminal(found, console)

    timed = {"bench": [json.loads(bench.to_json()) for bench in benches]} if benches else {}
    terminal.finish({"report": json.loads(found.to_json()), **timed}, render)


def _report_benches(terminal: Terminal, run: RunFolder, benches: Sequence[BenchedDevice], html: Path | None) -> None:
    """Benchmarks of a run that was not validated."""
    from edgekit.core.device_bench import RunBench
    from edgekit.core.files import write_text
    from edgekit.report import past_of
    from edgekit.report.bench_terminal import render_terminal
    from edgekit.report.page import bench_page_html

    if html is not None:
        write_text(html, bench_page_html(run.manifest().name, benches, past=past_of(run.path)))
        terminal.note(f"Wrote {html}")
    terminal.note(f"{run.path} was timed and not validated yet: edgekit validate {run.path} --device host")
    document = {"bench": [json.loads(bench.to_json()) for bench in benches]}
    terminal.finish(document, lambda console: render_terminal(RunBench(run=run.path.name, devices=tuple(benches)), console))


def read_report(run: RunFolder) -> ValidationReport:
    """The run's ``report.json``.

    Raises:
        UsageError: The folder is not a run, or was not validated yet.
        IntegrityError: The report cannot be read.
    """
    from edgekit.core.errors import UsageError
    from edgekit.core.validation import ValidationReport

    run.manifest()
    path = run.path / "report.json"
    if not path.is_file():
        raise UsageError(f"{run.path} has no report yet. Make one with: edgekit validate {run.path} --device host")
    return ValidationReport.read_json(path)
