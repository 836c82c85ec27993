"""The report in a terminal: small tables with the artifact's name in front, the verdict last. Eighty columns are enough."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table

from edgekit.core.error_split import ErrorSplit
from edgekit.core.validation import DeviceResult, ValidationReport
from edgekit.report import quantities, terminal_tables, wording
from edgekit.report.error_split import describe, layer_table, spread_table
from edgekit.report.layers import layers, worst_layers
from edgekit.report.matrix import Row, rows
from edgekit.report.overview import overview
from edgekit.report.stages import render_stages
from edgekit.report.terminal_tables import text

__all__ = ["plain_text", "print_report"]

_ROOMY = 110
"""From this width on, limits of gates have a column of their own and evidence is spelt out."""

_SPLIT_LAYERS = 12

_DECISION_STYLES = {"SHIP": "bold green", "BLOCK": "bold red", "INCONCLUSIVE": "bold yellow"}


def print_report(report: ValidationReport, console: Console) -> None:
    """Print the whole report."""
    console.print()
    console.print(text(f"{report.compressed.name}, recipe {report.compressed.recipe.get('name', 'unnamed')}", style="bold"))
    floats = [f"{layer.layer or 'unnamed'} ({layer.op}): {layer.reason}" for layer in report.contract.float_layers]
    _say(console, "Stayed in float", floats)
    for device in report.devices:
        _print_device(report, device, console)
    for split in report.error_splits:
        _print_split(split, console)
    render_stages(report.compressed.history, console)
    if len(report.devices) > 1:
        _print_table("All devices", terminal_tables.overview_table(overview(report)), console)
    _print_verdict(report.verdict, wording.verdict_reason(report), console)


def plain_text(report: ValidationReport, *, width: int = 100) -> str:
    """What :func:`print_report` prints, without colour."""
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=width, color_system=None, force_terminal=False, legacy_windows=False))
    return stream.getvalue()


def _print_device(report: ValidationReport, device: DeviceResult, console: Console) -> None:
    matrix = rows(report, device)
    is_roomy = console.width >= _ROOMY
    if len(report.devices) > 1:
        console.print()
        console.print(text(f"On {device.profile.title}", style="bold underline"))
    for title, table in terminal_tables.tables(matrix, device, is_roomy=is_roomy):
        _print_table(title, table, console)
    worst = worst_layers(layers(report, matrix))
    noisy = ", ".join(f"{layer.name} {quantities.decibels(layer.snr_db)}" for layer in worst)
    _say(console, "Most quantization noise", [noisy] if noisy else [])
    _say(console, "Not run", [f"{row.label}: {row.failure}" for row in matrix if row.failure])
    _say(console, "Not device latency", _executor_times(matrix))
    _say(console, "Notes", [*device.notes, *_notes(matrix)])
    if device.verdict.gates:
        _print_table(
            f"Gates of {device.profile.title}", terminal_tables.gate_table(device.verdict.gates, is_roomy=is_roomy), console
        )
    if len(report.devices) > 1:
        _print_verdict(device.verdict.decision.value, wording.device_reason(device), console)


def _print_split(split: ErrorSplit, console: Console) -> None:
    """The layers with the most error, and what makes executors differ; all of them are in the page and in the JSON document."""
    noisiest = sorted(split.layers, key=lambda row: -row.total)[:_SPLIT_LAYERS]
    chosen = [row for row in split.layers if row in noisiest]
    _print_table(f"Error by its causes, {split.label} in {split.executor}, output steps squared", layer_table(chosen), console)
    _say(console, "In words", list(describe(split)))
    if split.spreads:
        _print_table("Executors fed the same integers, layer by layer", spread_table(split.spreads), console)


def _print_table(title: str, table: Table, console: Console) -> None:
    console.print()
    console.print(text(title, style="bold"))
    console.print(table)


def _notes(matrix: tuple[Row, ...]) -> list[str]:
    """How latencies were taken, and what converters have to say; once for all artifacts it holds for."""
    timing = [(row.label, f"latency: {row.latency.note}") for row in matrix if row.latency and row.latency.note]
    made = [(row.label, note) for row in matrix for note in row.artifact.notes]
    return [f"{wording.joined(labels)}: {note}" for labels, note in wording.by_note([*timing, *made])]


def _executor_times(matrix: tuple[Row, ...]) -> list[str]:
    return [
        f"{row.label} {quantities.milliseconds(row.executor_time.value)} per inference in {row.runtime}"
        f" ({wording.evidence_label(row.executor_time.evidence, row.target)})"
        for row in matrix
        if row.executor_time
    ]


def _print_verdict(decision: str, reason: str, console: Console) -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(text(decision, style=_DECISION_STYLES[decision]), text(reason))
    console.print()
    console.print(grid)


def _say(console: Console, title: str, sentences: list[str]) -> None:
    if not sentences:
        return
    console.print()
    console.print(text(title, style="bold"))
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for sentence in sentences:
        grid.add_row(text("·", style="dim"), text(sentence))
    console.print(grid)
