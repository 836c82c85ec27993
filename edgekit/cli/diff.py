"""``edgekit diff``: what tells two model files, or two runs, apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.options import command, option

if TYPE_CHECKING:
    from rich.console import Console

    from edgekit.cli.console import Terminal
    from edgekit.core.difference import Difference

__all__ = ["diff"]


@command(
    examples=[
        "diff runs/watch/artifacts/onnx/model.onnx runs/watch/artifacts/tflite/model.tflite",
        "diff runs/watch/artifacts/coreml/model.mlpackage runs/watch/compressed/program.pt2 --samples 4 --json",
        "diff runs/watch runs/watch --samples 0",
    ]
)
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@option("--samples", type=click.IntRange(min=0), default=8, show_default=True,
        help="Run both on so many random inputs; 0: run nothing.")  # fmt: skip
@option("--inputs", type=click.Path(path_type=Path, dir_okay=False),
        help="Inputs to run both on: .npz, arrays [S, *shape] by input name of FIRST.")  # fmt: skip
def diff(terminal: Terminal, /, first: Path, second: Path, samples: int, inputs: Path | None) -> None:
    """Show what tells FIRST from SECOND: graph, constants, metadata, and what they answer to the same inputs.

    Both are model files of any format, or both are run folders, whose artifacts are compared one by one. Constants are
    matched across formats by their numbers, whatever their axis order.
    """
    from edgekit import inspection
    from edgekit.core.run import RunFolder

    given = inspection.read_samples(inputs) if inputs else None
    with terminal.working() as progress:
        progress("compare", 0, None)
        if all(RunFolder(path).manifest_path.is_file() for path in (first, second)):
            found = inspection.diff_runs(first, second, sample_count=samples, samples=given, progress=progress, log=terminal.log)
        else:
            found = {"": inspection.diff(first, second, sample_count=samples, samples=given, log=terminal.log)}
    document = {"differences": {label: json.loads(one.to_json()) for label, one in found.items()}}
    terminal.finish(document, lambda console: _print(found, console))


def _print(found: dict[str, Difference], console: Console) -> None:
    from edgekit.report.difference import render_terminal

    for label, difference in found.items():
        if label:
            console.rule(label)
        render_terminal(difference, console)
