"""The terminal: results on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from edgekit.cli.chatter import chatter_to, following

if TYPE_CHECKING:
    from rich.console import Console

    from edgekit.core.plugins import Progress
    from edgekit.core.run import RunFolder

__all__ = ["Terminal"]


class Terminal:
    """What a command writes to.

    Args:
        command: Name of the command, for the JSON document.
        as_json: The result is one JSON document on stdout.
        quiet: Nothing but errors (and the JSON document, where one was asked for).
        verbose: What frameworks print is shown as well as logged.
        progress: Progress is shown.
        color: Colours; None means where the stream is a terminal and ``NO_COLOR`` is not set.
    """

    def __init__(self, *, command: str, as_json: bool, quiet: bool, verbose: bool, progress: bool, color: bool | None) -> None:
        self.command = command
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose
        self.progress = progress and not quiet
        self.color = color
        self.log: Path | None = None
        """Log of the run that is being worked on."""

    def console(self, stream: TextIO) -> Console:
        """A rich console on ``stream`` that follows the colour setting."""
        from rich.console import Console

        if self.color is None:
            return Console(file=stream, highlight=False)
        if not self.color:
            return Console(file=stream, highlight=False, color_system=None)
        return Console(file=stream, highlight=False, color_system="auto" if stream.isatty() else "truecolor")

    def note(self, text: str) -> None:
        """One line on stderr, unless quiet."""
        if not self.quiet:
            click.echo(text, err=True)

    def note_report(self, run: RunFolder) -> None:
        """Where a run's report lies; how to get the page where it could not be made."""
        page = run.path / "report.html"
        without = f"{run.path / 'report.json'} (for the page: pip install 'edgekit[report]')"
        self.note(f"Report: {page if page.is_file() else without}")

    def finish(self, document: Mapping[str, Any], render: Callable[[Console], None]) -> None:
        """Show the result on stdout: the document with ``--json``, else what ``render`` draws, unless quiet."""
        if self.as_json:
            head = {"schema_version": 1, "command": self.command, "ok": True}
            click.echo(json.dumps({**head, **document}, indent=2, ensure_ascii=False, default=str))
        elif not self.quiet:
            render(self.console(sys.stdout))

    @contextlib.contextmanager
    def working(self, run: RunFolder | None = None) -> Iterator[Progress]:
        """Yield a progress function; meanwhile what frameworks and task files print goes to a log.

        Args:
            run: The run that is worked on, whose log it is. None while the run is still to be made: then
                :meth:`keep_log` moves what was collected into it.
        """
        with _log_of(run) as self.log, contextlib.ExitStack() as stack:
            stream = stack.enter_context(chatter_to(self.log))
            if self.verbose:
                stack.enter_context(following(self.log, stream))
            yield stack.enter_context(self._progress(stream))

    def keep_log(self, run: RunFolder) -> None:
        """Append what was collected so far to the log of a run that has just been made."""
        if self.log is not None:
            with run.log.open("ab") as kept:
                kept.write(self.log.read_bytes())

    def _progress(self, stream: TextIO) -> contextlib.AbstractContextManager[Progress]:
        from edgekit.cli.progress import bars, lines
        from edgekit.core.plugins import silent

        if not self.progress:
            return contextlib.nullcontext(silent)
        draws = stream.isatty() and not self.verbose and os.environ.get("TERM") != "dumb"
        return bars(self.console(stream)) if draws else lines(self.console(stream))


@contextlib.contextmanager
def _log_of(run: RunFolder | None) -> Iterator[Path]:
    if run is not None:
        yield run.log
        return
    with tempfile.TemporaryDirectory(prefix="edgekit-log-") as folder:
        yield Path(folder, "log.txt")
