"""Every example a help text shows is run, in the order a newcomer would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result

from edgekit import cli
from edgekit.cli.options import Command

SHIPS_OR_NOT = {"validate", "demo"}
"""Commands whose code says whether the verdict is SHIP: untrained nets are allowed to miss a gate here."""


def examples_of(name: str) -> tuple[str, ...]:
    command = cli.main.get_command(click.Context(cli.main), name)
    assert isinstance(command, Command)
    return command.examples


def test_every_command_has_examples() -> None:
    assert [name for name in cli.COMMANDS if not examples_of(name)] == []


@pytest.mark.slow
def test_all_examples_run(command_line: Callable[..., Result], write_task: Callable[..., Path], tmp_path: Path) -> None:
    write_task()
    road = list(dict.fromkeys([*cli.EXAMPLES, *(example for name in cli.COMMANDS for example in examples_of(name))]))
    for example in road:
        result = command_line(example)
        allowed = {0, 1} if example.split()[0] in SHIPS_OR_NOT else {0}
        assert result.exit_code in allowed, f"edgekit {example}\n{result.output}"
    assert (tmp_path / "watch.html").is_file()
    assert (tmp_path / "runs" / "watch" / "report.html").is_file()
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"watch", "few", "demo"}
