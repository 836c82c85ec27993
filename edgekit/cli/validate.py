"""``edgekit validate``: run folder + devices -> verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.exit_codes import ExitCode
from edgekit.cli.options import command, once, option, run_argument
from edgekit.cli.summaries import summary_options, write_summaries

if TYPE_CHECKING:
    from edgekit.cli.console import Terminal
    from edgekit.core.run import RunFolder
    from edgekit.core.validation import ValidationReport

__all__ = ["validate", "verdict_document"]


@command(
    examples=[
        "validate runs/watch --device host",
        "validate runs/watch --device host --json",
        "validate runs/watch --device host --baseline runs/watch",
        "validate runs/watch --device host --junit watch.xml --markdown watch.md",
        "validate runs/watch --device host --dry-run",
    ]
)
@run_argument
@option("-d", "--device", "device", multiple=True, default=("host",), show_default=True,
        help="Device to validate on: a name from edgekit devices, or a .toml file, of a lab too. May be repeated.")  # fmt: skip
@once(
    "--samples", type=click.IntRange(min=1), help="At most so many evaluation samples on each device.  [default: the profile's]"
)
@once("--jobs", type=click.Path(path_type=Path, file_okay=False),
      help="Leave the devices' jobs in this folder, or take the results of those that were run (edgekit jobs).")  # fmt: skip
@option("--baseline", type=click.Path(path_type=Path), help="Run folder of the release before: ends with 1 on a regression.")
@once("--task", "task_file", help="Task file that judges the run.  [default: the one it was made from]")
@once("--dry-run", is_flag=True, help="Check run, artifacts and profiles, say what would be done, and measure nothing.")
@option("--split/--no-split", default=False, show_default=True,
        help="Also split each layer's error: weights, clipping, rounding, converter rewrite, kernel.")  # fmt: skip
@summary_options
@click.pass_context
def validate(
    ctx: click.Context,
    terminal: Terminal,
    /,
    run: Path,
    device: tuple[str, ...],
    samples: int | None,
    jobs: Path | None,
    baseline: Path | None,
    task_file: str | None,
    dry_run: bool,
    split: bool,
    junit: Path | None,
    markdown: Path | None,
) -> None:
    """Run the artifacts of RUN on devices, compare them with the program they were made from, and decide.

    Ends with code 0 only if the verdict is SHIP; with 1 if it is BLOCK or INCONCLUSIVE.
    """
    from edgekit import pipeline
    from edgekit.core.run import RunFolder
    from edgekit.core.task import load_task

    folder = RunFolder(run)
    folder.manifest()
    devices = tuple(dict.fromkeys(device))
    if dry_run:
        _dry_run(terminal, folder, devices)
        return
    task = load_task(task_file) if task_file else None
    with terminal.working(folder) as progress:
        report = pipeline.validate(
            run, task, devices=devices, baseline=baseline, split=split, jobs=jobs, samples=samples, progress=progress
        )
    write_summaries(report, terminal, junit=junit, markdown=markdown)
    _show(terminal, folder, report)
    ctx.exit(ExitCode.OK if report.verdict == "SHIP" else ExitCode.GATE_MISSED)


def _show(terminal: Terminal, run: RunFolder, report: ValidationReport) -> None:
    from edgekit.report import render_terminal

    terminal.finish(verdict_document(report, run), lambda console: render_terminal(report, console))
    terminal.note_report(run)


def _dry_run(terminal: Terminal, run: RunFolder, devices: Sequence[str]) -> None:
    from edgekit.device_tests.lab import read_profiles

    artifacts = run.load_artifacts()
    profiles = read_profiles(devices)
    labels = [artifact.label for artifact in artifacts]
    document = {"dry_run": True, "run": str(run.path), "artifacts": labels, "devices": [profile.name for profile in profiles]}
    titles = ", ".join(f"{profile.name} ({profile.title})" for profile in profiles)
    sentence = f"Would validate {', '.join(labels) or 'no artifact'} on {titles}. Nothing was measured."
    terminal.finish(document, lambda console: console.print(sentence, markup=False, soft_wrap=True))


def verdict_document(report: ValidationReport, run: RunFolder) -> dict[str, Any]:
    """The decision with its gates; everything else is in the run's ``report.json``."""
    return {
        "run": str(run.path),
        "verdict": report.verdict,
        "devices": [{"device": device.profile.name, **device.verdict.model_dump(mode="json")} for device in report.devices],
        "report_json": str(run.path / "report.json"),
        "report_html": str(run.path / "report.html"),
    }
