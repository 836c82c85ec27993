"""``edgekit exactness``: does every runtime compute the same bits, and if not, because of which layers?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.exit_codes import ExitCode
from edgekit.cli.options import command, run_argument

if TYPE_CHECKING:
    from rich.console import Console

    from edgekit.cli.console import Terminal
    from edgekit.core.exactness import ExactnessReport, KernelExactness

__all__ = ["exactness"]


@command(examples=["exactness runs/watch"])
@run_argument
@click.pass_context
def exactness(ctx: click.Context, terminal: Terminal, /, run: Path) -> None:
    """Check kernel by kernel, from RUN's program alone, that every runtime rounds every result to the same integer.

    For each kernel: the multiplier its sums are rounded with, how far its results stay from half-way between two integers
    beyond what float32 may be off, and the reason where runtimes may differ. Ends with code 1 if any may; the recipe
    'int8-exact' makes programs that pass.
    """
    from edgekit import pipeline

    report = pipeline.check_exactness(run)
    terminal.finish(_document(report), lambda console: _print(console, report))
    ctx.exit(ExitCode.OK if report.is_exact else ExitCode.GATE_MISSED)


def _document(report: ExactnessReport) -> dict[str, Any]:
    return {"is_exact": report.is_exact, "exactness": report.model_dump(mode="json")}


def _print(console: Console, report: ExactnessReport) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("layer", "kernel", "multiplier"):
        table.add_column(title, overflow="fold")
    table.add_column("margin, steps", justify="right", no_wrap=True)
    table.add_column("exact", overflow="fold")
    for kernel in report.kernels:
        style = "" if kernel.is_exact else "red"
        table.add_row(*(Text(cell, style=style) for cell in _cells(kernel)))
    console.print(table)
    console.print(_sentence(report), style="green" if report.is_exact else "bold red", markup=False, soft_wrap=True)


def _cells(kernel: KernelExactness) -> tuple[str, str, str, str, str]:
    margin = f"{kernel.margin_steps:.2g}" if kernel.is_exact else "–"
    return kernel.layer, kernel.op, kernel.multiplier or "–", margin, "yes" if kernel.is_exact else f"no: {kernel.reason}"


def _sentence(report: ExactnessReport) -> str:
    total, missed = len(report.kernels), len(report.inexact)
    if not missed:
        return f"All {total} kernels are exact: every runtime that rounds in float32 computes the same bits."
    return f"{missed} of {total} kernels may round differently: runtimes can differ by one step of the grid at each of them."
