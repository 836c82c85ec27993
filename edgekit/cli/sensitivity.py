"""``edgekit sensitivity``: which layers hurt when they become integers?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.options import command, option

if TYPE_CHECKING:
    from edgekit.cli.console import Terminal

__all__ = ["sensitivity"]


@command(
    examples=[
        "sensitivity task.py",
        "sensitivity task.py --recipe w4a8 --samples 8 --json",
        "sensitivity task.py --figure layers.svg",
    ]
)
@click.argument("task")
@option("--recipe", default="int8", show_default=True, help="Which layers become integers, and how; or a .toml file.")
@option("--samples", type=click.IntRange(min=1), default=32, show_default=True, help="At most so many calibration samples.")
@option("--check", "checked", type=click.IntRange(min=0), default=5, show_default=True,
        help="Round so many of the worst layers alone, and compare the outputs.")  # fmt: skip
@option("--figure", type=click.Path(path_type=Path, dir_okay=False), help="Also write the picture: .svg, or a page, .html.")
def sensitivity(terminal: Terminal, /, task: str, recipe: str, samples: int, checked: int, figure: Path | None) -> None:
    """Show which layers of TASK's model hurt when they become integers.

    One pass over some calibration samples finds each layer's share of the noise at the outputs, weights and activations
    apart. The worst layers are candidates for another precision: see the field 'layers' of edgekit recipes.
    """
    from edgekit import pipeline
    from edgekit.core.task import load_task
    from edgekit.report.sensitivity import render_terminal, write_figure

    with terminal.working() as progress:
        progress("load task", 0, None)
        found = pipeline.sensitivity(load_task(task), recipe=recipe, sample_count=samples, checked=checked, progress=progress)
    if figure is not None:
        write_figure(found, figure)
        terminal.note(f"Wrote {figure}")
    terminal.finish({"report": json.loads(found.to_json())}, lambda console: render_terminal(found, console))
