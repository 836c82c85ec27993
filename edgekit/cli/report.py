"""``edgekit report``: what validating a run found, on the terminal or as a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.options import command, once, run_argument
from edgekit.cli.summaries import summary_options, write_summaries

if TYPE_CHECKING:
    from edgekit.cli.console import Terminal
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

    The run itself holds report.json and report.html. Showing a report always ends with code 0, whatever the verdict.
    """
    from edgekit.core.run import RunFolder
    from edgekit.report import render_terminal, write_html

    folder = RunFolder(run)
    found = read_report(folder)
    if html is not None:
        write_html(found, html)
        terminal.note(f"Wrote {html}")
    write_summaries(found, terminal, junit=junit, markdown=markdown)
    terminal.finish({"report": json.loads(found.to_json())}, lambda console: render_terminal(found, console))


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
