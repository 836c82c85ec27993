"""A command with commands of its own, as ``edgekit devices add``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import click

from edgekit.cli.options import Command

__all__ = ["Group", "group"]


class Group(Command, click.Group):
    """Commands under one name, one of which is meant where none is named; words that name none are that one's arguments.

    Args:
        default: Name of that command.
    """

    def __init__(self, *args: Any, default: str, **kwargs: Any) -> None:
        super().__init__(*args, invoke_without_command=True, subcommand_metavar="[COMMAND] [WORDS]...", **kwargs)
        self.default = default

    def add(self, *, examples: Sequence[str], **attributes: Any) -> Callable[[Callable[..., Any]], Command]:
        """Make a function that takes a ``Terminal`` first into one of the commands; as :func:`edgekit.cli.options.command`."""

        def make(function: Callable[..., Any]) -> Command:
            made = click.command(cls=Command, examples=examples, **attributes)(click.pass_obj(function))
            self.add_command(made)
            return made

        return make

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Options that are not the group's own are the default command's."""
        known = {name for parameter in self.get_params(ctx) for name in (*parameter.opts, *parameter.secondary_opts)}
        first = next((index for index, word in enumerate(args) if word not in known), None)
        if first is not None and args[first].startswith("-"):
            args = [*args[:first], self.default, *args[first:]]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands before the options."""
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names, else the default one with all words."""
        if ctx.obj is not None:  # None while a shell completes
            shared = {name: getattr(ctx.obj, name) for name in ("as_json", "quiet", "verbose", "progress", "color")}
            ctx.default_map = dict.fromkeys(self.commands, shared)  # given before a command's name, they are its own as well
        if args[0] not in self.commands:
            return self.default, self.commands[self.default], args
        return super().resolve_command(ctx, args)


def group(*, default: str, examples: Sequence[str], **attributes: Any) -> Callable[[Callable[..., Any]], Group]:
    """Make a function that takes a ``Terminal`` into a group; it does what is done where nothing more is said.

    Args:
        default: The command whose arguments words are that name no command.
        examples: Command lines without the leading ``edgekit``. A test runs each of them.
        attributes: As for ``click.group``.
    """

    def make(function: Callable[..., Any]) -> Group:
        @click.command(cls=Group, default=default, examples=examples, **attributes)
        @click.pass_context
        @functools.wraps(function)
        def invoke(ctx: click.Context) -> None:
            if ctx.invoked_subcommand is None:
                function(ctx.obj)

        return invoke

    return make
