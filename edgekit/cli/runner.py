"""``edgekit runner``: the C++ program that runs models where there is no Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from edgekit.cli.options import command, once

if TYPE_CHECKING:
    from rich.console import Console

    from edgekit.cli.console import Terminal

__all__ = ["runner"]


@command(examples=["runner build", "runner path --json"])
@click.argument("action", type=click.Choice(["build", "path"]))
@once("--target", type=click.Choice(["host", "aarch64"]), default="host", show_default=True,
      help="Where the program is to run: this machine, or 64-bit Arm Linux.")  # fmt: skip
@once("-o", "--output", type=click.Path(path_type=Path, dir_okay=False),
      help="Copy the program to this file.")  # fmt: skip
def runner(
    terminal: Terminal, /, action: Literal["build", "path"], target: Literal["host", "aarch64"], output: Path | None
) -> None:
    """Build edgekit-runner with CMake, or say where it lies.

    The program runs and times a .tflite, .onnx or .ort file with the runtime's shared library, on a device without Python. It is
    built once for each version of its sources and kept in the user's cache. For Android see docs/native-runner.md.
    """
    from edgekit.core.errors import UsageError
    from edgekit.core.files import sha256, write_bytes
    from edgekit.runtimes.native import build

    place = build.build_runner(target) if action == "build" else build.runner_path(target)
    if output is not None:
        if not place.is_file():
            raise UsageError(f"The program for {target} is not built yet. Build it with: edgekit runner build --target {target}")
        write_bytes(output, place.read_bytes())
        output.chmod(0o755)
    facts: dict[str, Any] = {"target": target, "path": str(output or place), "is_built": place.is_file()}
    if place.is_file():
        facts |= {"sha256": sha256(place), "size_bytes": place.stat().st_size}
    terminal.finish(facts, lambda console: _print(console, facts))


def _print(console: Console, facts: dict[str, Any]) -> None:
    from rich.text import Text

    console.print(Text(facts["path"]), soft_wrap=True)
    if not facts["is_built"]:
        console.print(f"not built yet: edgekit runner build --target {facts['target']}", style="dim", highlight=False)
