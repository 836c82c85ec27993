"""What ``validate`` and ``report`` write for continuous integration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.options import once

if TYPE_CHECKING:
    from edgekit.cli.console import Terminal
    from edgekit.core.validation import ValidationReport

__all__ = ["summary_options", "write_summaries"]


def summary_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--junit`` and ``--markdown``."""
    markdown = once("--markdown", type=click.Path(path_type=Path, dir_okay=False),
                    help="Also write the verdict as GitHub-flavoured Markdown, for a pull request or a job summary.")  # fmt: skip
    junit = once("--junit", type=click.Path(path_type=Path, dir_okay=False),
                 help="Also write the gates as JUnit XML, a test for each.")  # fmt: skip
    return junit(markdown(function))


def write_summaries(report: ValidationReport, terminal: Terminal, *, junit: Path | None, markdown: Path | None) -> None:
    """Write what was asked for."""
    if junit is not None:
        from edgekit.report.junit import write_junit

        write_junit(report, junit)
        terminal.note(f"Wrote {junit}")
    if markdown is not None:
        from edgekit.report.markdown import write_markdown

        write_markdown(report, markdown)
        terminal.note(f"Wrote {markdown}")
