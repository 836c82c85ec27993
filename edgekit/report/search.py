"""A search in a terminal: which plans were tried, and what came of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgekit.core.search import SearchReport, Trial

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["render_search"]

_STYLES = {"passed": "bold green", "unproven": "bold yellow", "missed": "bold red", "too large": "bold red", "failed": "bold red"}
_HEADINGS = ("plan", "outcome", "drop", "at most", "samples", "KiB", "work", "CPU s")


def render_search(found: SearchReport, console: Console) -> None:
    """Print the plans in the order they were tried, and what stands in the way where none was good enough."""
    from rich.table import Table

    from edgekit.report.terminal_tables import text

    console.print()
    console.print(text(found.message, style="bold green" if found.passed else "bold yellow"), soft_wrap=True)
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for heading in _HEADINGS:
        table.add_column(heading, justify="left" if heading in {"plan", "outcome"} else "right", no_wrap=heading != "plan")
    for trial in found.trials:
        label, outcome, *rest = _cells(trial, is_best=trial.label in found.pareto)
        table.add_row(text(label), text(outcome, style=_STYLES.get(outcome, "dim")), *(text(cell) for cell in rest))
    console.print(table)
    notes = [f"{trial.label}: {trial.reason}" for trial in found.trials if trial.reason]
    notes += ["drop, at most: points of the metric, mean and upper bound; work: 1 is int8 everywhere; *: none beats it"]
    for note in notes:
        console.print(text(note, style="dim"), soft_wrap=True)
    for line in _binding(found):
        console.print(text(line), soft_wrap=True)
    console.print()


def _cells(trial: Trial, *, is_best: bool) -> list[str]:
    label = f"{trial.label} *" if is_best else trial.label
    if trial.drop_points is None or trial.highest_drop_points is None:
        return [label, trial.outcome, *[""] * (len(_HEADINGS) - 2)]
    numbers = [f"{trial.drop_points:.2f}", f"{trial.highest_drop_points:.2f}", str(trial.sample_count)]
    return [label, trial.outcome, *numbers, f"{trial.weights_bytes / 1024:.0f}", f"{trial.work:.2f}", f"{trial.cpu_seconds:.1f}"]


def _binding(found: SearchReport) -> Iterator[str]:
    if found.binding:
        yield f"Layers in the way (everything rounded to nearest, {found.binding[0].sample_count} samples; measured):"
    for layer in found.binding:
        yield (
            f"  {layer.layer}: {layer.share:.0%} of the noise; in float: {layer.gain_db:+.1f} dB,"
            f" drop {layer.drop_points:.2f} -> {layer.freed_drop_points:.2f} points"
        )
