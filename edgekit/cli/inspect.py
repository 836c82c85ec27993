"""``edgekit inspect``: what a model file holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.options import command, option

if TYPE_CHECKING:
    from edgekit.cli.console import Terminal

__all__ = ["inspect"]


@command(
    examples=[
        "inspect runs/watch/artifacts/tflite/model.tflite",
        "inspect runs/watch/artifacts/coreml/model.mlpackage --all",
        "inspect runs/watch/artifacts/onnx/model.onnx --json",
    ]
)
@click.argument("file", type=click.Path(path_type=Path))
@option("--layers", type=click.IntRange(min=1), default=20, show_default=True, help="Show so many layers, the largest.")
@option("--all", "every", is_flag=True, help="Show every operation in order.")
def inspect(terminal: Terminal, /, file: Path, layers: int, every: bool) -> None:
    """List what FILE holds: operations, shapes, types, multiply-accumulates, size by layer, metadata.

    FILE is an .onnx, .ort, .tflite or .pt2 file, or an .mlpackage, made by edgekit or by anything else. It is opened in a
    process of its own.
    """
    from edgekit import inspection
    from edgekit.report.listing import render_terminal

    with terminal.working() as progress:
        progress(f"inspect {file.name}", 0, None)
        found = inspection.inspect(file, log=terminal.log)
    shown = None if every else layers
    terminal.finish({"listing": json.loads(found.to_json())}, lambda console: render_terminal(found, console, layers=shown))
