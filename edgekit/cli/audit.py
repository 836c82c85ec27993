"""``edgekit audit``: what the final bytes hold, layer by layer, against what was claimed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.exit_codes import ExitCode
from edgekit.cli.options import command, once, run_argument

if TYPE_CHECKING:
    from rich.console import Console

    from edgekit.cli.console import Terminal
    from edgekit.core.audit import ArtifactAudit, AuditReport, LayerAudit
    from edgekit.core.weight_audit import WeightAudit

__all__ = ["audit"]


@command(
    examples=[
        "audit runs/watch",
        "audit runs/watch/artifacts/coreml-float32/model.mlpackage --against runs/watch/compressed/float.pt2",
    ]
)
@run_argument
@once(
    "--against",
    type=click.Path(path_type=Path),
    help="RUN is a Core ML package: compare its decoded weights with those of this .pt2 or .mlpackage.",
)
@click.pass_context
def audit(ctx: click.Context, terminal: Terminal, /, run: Path, against: Path | None) -> None:
    """Re-read the final bytes of each artifact of RUN and prove, layer by layer, what they hold.

    For each weight: stored bits, granularity, the kernel that multiplies with it, and its error against the float weight it
    came from. Ends with code 1 if a file does not hold what the recipe and its contract claim, with 5 if a file is damaged
    or was swapped.

    With --against, any Core ML package, whoever compressed it, is compared weight by weight with the float weights it came
    from. Ends with code 1 if a channel of a weight is further from its source than zeros would be.
    """
    if against is not None:
        _audit_weights(ctx, terminal, run, against)
    from edgekit.core.run import RunFolder
    from edgekit.device_tests.audit import audit as audit_run

    folder = RunFolder(run)
    folder.manifest()
    with terminal.working(folder) as progress:
        report = audit_run(run, progress=progress)
    terminal.finish(_document(report), lambda console: _print(console, report))
    ctx.exit(ExitCode.OK if report.passed else ExitCode.GATE_MISSED)


def _audit_weights(ctx: click.Context, terminal: Terminal, path: Path, against: Path) -> None:
    from edgekit.device_tests.weight_audit import audit_weights

    report = audit_weights(path, against)
    document = {"passed": report.passed, "weights": report.model_dump(mode="json")}
    terminal.finish(document, lambda console: _print_weights(console, report))
    ctx.exit(ExitCode.OK if report.passed else ExitCode.GATE_MISSED)


def _print_weights(console: Console, report: WeightAudit) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("weight", "stored as"):
        table.add_column(title, overflow="fold")
    for title in ("largest value", "largest error", "SNR dB"):
        table.add_column(title, justify="right", no_wrap=True)
    for weight in report.weights:
        numbers = (f"{weight.largest_value:.3g}", f"{weight.largest_error:.3g}", f"{weight.snr_db:.1f}")
        cells = (weight.source, weight.stored or "not found", *numbers)
        table.add_row(*(Text(cell, style="red" if weight.problem else "") for cell in cells))
    console.print(table)
    for weight in report.weights:
        if weight.problem:
            console.print(f"  ✗ {weight.source}: {weight.problem}.", style="red", markup=False, soft_wrap=True)
    if report.passed:
        console.print(f"Every weight is that of {report.against}, but for rounding.", style="green", markup=False, soft_wrap=True)


def _document(report: AuditReport) -> dict[str, Any]:
    return {"passed": report.passed, "audit": report.model_dump(mode="json")}


def _print(console: Console, report: AuditReport) -> None:
    for artifact in report.artifacts:
        _print_artifact(console, artifact)
    failed = [artifact.label for artifact in report.artifacts if artifact.all_problems]
    if not failed:
        console.print(f"Every file holds what the recipe '{report.recipe}' claims.", style="green", markup=False, soft_wrap=True)
    else:
        sentence = f"Not what the recipe '{report.recipe}' claims: {', '.join(failed)}."
        console.print(sentence, style="bold red", markup=False, soft_wrap=True)


def _print_artifact(console: Console, artifact: ArtifactAudit) -> None:
    from rich.table import Table
    from rich.text import Text

    console.print(Text.assemble((artifact.label, "bold"), f"  {artifact.path}"), soft_wrap=True)
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("layer", "stored", "kernel", "computes"):
        table.add_column(title, overflow="fold")
    for title in ("MACs", "SNR dB"):
        table.add_column(title, justify="right", no_wrap=True)
    for layer in artifact.layers:
        style = "red" if layer.problems else ""
        table.add_row(*(Text(cell, style=style) for cell in _cells(layer, artifact)))
    console.print(table)
    for line in _facts(artifact):
        console.print(f"  {line}", markup=False, soft_wrap=True)
    for problem in artifact.all_problems:
        console.print(f"  ✗ {problem}", style="red", markup=False, soft_wrap=True)
    for note in artifact.notes:
        console.print(f"  {note}", style="dim", markup=False, soft_wrap=True)
    console.print()


def _cells(layer: LayerAudit, artifact: ArtifactAudit) -> tuple[str, str, str, str, str, str]:
    total = sum(other.macs for other in artifact.layers)
    share = f"{layer.macs / total:.1%}" if total and layer.macs else "–"
    snr = "–" if layer.snr_db is None else f"{layer.snr_db:.1f}"
    name = layer.entry.removesuffix(".weight")  # a layer with several weights shows which: "lstm.weight_ih"
    return name, layer.stored or "not found", layer.kernel or "–", layer.arithmetic or "–", share, snr


def _facts(artifact: ArtifactAudit) -> list[str]:
    share, claimed = artifact.integer_mac_share, f"{artifact.claimed_mac_share:.1%} claimed"
    macs = f"the device decides ({claimed})" if share is None else f"{share:.1%} ({claimed})"
    size = f"{artifact.size_bytes / 1e3:,.1f} kB, {artifact.size_bytes / max(1, artifact.floor_bytes):.2f} times the floor"
    return [
        f"Multiply-accumulates in integer kernels: {macs}; stray dequantize nodes: {artifact.stray_dequantize_count};"
        f" activation grids equal: {artifact.activation_count}.",
        f"Size: {size} of {artifact.floor_bytes / 1e3:,.1f} kB that integers, scales and remaining floats need.",
        f"Read from: {artifact.method}.",
    ]
