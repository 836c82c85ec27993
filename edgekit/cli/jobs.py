"""``edgekit jobs``: devices without a network, whose work travels as a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from edgekit.cli.exit_codes import ExitCode
from edgekit.cli.options import command, once, option

if TYPE_CHECKING:
    from rich.console import Console

    from edgekit.cli.console import Terminal
    from edgekit.device_tests.job_folders import FolderJob

__all__ = ["jobs"]


@command(examples=["jobs export runs/watch --device host -o jobs", "jobs run jobs", "jobs list jobs"])
@click.argument("action", type=click.Choice(["export", "run", "list"]))
@click.argument("path", type=click.Path(path_type=Path))
@option("-d", "--device", "device", multiple=True, help="Whose jobs are exported. May be repeated.")
@once("-o", "--output", type=click.Path(path_type=Path, file_okay=False), help="Folder the jobs are left in.")
@once("--samples", type=click.IntRange(min=1), help="At most so many evaluation samples.  [default: the profile's]")
@once("--timeout", type=click.FloatRange(min=0, min_open=True), default=900.0, show_default=True, help="Seconds for each job.")
@click.pass_context
def jobs(
    ctx: click.Context,
    terminal: Terminal,
    /,
    action: Literal["export", "run", "list"],
    path: Path,
    device: tuple[str, ...],
    output: Path | None,
    samples: int | None,
    timeout: float,
) -> None:
    """Carry the work of validating a run to a device that no network reaches, and its results back.

    "export RUN --device NAME -o FOLDER" leaves the device's jobs in FOLDER: models, inputs, and what is asked. "run FOLDER" runs
    them where FOLDER was carried to; it needs edgekit and the runtimes, no run and no data. Back home, "edgekit validate RUN
    --device NAME --jobs FOLDER" takes the results, each checked by its digest, and decides.
    """
    from edgekit.device_tests.job_folders import list_jobs, run_jobs

    if action == "export":
        path = _export(terminal, path, device, output, samples)
    elif action == "run":
        with terminal.working() as progress:
            found = run_jobs(path, timeout_s=timeout, log=terminal.log, progress=progress)
        _finish(terminal, path, found)
        ctx.exit(ExitCode.OK if all(one.is_done for one in found) else ExitCode.CONVERSION)
    _finish(terminal, path, list_jobs(path))


def _export(terminal: Terminal, run: Path, devices: tuple[str, ...], output: Path | None, samples: int | None) -> Path:
    from edgekit import pipeline
    from edgekit.core.errors import JobsWaitingError, UsageError
    from edgekit.core.run import RunFolder

    if not devices or output is None:
        missing = "--device NAME" if not devices else "--output FOLDER"
        raise UsageError(f"{missing} is missing: edgekit jobs export {run} --device NAME -o FOLDER")
    folder = RunFolder(run)
    folder.manifest()
    with terminal.working(folder) as progress:
        try:
            pipeline.validate(run, devices=devices, jobs=output, samples=samples, progress=progress)
        except JobsWaitingError:
            return output
    return output  # all of them were run before: listing says so


def _finish(terminal: Terminal, folder: Path, found: Sequence[FolderJob]) -> None:
    document = {"folder": str(folder), "jobs": [one.model_dump(mode="json") for one in found]}
    terminal.finish(document, lambda console: _print(console, found))


def _print(console: Console, found: Sequence[FolderJob]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for job in found:
        state = Text("failed", style="red") if job.failure else Text("done", style="green") if job.is_done else Text("waiting")
        table.add_row(state, job.what, Text(Path(job.path).name[:12], style="dim"))
        if job.failure:
            table.add_row("", Text(job.failure, style="red"))
    console.print(table)
