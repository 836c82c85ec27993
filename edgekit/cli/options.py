"""What all commands share: their options, their help, and how they are called."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from edgekit.cli.exit_codes import TERMINAL_KEY, Terminated

__all__ = ["Command", "command", "once", "option", "run_argument"]

option = functools.partial(click.option, show_envvar=True)
"""``click.option`` whose help names its environment variable."""

once = functools.partial(click.option, allow_from_autoenv=False)
"""``click.option`` for what is asked for one call at a time, and never by the environment."""

run_argument = click.argument("run", type=click.Path(path_type=Path))
"""The run folder a command works on."""

_SHARED = ("as_json", "quiet", "verbose", "progress", "color")


def _shared_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["--json", "as_json"], is_flag=True, envvar="EDGEKIT_JSON", show_envvar=True,
            help="Print one JSON document on stdout, everything else on stderr.",
        ),
        click.Option(
            ["-q", "--quiet"], is_flag=True, envvar="EDGEKIT_QUIET", show_envvar=True,
            help="Print errors only.",
        ),
        click.Option(
            ["-v", "--verbose"], is_flag=True, envvar="EDGEKIT_VERBOSE", show_envvar=True,
            help="Also show what the frameworks print; it is always kept in the run's log.txt.",
        ),
        click.Option(
            ["--progress/--no-progress"], default=True, envvar="EDGEKIT_PROGRESS", show_envvar=True,
            help="Show progress on stderr.",
        ),
        click.Option(
            ["--color/--no-color"], default=None, envvar="EDGEKIT_COLOR", show_envvar=True,
            help="Use colours; by default where the terminal has them and NO_COLOR is not set.",
        ),
    ]  # fmt: skip


class Command(click.Command):
    """A command with the shared options, whose help ends with examples; its function gets a ``Terminal`` first.

    Args:
        examples: Command lines without the leading ``edgekit``. A test runs each of them.
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        self.params += _shared_options()

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options, then those all commands share."""
        records = [
            (parameter.name, parameter.get_help_record(ctx))
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option)
        ]
        shared = {*_SHARED, "help"}
        for title, is_shared in (("Options", False), ("Options of all commands", True)):
            rows = [record for name, record in records if record is not None and (name in shared) is is_shared]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  click's signature
        """Write the examples, each on a line of its own."""
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"{'':>{formatter.current_indent}}edgekit {example}\n")

    def invoke(self, ctx: click.Context) -> Any:
        """Build the terminal from the shared options, then call the command's function."""
        from edgekit.cli.configuration import refuse_unknown_settings
        from edgekit.cli.console import Terminal

        refuse_unknown_settings(ctx)
        shared = {name: ctx.params.pop(name) for name in _SHARED}
        if shared["color"] is None and os.environ.get("NO_COLOR"):  # https://no-color.org
            shared["color"] = False
        ctx.find_root().color = ctx.color = shared["color"]
        name = ctx.command_path.removeprefix(f"{ctx.find_root().command_path} ")
        ctx.obj = ctx.meta[TERMINAL_KEY] = Terminal(command=name, **shared)
        with _ending_on_sigterm():
            return super().invoke(ctx)


@contextlib.contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


def command(*, examples: Sequence[str], **attributes: Any) -> Callable[[Callable[..., Any]], Command]:
    """Make a function that takes a ``Terminal`` first into a command.

    Args:
        examples: Command lines without the leading ``edgekit``.
        attributes: As for ``click.command``.
    """

    def make(function: Callable[..., Any]) -> Command:
        return click.command(cls=Command, examples=examples, **attributes)(click.pass_obj(function))

    return make
