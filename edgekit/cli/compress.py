"""``edgekit compress``: task -> run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.exit_codes import ExitCode
from edgekit.cli.options import command, once, option
from edgekit.cli.reading_options import reading_options
from edgekit.cli.recipe_flags import check_plan, read_plan, recipe_flags

if TYPE_CHECKING:
    from rich.console import Console

    from edgekit.cli.console import Terminal
    from edgekit.core.compressed import Compressed
    from edgekit.core.recipe import Recipe
    from edgekit.core.run import RunFolder
    from edgekit.core.search import SearchReport
    from edgekit.core.source import SourceOptions
    from edgekit.core.task import Task

__all__ = ["compress"]


@command(
    examples=[
        "compress task.py --recipe int8 -o runs/watch",
        "compress task.py:task --set steps.0.sample_count=64 -o runs/few",
        "compress task.py --recipe none -o runs/float --dry-run",
        "compress task.py --recipe int8 --print-config",
        "compress task.py --recipe auto --max-drop 20 -o runs/found",
        "compress task.py --recipe prune50+int8 --criterion l1 -o runs/pruned --dry-run",
        "compress task.py --recipe prune --latency-ms 3.0 --device host -o runs/fast --dry-run",
        "compress task.py --recipe distill --student my_models.py:small -o runs/small --dry-run",
    ]
)
@click.argument("task")
@option("--recipe", default="int8", show_default=True, help="A recipe in its written form, or a .toml file. See edgekit recipes.")
@option("-o", "--output", type=click.Path(path_type=Path), help="Run folder to write.  [default: runs/NAME-OF-TASK]")
@once("--force", is_flag=True, help="Replace a run folder that is there.")
@option("--set", "changes", multiple=True, metavar="PLACE=VALUE", envvar="EDGEKIT_COMPRESS_SET",
        help="Change one place of the recipe. May be repeated.")  # fmt: skip
@recipe_flags
@reading_options
@once("--print-config", is_flag=True, help="Print the recipe that would be carried out, as TOML, and stop.")
@once("--dry-run", is_flag=True, help="Check task, recipe and output, say what would be done, and write nothing.")
@click.pass_context
def compress(
    ctx: click.Context,
    terminal: Terminal,
    /,
    task: str,
    recipe: str,
    output: Path | None,
    force: bool,
    print_config: bool,
    dry_run: bool,
    measure: bool | None,
    device: str | None,
    target: str | None,
    reading: SourceOptions,
    **_recipe_flags: Any,
) -> None:
    """Make the model of TASK small, and write a run folder.

    TASK is a Python file that defines 'task = edgekit.Task(...)', or file.py:name; or a model file (.pt2, .onnx, .keras and so
    on), which --samples calibrate. With the recipe auto, plans are tried from
    the cheapest to the dearest until one keeps the metric; where none is shown to, the nearest is kept and the code is 1.
    Where a step prunes or trains, or there are several, the model is measured after each of them.
    """
    plan, origins = read_plan(ctx, recipe)
    if print_config:
        text = plan.to_toml()
        terminal.finish(
            {"recipe": plan.model_dump(mode="json"), "origins": origins}, lambda console: _print_plan(console, text, origins)
        )
        return
    check_plan(plan)

    from edgekit import pipeline
    from edgekit.core.run import RunFolder
    from edgekit.core.task import is_task_file, load_task
    from edgekit.intake import task_from_file

    if output is not None:
        RunFolder(output).check_free(force=force)
    with terminal.working() as progress:
        progress("load task", 0, None)
        is_model = not is_task_file(task) and Path(task).exists()
        loaded = task_from_file(task, options=reading, progress=progress) if is_model else load_task(task)
        run = RunFolder(output or Path("runs", loaded.name))
        run.check_free(force=force)
        compressed = None
        if not dry_run:
            measuring: dict[str, Any] = {"measure": measure, "target": target, "device": device or "host"}
            compressed = pipeline.compress(loaded, recipe=plan, output=run.path, force=force, progress=progress, **measuring)
            terminal.keep_log(run)
    if compressed is None:
        _dry_run(terminal, loaded, plan, run)
        return
    terminal.finish(_document(compressed, run), lambda console: _print_result(console, compressed, run))
    if any(not found.passed for found in _searches(compressed)):
        ctx.exit(ExitCode.GATE_MISSED)


def _searches(compressed: Compressed) -> list[SearchReport]:
    """What each ``auto`` step tried."""
    from edgekit.core.search import SearchReport

    steps = [step for step in compressed.record.history if step.kind == "auto"]
    return [SearchReport.parse(step.details, source="the auto step's record") for step in steps]


def _print_plan(console: Console, text: str, origins: dict[str, str]) -> None:
    for place, source in origins.items():
        console.print(f"# {place}: {source}", markup=False, soft_wrap=True)
    console.print(text.rstrip(), markup=False, soft_wrap=True)


def _dry_run(terminal: Terminal, task: Task, plan: Recipe, run: RunFolder) -> None:
    steps = [step.word() for step in plan.steps]
    document = {"dry_run": True, "task": task.name, "recipe": plan.model_dump(mode="json"), "run": str(run.path)}
    sentence = (
        f"Would compress '{task.name}' with {plan.name} ({', '.join(steps) or 'no step'}) into {run.path}. Nothing was written."
    )
    terminal.finish(document, lambda console: console.print(sentence, markup=False, soft_wrap=True))


def _document(compressed: Compressed, run: RunFolder) -> dict[str, Any]:
    contract = compressed.contract
    return {
        "run": str(run.path),
        "task": compressed.name,
        "recipe": compressed.record.recipe,
        "precision": compressed.precision,
        "steps": [step.model_dump(mode="json") for step in compressed.record.history],
        "activations": len(contract.activations),
        "parameters": len(contract.parameters),
        "float_layers": [layer.model_dump(mode="json") for layer in contract.float_layers],
    }


def _print_result(console: Console, compressed: Compressed, run: RunFolder) -> None:
    from rich.table import Table

    from edgekit.report.search import render_search
    from edgekit.report.stages import render_stages

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column()
    table.add_column(justify="right", style="dim", no_wrap=True)
    for step in compressed.record.history:
        table.add_row(step.kind, step.summary, f"{step.seconds:.1f} s")
    console.print(f"[bold]{compressed.name}[/] compressed with [bold]{compressed.recipe.name}[/]")
    console.print(table)
    for found in _searches(compressed):
        render_search(found, console)
    render_stages(compressed.record.history, console)
    for layer in compressed.contract.float_layers:
        console.print(f"  stays float: {layer.layer} ({layer.op}): {layer.reason}", markup=False, soft_wrap=True)
    console.print(f"Run folder: {run.path}", markup=False, soft_wrap=True)
    console.print(f"Next: edgekit export {run.path} --target onnx --target tflite --target coreml", style="dim", soft_wrap=True)
