"""``edgekit demo``: the whole road in one go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.exit_codes import ExitCode
from edgekit.cli.options import command, once, option

if TYPE_CHECKING:
    from edgekit.cli.console import Terminal

__all__ = ["demo"]

DEMO_TASK = Path("examples/smartwatch/task.py")


@command(
    examples=[
        "demo task.py -o runs/demo",
        "demo task.py -o runs/demo --target onnx --force",
    ]
)
@click.argument("task", required=False)
@option("-o", "--output", type=click.Path(path_type=Path), default=Path("runs/demo"), show_default=True,
        help="Run folder to write.")  # fmt: skip
@option("-t", "--target", "target", multiple=True, help="Target to convert for.  [default: every one that works here]")
@option("-d", "--device", "device", multiple=True, default=("host",), show_default=True, help="Device profile to validate on.")
@option("--recipe", default="int8", show_default=True, help="A recipe in its written form, or a .toml file.")
@once("--force", is_flag=True, help="Replace a run folder that is there.")
@click.pass_context
def demo(
    ctx: click.Context,
    terminal: Terminal,
    /,
    task: str | None,
    output: Path,
    target: tuple[str, ...],
    device: tuple[str, ...],
    recipe: str,
    force: bool,
) -> None:
    """Compress TASK, export it to every target that works here, validate it and show the report.

    TASK is examples/smartwatch/task.py where none is given. Ends with code 0 only if the verdict is SHIP.
    """
    from edgekit import pipeline
    from edgekit.cli.validate import verdict_document
    from edgekit.core.run import RunFolder
    from edgekit.core.task import load_task
    from edgekit.report import render_terminal

    run = RunFolder(output)
    run.check_free(force=force)
    task_file = task or _demo_task()
    targets = target or _targets_here()
    with terminal.working() as progress:
        progress("load task", 0, None)
        loaded = load_task(task_file)
        pipeline.compress(loaded, recipe=recipe, output=output, force=force, progress=progress)
        terminal.keep_log(run)
    with terminal.working(run) as progress:
        pipeline.export(output, targets=targets, progress=progress)
        report = pipeline.validate(output, loaded, devices=device, progress=progress)
    terminal.finish(verdict_document(report, run), lambda console: render_terminal(report, console))
    terminal.note_report(run)
    ctx.exit(ExitCode.OK if report.verdict == "SHIP" else ExitCode.GATE_MISSED)


def _demo_task() -> str:
    from edgekit.core.errors import UsageError

    if not DEMO_TASK.is_file():
        raise UsageError(
            f"{DEMO_TASK} is not here. Name a task file (edgekit demo TASK), or call this in edgekit's source folder."
        )
    return str(DEMO_TASK)


def _targets_here() -> tuple[str, ...]:
    from edgekit import registry
    from edgekit.core.errors import UsageError

    found = tuple(name for name in registry.targets() if not registry.missing_module(registry.converter(name)))
    if not found:
        raise UsageError("No target's extra is installed. Install them with: pip install 'edgekit[onnx,tflite,coreml]'")
    return found
