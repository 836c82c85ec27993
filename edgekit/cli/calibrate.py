"""``edgekit calibrate``: is a task's calibration data good enough, and how many samples are needed?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.exit_codes import ExitCode
from edgekit.cli.options import command, once, option

if TYPE_CHECKING:
    from edgekit.cli.console import Terminal

__all__ = ["calibrate"]

_ESTIMATORS = ("min-max", "moving-average", "percentile", "mse", "entropy")


@command(
    examples=[
        "calibrate task.py",
        "calibrate task.py --estimator percentile --samples 24",
        "calibrate task.py --html calibration.html --json",
    ]
)
@click.argument("task")
@option("--recipe", default="int8", show_default=True, help="Whose quantize step is examined; or a .toml file.")
@option("--estimator", type=click.Choice(_ESTIMATORS), help="How ranges are estimated.  [default: the recipe's]")
@option("--samples", type=click.IntRange(min=1), help="At most so many samples.  [default: the recipe's]")
@once("--check", is_flag=True, help="End with code 1 if something serious was found.")
@once("--html", type=click.Path(path_type=Path, dir_okay=False), help="Also write the HTML page to this file.")
@click.pass_context
def calibrate(
    ctx: click.Context,
    terminal: Terminal,
    /,
    task: str,
    recipe: str,
    estimator: str | None,
    samples: int | None,
    check: bool,
    html: Path | None,
) -> None:
    """Examine the calibration data of TASK: is it good enough?

    Shows after how many samples the scales are stable, outlying values and samples, channels that never change, samples
    that are also evaluation data, copies, and data that does not look as the task's preprocessing says.
    """
    from edgekit import pipeline
    from edgekit.core.task import load_task
    from edgekit.report.calibration import render_terminal, write_html

    with terminal.working() as progress:
        progress("load task", 0, None)
        found = pipeline.check_calibration(
            load_task(task), recipe=recipe, estimator=estimator, sample_count=samples, progress=progress
        )
    if html is not None:
        write_html(found, html)
        terminal.note(f"Wrote {html}")
    document = {"good": found.is_good, "report": json.loads(found.to_json())}
    terminal.finish(document, lambda console: render_terminal(found, console))
    if check and not found.is_good:
        ctx.exit(ExitCode.GATE_MISSED)
