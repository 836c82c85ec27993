"""``edgekit history``: what validations and benchmarks found over time, and what changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.options import command, once, option

if TYPE_CHECKING:
    from edgekit.cli.console import Terminal
    from edgekit.core.history_entry import History, HistoryEntry

__all__ = ["history"]

COMPARE = "compare"
_LOOKED_AT = 500
"""Entries that are read for the terminal, which shows the latest of them; ``--json`` and ``--csv`` have all."""


@command(
    examples=[
        "history runs/watch",
        "history runs --device host --target onnx --metric latency --since 30d",
        "history runs --csv history.csv",
        "history compare runs/watch runs/watch",
        "history runs/watch --json",
    ]
)
@click.argument("words", nargs=-1, metavar="[RUN|FOLDER] | compare A B")
@option("-d", "--device", "devices", multiple=True, help="Only entries of this device profile. May be repeated.")
@option("-t", "--target", "targets", multiple=True, help="Only this target, or this artifact (onnx-float32). May be repeated.")
@option("--metric", "metrics", multiple=True,
        help="Number to show: latency, cpu_time, size, peak_memory, score, drop …  [default: score, latency, size]")  # fmt: skip
@option("--since", default="", metavar="WHEN", help="Only entries from then on: 2026-11-01, or 12h, 30d, 2w ago.")
@once("--csv", "csv_file", type=click.Path(path_type=Path, dir_okay=False), help="Also write every number to this file.")
def history(
    terminal: Terminal,
    /,
    words: tuple[str, ...],
    devices: tuple[str, ...],
    targets: tuple[str, ...],
    metrics: tuple[str, ...],
    since: str,
    csv_file: Path | None,
) -> None:
    """Show what every validate and bench of RUN, or of the runs in FOLDER, found, and how it changed since the entry before.

    A change is marked where the 95 % intervals of both numbers have nothing in common. With compare: A and B are numbers of
    entries, or run folders, whose last entries are compared device by device.

    Entries lie in history.sqlite beside the run folders; EDGEKIT_HISTORY names another file, or says off.
    """
    if words[:1] == (COMPARE,) and not (len(words) == 1 and Path(COMPARE).exists()):
        _compare(terminal, words[1:], devices=devices, targets=targets, metrics=metrics)
        return
    if len(words) > 1:
        raise click.UsageError(f"Got {len(words)} places, {' and '.join(words)}: name one, or compare two with 'compare A B'.")
    from edgekit.core import history as store
    from edgekit.core.history_changes import SHOWN, changes
    from edgekit.report.history import change_document, render_terminal, write_csv

    last = None if terminal.as_json or csv_file is not None else _LOOKED_AT
    found = store.history(*words, devices=devices, targets=targets, metrics=metrics, since=since, last=last)
    _refuse_unknown(metrics, found)
    if csv_file is not None:
        write_csv(found, csv_file)
        terminal.note(f"Wrote {csv_file}")
    changed = [change_document(change) for name in metrics or SHOWN for change in changes(found, name)]
    document = {"entries": json.loads(found.to_json())["entries"], "changes": changed}
    terminal.finish(document, lambda console: render_terminal(found, console))


def _compare(
    terminal: Terminal, sides: Sequence[str], *, devices: Sequence[str], targets: Sequence[str], metrics: Sequence[str]
) -> None:
    from edgekit.core.history_changes import compared
    from edgekit.report.history import change_document, render_comparison

    if len(sides) != 2:
        raise click.UsageError(f"compare takes two entries or run folders, and got {len(sides)}: edgekit history compare A B")
    first, second = (_side(side, devices=devices, targets=targets) for side in sides)
    found = [one for one in compared(first, second) if not metrics or {one.now.number.name, one.now.entry.metric} & set(metrics)]
    document = {
        "first": [json.loads(entry.to_json()) for entry in first],
        "second": [json.loads(entry.to_json()) for entry in second],
        "changes": [change_document(change) for change in found],
    }
    terminal.finish(document, lambda console: render_comparison(found, (sides[0], sides[1]), console))


def _side(side: str, *, devices: Sequence[str], targets: Sequence[str]) -> tuple[HistoryEntry, ...]:
    """An entry by its number, or the last ones of a run: of each device and kind.

    Raises:
        UsageError: There is none.
    """
    from edgekit.core import history as store
    from edgekit.core.errors import UsageError
    from edgekit.core.run import RunFolder

    if side.isdecimal():
        entries = store.history(devices=devices, targets=targets).entries
        found = tuple(entry for entry in entries if entry.number == int(side))
        if not found:
            raise UsageError(f"The history has no entry {side}{_span([entry.number for entry in entries])}.")
        return found
    RunFolder(Path(side)).manifest()
    last = {(entry.device, entry.kind): entry for entry in store.history(side, devices=devices, targets=targets).entries}
    if not last:
        raise UsageError(f"The history has no such entry of {side}. Make one with: edgekit validate {side} --device host")
    return tuple(last.values())


def _span(numbers: Sequence[int]) -> str:
    return f"; its entries are {numbers[0]} to {numbers[-1]}" if numbers else ""


def _refuse_unknown(metrics: Sequence[str], found: History) -> None:
    """Refuse a number that no entry has.

    Raises:
        UsageError: Names it and the nearest one there is.
    """
    from edgekit.core.errors import UsageError, nearest

    known = sorted({number.name for _, _, number in found.rows()} | {entry.metric for entry in found.entries if entry.metric})
    for name in metrics:
        if known and name not in known:
            raise UsageError(f"No entry has a number '{name}'; there are {', '.join(known)}.{nearest(name, known)}")
