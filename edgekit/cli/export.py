"""``edgekit export``: run folder, model file or task -> one file for each target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.export_options import export_options
from edgekit.cli.options import command, once, option
from edgekit.cli.reading_options import reading_options

if TYPE_CHECKING:
    from rich.console import Console

    from edgekit.cli.console import Terminal
    from edgekit.core.artifact import Artifact, ExportOptions
    from edgekit.core.run import RunFolder
    from edgekit.core.source import SourceOptions
    from edgekit.core.task import Task

__all__ = ["export"]

_SHOWN = 3
_OUTCOMES = ("honoured", "re-typed", "folded", "dropped")


def _complete_target(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    from edgekit import registry

    return [name for name in registry.names("converters") if name.startswith(incomplete)]


@command(
    examples=[
        "export runs/watch --target onnx --target tflite --target coreml",
        "export runs/watch --target tflite --integer-io --no-float-baseline --force",
        "export runs/watch --target onnx --activation-type int8 --dry-run",
        "export runs/watch --target coreml --snippet swift",
        "export task.py --target onnx -o runs/plain --dry-run",
    ]
)
@click.argument("source")
@option("-t", "--target", "target", multiple=True, required=True, shell_complete=_complete_target,
        help="onnx, tflite, coreml; for servers torch-export, torchscript, saved-model. May be repeated.")  # fmt: skip
@export_options
@option("--float-baseline/--no-float-baseline", default=True, show_default=True,
        help="Also export the float model, to compare with.")  # fmt: skip
@once("--snippet", type=click.Choice(["python", "swift", "kotlin", "cpp"]),
      help="Print code that loads, feeds, runs and self-tests the file; one that is there is not converted again.")  # fmt: skip
@option("-o", "--output", type=click.Path(path_type=Path),
        help="Run folder to write, where SOURCE is not one.  [default: runs/NAME]")  # fmt: skip
@reading_options
@option("--cache/--no-cache", default=True, show_default=True, help="Take from the user's cache what was converted before.")
@option("--jobs", type=click.IntRange(min=1), help="Conversions at a time, at most.  [default: as processors and memory allow]")
@once("--force", is_flag=True, help="Replace artifacts that are there.")
@once("--dry-run", is_flag=True, help="Check run, targets and options, say what would be done, and write nothing.")
def export(  # the options are the parameters
    terminal: Terminal,
    source: str,
    target: tuple[str, ...],
    options: ExportOptions,
    snippet: str | None,
    float_baseline: bool,
    output: Path | None,
    reading: SourceOptions,
    cache: bool,
    jobs: int | None,
    force: bool,
    dry_run: bool,
) -> None:
    """Convert SOURCE into a file for each target.

    SOURCE is a run folder, whose compressed program is converted; a model file (.pt2, .onnx, .keras, TorchScript, a checkpoint,
    the folder of a SavedModel) or a task file, whose model is converted as it is, into a new run folder. Model files are read,
    and targets converted, in confined processes of their own; what became of every tensor of the quantization contract is read
    back from the finished file. A target that refuses the model does not keep the others from being made.
    """
    from edgekit import pipeline

    targets = tuple(dict.fromkeys(target))
    folder, given = _opened(terminal, source, output, dry_run=dry_run)
    if dry_run:
        _dry_run(terminal, folder, targets, options, float_baseline=float_baseline)
        return
    choices: dict[str, Any] = {"reading": reading, "cached": cache, "jobs": jobs, "force": force}
    if given is not None:
        with terminal.working() as progress:
            made = pipeline.export(
                given, targets=targets, options=options, float_baseline=False, output=folder.path, progress=progress, **choices
            )
        if snippet is None:
            artifacts = list(made)
            terminal.finish(_document(folder, artifacts), lambda console: _print_result(console, folder, artifacts))
            return
    if snippet is not None:
        _print_snippet(terminal, folder, targets, options, language=snippet, force=force)
        return
    with terminal.working(folder) as progress:
        pipeline.export(
            folder.path, targets=targets, options=options, float_baseline=float_baseline, progress=progress, **choices
        )
    artifacts = folder.load_artifacts()
    terminal.finish(_document(folder, artifacts), lambda console: _print_result(console, folder, artifacts))


def _opened(terminal: Terminal, source: str, output: Path | None, *, dry_run: bool) -> tuple[RunFolder, Task | Path | None]:
    """The run folder to work on, and what is to be made into it where it is not the source itself.

    Raises:
        UsageError: There is no such run, file or task.
    """
    from edgekit import registry
    from edgekit.core.errors import UsageError
    from edgekit.core.file_kinds import kind_of
    from edgekit.core.run import RunFolder
    from edgekit.core.task import is_task_file, load_task
    from edgekit.intake import find_source

    path = Path(source)
    if is_task_file(source):
        with terminal.working() as progress:
            progress("load task", 0, None)
            task = load_task(source)
        return RunFolder(output or Path("runs", task.name)), task
    run = RunFolder(path)
    if run.manifest_path.is_file() or not path.exists() or (path.is_dir() and kind_of(path) is None):
        if output is not None:
            raise UsageError(f"{path} is a run folder, or is to be one: its artifacts go into it. Leave out --output.")
        run.manifest()
        return run, None
    reader = find_source(path)
    if dry_run:
        registry.require(reader)
    return RunFolder(output or Path("runs", path.stem)), path


def _print_snippet(
    terminal: Terminal, run: RunFolder, targets: Sequence[str], options: ExportOptions, *, language: str, force: bool
) -> None:
    """Code for the one target's artifact, on stdout as it is."""
    from edgekit import pipeline
    from edgekit.core.artifact import Artifact
    from edgekit.core.errors import UsageError
    from edgekit.snippets import render

    if len(targets) != 1:
        raise UsageError(f"--snippet is for one target, but {len(targets)} were asked for: {', '.join(targets)}.")
    (target,) = targets
    made = next((place for name in (target, f"{target}-float32") if (place := run.artifacts / name).exists()), None)
    if made is not None and not force:
        artifact = Artifact.load(made)
    else:
        with terminal.working(run) as progress:
            [artifact, *_] = pipeline.export(
                run.path, targets=targets, options=options, float_baseline=False, force=force, progress=progress
            )
    code = render(artifact, language)
    document = {"artifact": artifact.label, "language": language, "code": code}
    terminal.finish(document, lambda console: console.out(code, end="", highlight=False))


def _dry_run(terminal: Terminal, run: RunFolder, targets: Sequence[str], options: ExportOptions, *, float_baseline: bool) -> None:
    from edgekit import registry

    for name in targets:
        registry.require(registry.converter(name))
    document = {"dry_run": True, "run": str(run.path), "targets": targets, "options": options.model_dump(mode="json")}
    baseline = ", each with its float baseline" if float_baseline else ""
    sentence = f"Would export {run.path} to {', '.join(targets)}{baseline}, into {run.artifacts}. Nothing was written."
    terminal.finish(document, lambda console: console.print(sentence, markup=False, soft_wrap=True))


def _document(run: RunFolder, artifacts: Sequence[Artifact]) -> dict[str, Any]:
    rows = [
        {
            "label": artifact.label,
            "target": artifact.target,
            "precision": artifact.precision,
            "path": str(artifact.path),
            "sha256": artifact.sha256,
            "size_bytes": artifact.size_bytes,
            "contract": artifact.contract_report.counts,
            "otherwise": otherwise(artifact),
            "companions": {name: str(path) for name, path in artifact.companions.items()},
            "notes": list(artifact.notes),
        }
        for artifact in artifacts
    ]
    return {"run": str(run.path), "artifacts": rows}


def _print_result(console: Console, run: RunFolder, artifacts: Sequence[Artifact]) -> None:
    from rich.markup import escape
    from rich.padding import Padding
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("artifact")
    table.add_column("size", justify="right")
    table.add_column("quantization contract")
    for artifact in artifacts:
        counts = artifact.contract_report.counts
        entries = ", ".join(f"{counts[outcome]} {outcome}" for outcome in _OUTCOMES if outcome in counts)
        table.add_row(artifact.label, _megabytes(artifact.size_bytes), entries or "none: float")
    console.print(table)
    for artifact in artifacts:
        for reason, names in otherwise(artifact).items():
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            console.print(f"{artifact.label}, {', '.join(names[:_SHOWN])}{more}:", markup=False)
            console.print(Padding(escape(reason), (0, 0, 0, 2)))
    for note, labels in _labels_by_note(artifacts).items():
        console.print(f"{', '.join(labels)}:", markup=False)
        console.print(Padding(escape(note), (0, 0, 0, 2)))
    console.print(f"Artifacts: {run.artifacts}", markup=False, soft_wrap=True)
    console.print(f"Next: edgekit validate {run.path} --device host", style="dim", soft_wrap=True)


def otherwise(artifact: Artifact) -> dict[str, list[str]]:
    """What the target does otherwise than the recipe says: reason -> names of weights stored, and of entries left out, so."""
    found: dict[str, list[str]] = {}
    for outcome in artifact.contract_report.outcomes:
        if outcome.outcome == "dropped" or (outcome.outcome == "re-typed" and outcome.bits):
            found.setdefault(outcome.reason, []).append(outcome.name)
    return found


def _labels_by_note(artifacts: Sequence[Artifact]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for artifact in artifacts:
        for note in artifact.notes:
            found.setdefault(note, []).append(artifact.label)
    return found


def _megabytes(size_bytes: int) -> str:
    """Megabytes of 10^6 bytes, or kilobytes below one."""
    return f"{size_bytes / 1e6:.2f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.1f} kB"
