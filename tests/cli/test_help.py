"""Help is quick, complete, and its examples work."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result

from edgekit import cli
from edgekit.cli.options import Command

MEBIBYTE = 2**20
PROBE = """
import json, pathlib, re, sys
from edgekit.cli import main
try:
    main(sys.argv[1:], prog_name="edgekit")
except SystemExit:
    pass
# VmHWM and not ru_maxrss, which counts the parent's memory before exec.
peak_kib = int(re.search(r"VmHWM:\\s*(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
print(json.dumps([peak_kib * 1024, sorted(name for name in sys.modules if "." not in name)]), file=sys.stderr)
"""


def load(name: str) -> Command:
    command = cli.main.get_command(click.Context(cli.main), name)
    assert isinstance(command, Command)
    return command


@pytest.mark.skipif(sys.platform != "linux", reason="reads peak memory from /proc: runs on Linux")
@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in cli.COMMANDS)], ids=" ".join)
def test_help_loads_click_and_little_else(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=True)
    resident_bytes, modules = json.loads(done.stderr)
    assert done.stdout.startswith("Usage: edgekit")
    assert not {"numpy", "pydantic", "rich", "torch", "onnx", "tensorflow", "coremltools"} & set(modules)
    assert resident_bytes <= 40 * MEBIBYTE


def test_every_file_of_a_command_is_a_command() -> None:
    shared = {
        "__init__", "__main__", "chatter", "configuration", "console", "device_tables", "exit_codes", "export_options", "groups",
        "options", "progress", "reading_options", "recipe_flags", "running_options", "summaries",
    }  # fmt: skip
    files = {path.stem for path in Path(cli.__file__).parent.glob("*.py")}
    assert files - shared == set(cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_names_the_shared_options_their_environment_and_ends_with_examples(
    name: str, command_line: Callable[..., Result]
) -> None:
    text = command_line(f"{name} --help").stdout
    assert f"Usage: edgekit {name}" in text
    for word in ("--json", "EDGEKIT_JSON", "--quiet", "--verbose", "--no-progress", "--no-color"):
        assert word in text
    last = text.rstrip().splitlines()[-len(load(name).examples) :]
    assert [line.strip() for line in last] == [f"edgekit {example}" for example in load(name).examples]


def test_help_fits_80_columns_but_for_examples(command_line: Callable[..., Result]) -> None:
    for name in cli.COMMANDS:
        lines = command_line(f"{name} --help").stdout.splitlines()
        assert [line for line in lines if len(line) > 80 and not line.startswith("  edgekit ")] == []


def test_options_name_their_environment_variable(command_line: Callable[..., Result]) -> None:
    assert "EDGEKIT_COMPRESS_RECIPE" in command_line("compress --help").stdout
    assert "EDGEKIT_EXPORT_TARGET" in command_line("export --help").stdout


def test_what_is_asked_for_once_is_not_read_from_the_environment(command_line: Callable[..., Result]) -> None:
    assert "EDGEKIT_COMPRESS_FORCE" not in command_line("compress --help").stdout


def test_completion_knows_the_commands(tmp_path: Path) -> None:
    environment = {"_EDGEKIT_COMPLETE": "bash_complete", "COMP_WORDS": "edgekit com", "COMP_CWORD": "1", "PATH": "/usr/bin"}
    command = [sys.executable, "-m", "edgekit.cli"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path)
    assert done.stdout.strip() == "plain,compress"


def test_version(command_line: Callable[..., Result]) -> None:
    import edgekit

    assert command_line("--version").stdout == f"edgekit {edgekit.__version__}\n"
