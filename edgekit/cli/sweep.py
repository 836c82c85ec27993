"""``edgekit sweep``: which pruning ratio is worth it?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.exit_codes import ExitCode
from edgekit.cli.options import command, once, option

if TYPE_CHECKING:
    from edgekit.cli.console import Terminal

__all__ = ["sweep"]


@command(
    examples=[
        "sweep task.py --prune 0.2,0.4,0.6 --dry-run",
        "sweep task.py --prune 0.3,0.5 --recipe distill+int8 --target tflite -o sweeps/tflite --dry-run",
    ]
)
@click.argument("task")
@option("--prune", required=True, metavar="RATIOS", help="Shares of the multiply-accumulates that go, e.g. 0.2,0.4,0.6.")
@option("--recipe", default="int8", show_default=True,
        help="What follows the pruning, or a .toml file. If it holds a prune step, that one's ratio is replaced.")  # fmt: skip
@option("-t", "--target", default="onnx", show_default=True, help="The converted file that is measured.")
@option("-d", "--device", default="host", show_default=True, help="Profile it is measured on. See edgekit devices.")
@option("-o", "--output", type=click.Path(path_type=Path), help="Folder of the sweep.  [default: sweeps/NAME-OF-TASK]")
@once("--force", is_flag=True, help="Start anew where the folder holds another sweep.")
@once("--dry-run", is_flag=True, help="Check task, ratios and recipe, say what would be done, and write nothing.")
@click.pass_context
def sweep(
    ctx: click.Context,
    terminal: Terminal,
    /,
    task: str,
    prune: str,
    recipe: str,
    target: str,
    device: str,
    output: Path | None,
    force: bool,
    dry_run: bool,
) -> None:
    """Prune TASK's model by several ratios, and find the front of accuracy, size and latency.

    Each point is a compress run whose converted file is judged in its runtime. The same command goes on with a sweep that was
    interrupted; points that are done are not done again, and more ratios can be added.
    """
    from edgekit import pareto, pipeline
    from edgekit.core.run import RunFolder
    from edgekit.core.task import load_task

    points = pareto.plan_points(pipeline.read_recipe(recipe), _ratios(prune))
    pareto.check_place(target, device)
    with terminal.working() as progress:
        progress("load task", 0, None)
        loaded = load_task(task)
        folder = output or Path("sweeps", loaded.name)
        report = None
        if not dry_run:
            ratios = [ratio for ratio, _ in points if ratio is not None]
            report = pareto.sweep(
                loaded, prune=ratios, recipe=recipe, target=target, device=device, output=folder, force=force, progress=progress
            )
            terminal.keep_log(RunFolder(folder))
    if report is None:
        names = [plan.name for _, plan in points]
        sentence = f"Would make {', '.join(names)} of '{loaded.name}' in {folder}, each measured as {target} on {device}."
        document = {"dry_run": True, "task": loaded.name, "points": names, "sweep": str(folder)}
        terminal.finish(document, lambda console: console.print(f"{sentence} Nothing was written.", markup=False, soft_wrap=True))
        return
    from edgekit.report.sweep import render_terminal

    found = report
    terminal.finish({"report": json.loads(found.to_json())}, lambda console: render_terminal(found, console))
    terminal.note(f"Report: {folder / 'sweep.html'}")
    if all(point.stage is None for point in found.points if point.ratio is not None):
        ctx.exit(ExitCode.CONVERSION)


def _ratios(text: str) -> list[float]:
    """``0.2,0.4`` -> numbers."""
    from edgekit.core.errors import UsageError

    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.append(float(part))
        except ValueError as reason:
            raise UsageError(
                f"--prune: '{part}' is no number; give shares between 0 and 1, e.g. --prune 0.2,0.4,0.6."
            ) from reason
    return found
