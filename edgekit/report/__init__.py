"""A validation report, and what lies beside it, as terminal table, HTML page, notebook output and JSON document.

Importing this package loads neither rich nor jinja2, and lets notebooks draw every
:class:`~edgekit.core.validation.ValidationReport` and every :class:`~edgekit.core.compressed.Compressed` (see
:data:`edgekit.core.validation.RENDERERS`).
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.core import compressed
from edgekit.core.errors import MissingExtraError
from edgekit.core.files import write_text
from edgekit.core.validation import RENDERERS, ValidationReport

if TYPE_CHECKING:
    import rich.console

    from edgekit.core.history_entry import History

__all__ = ["ValidationReport", "json_schema", "notebook_html", "past_of", "render_terminal", "write_html", "write_json"]


_MOST_PAST = 300
"""Entries that a page looks at; it draws those of its own task and devices."""


def render_terminal(report: ValidationReport, console: rich.console.Console) -> None:
    """Print the report to a terminal, the verdict last."""
    from edgekit.report.terminal import print_report

    print_report(report, console)


def write_json(report: ValidationReport, path: Path) -> None:
    """Write the versioned JSON document (schema: :func:`json_schema`).

    Raises:
        OutputError: The disk is full, or the place cannot be written.
    """
    from edgekit.report import document

    document.write_json(report, path)


def json_schema() -> str:
    """JSON Schema of the document that :func:`write_json` writes."""
    from edgekit.report import document

    return document.json_schema()


def write_html(report: ValidationReport, path: Path, *, run: Path | None = None) -> None:
    """Write one HTML file that needs nothing beside it: no network, no script.

    Args:
        report: What validating found.
        path: The file.
        run: The run folder, whose benchmarks and whose history are drawn as well; None: neither is.

    Raises:
        MissingExtraError: The ``report`` extra is not installed.
        OutputError: The disk is full, or the place cannot be written.
        IntegrityError: A benchmark in the run cannot be read.
    """
    from edgekit.report.bench_view import read_benches
    from edgekit.report.page import page_html

    benches = read_benches(run) if run is not None else ()
    write_text(path, page_html(report, benches=benches, past=past_of(run) if run is not None else None))


def past_of(run: Path) -> History | None:
    """Entries of all runs beside this one; None where there is no history, or where it cannot be read.

    A page of what was found now is worth having without what was before: ``edgekit history`` says what is wrong with it.
    """
    from edgekit.core.errors import EdgekitError
    from edgekit.core.history import history, history_path

    store = history_path(run)
    try:
        return history(store, last=_MOST_PAST) if store is not None and store.is_file() else None
    except EdgekitError:
        return None


def notebook_html(report: ValidationReport) -> str:
    """The report as a piece of HTML for a notebook's output cell.

    Raises:
        MissingExtraError: The ``report`` extra is not installed.
    """
    from edgekit.report import page

    return page.notebook_html(report)


def _shown_in_notebook(report: ValidationReport) -> str:
    """Like :func:`notebook_html`; without its extra, what the terminal shows and how to get more."""
    try:
        return notebook_html(report)
    except MissingExtraError as reason:
        from edgekit.report.terminal import plain_text

        return f"<pre>{html.escape(plain_text(report))}\n{html.escape(str(reason))}</pre>"


def _compressed_in_notebook(made: compressed.Compressed) -> str:
    """What each step did and won; without jinja2 the sentences alone."""
    try:
        from edgekit.report import page

        return page.compressed_html(made)
    except MissingExtraError as reason:
        steps = "\n".join(f"{step.kind}: {step.summary}" for step in made.record.history)
        return f"<pre>{html.escape(steps)}\n{html.escape(str(reason))}</pre>"


RENDERERS["text/html"] = _shown_in_notebook
compressed.RENDERERS["text/html"] = _compressed_in_notebook
