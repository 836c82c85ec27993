"""Every example a help text shows is run, and so is every command of the command line's own pages."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result

from edgekit import cli
from edgekit.cli.options import Command
from tests.cli.conftest import Road

DOCS = Path(__file__).parents[2] / "docs"
JUDGES = {"validate", "demo", "exactness"}
"""Commands that end with 1 here: an untrained net on 32 samples cannot pass every gate, nor is it compressed with int8-exact."""


def examples_of(name: str) -> tuple[str, ...]:
    command = cli.main.get_command(click.Context(cli.main), name)
    assert isinstance(command, Command)
    return command.examples


def expected_code(line: str) -> int:
    return int(line.split(maxsplit=1)[0] in JUDGES and "--dry-run" not in line)


@pytest.mark.slow
@pytest.mark.parametrize("line", cli.EXAMPLES)
def test_the_road_in_the_programs_own_help(line: str, road: Road) -> None:
    assert road.results[line].exit_code == expected_code(line), road.results[line].output


@pytest.mark.slow
@pytest.mark.parametrize("name", cli.COMMANDS)
def test_examples_of_a_command(name: str, walked: Callable[..., Result]) -> None:
    assert examples_of(name), f"edgekit {name} --help shows no example"
    for line in examples_of(name):
        force = " --force" if line.startswith(("compress", "demo")) and "--force" not in line else ""
        result = walked(line + force)
        assert result.exit_code == expected_code(line), f"edgekit {line}\n{result.output}"


@pytest.mark.slow
@pytest.mark.parametrize("page", ["cli.md", "errors.md"])
def test_commands_of_a_page(page: str, walked: Callable[..., Result], tmp_path: Path) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    for name, content in re.findall(r"^```toml\n# ([\w.-]+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        (tmp_path / name).write_text(content)
    blocks = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    commands = [part.partition("\n") for block in blocks for part in re.split(r"^\$ edgekit ", block, flags=re.MULTILINE)[1:]]
    assert commands
    for line, _, shown in commands:
        result = walked(line)
        assert result.exit_code == (2 if "Error:" in shown else expected_code(line)), f"edgekit {line}\n{result.output}"
        pattern = re.escape(" ".join(shown.split())).replace("…", ".*")
        assert re.fullmatch(pattern or ".*", " ".join(result.output.split())), f"edgekit {line} printed\n{result.output}"


def test_every_exit_code_is_on_the_page() -> None:
    from edgekit.cli.exit_codes import ExitCode

    text = (DOCS / "errors.md").read_text(encoding="utf-8")
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)] == [code.value for code in ExitCode]


def test_every_error_is_on_the_page() -> None:
    from edgekit.core import errors

    text = (DOCS / "errors.md").read_text(encoding="utf-8")
    assert [name for name in errors.__all__ if name.endswith("Error") and name not in text] == []
