"""The history in a terminal and in a notebook: what each entry found, how it changed, and whether that is more than noise."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.core.errors import MissingExtraError
from edgekit.core.files import write_text
from edgekit.core.history import history
from edgekit.core.history_changes import SHOWN, Change, series
from edgekit.core.history_entry import RENDERERS, History
from edgekit.core.measurement import Evidence
from edgekit.report import quantities, wording
from edgekit.report.figure_history import written

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "History",
    "change_document",
    "changed",
    "history",
    "notebook_html",
    "render_comparison",
    "render_terminal",
    "title_of",
    "write_csv",
]

_TITLES = {
    "score": "score", "drop": "drop against float", "latency": "latency", "cpu_time": "CPU time", "size": "size",
    "load_time": "load time", "peak_memory": "peak memory", "exact_share": "values exact, all layers",
    "layer_steps": "largest layer difference",
}  # fmt: skip
_MOST_ENTRIES = 40
_ROOMY = 110
_COLUMNS = (
    "entry", "created", "kind", "run", "task", "recipe", "device", "verdict", "label", "target", "scenario", "runtime",
    "runtime_version", "artifact_sha256", "name", "value", "unit", "evidence", "low", "high", "sample_count",
)  # fmt: skip


def title_of(name: str, metric: str = "") -> str:
    """What a number is called in a heading.

    >>> title_of("score", "top-1 accuracy"), title_of("peak_memory"), title_of("energy")
    ('top-1 accuracy', 'peak memory', 'energy')
    """
    return metric if name == "score" and metric else _TITLES.get(name, name.replace("_", " "))


def render_terminal(found: History, console: Console) -> None:
    """Print the entries, then each number over time."""
    from edgekit.report.terminal_tables import plain_table, text

    roomy = console.width >= _ROOMY
    table = plain_table("no.", "when", "what", "run", "recipe", "device", "verdict", left=("when", "what"),
                        fold=("run", "recipe", "device"))  # fmt: skip
    table.columns[-1].justify = "left"
    for entry in found.entries[-_MOST_ENTRIES:]:
        words = (str(entry.number), quantities.moment(entry.created), entry.kind, entry.run, entry.recipe, entry.device)
        table.add_row(*map(text, words), text(entry.verdict or quantities.NOTHING, style=_style(entry.verdict)))
    console.print(table if found.entries else text("The history has no such entry."))
    if len(found) > _MOST_ENTRIES:
        console.print(text(f"{len(found) - _MOST_ENTRIES} older entries are not shown; --json and --csv have them.", style="dim"))
    shown = {entry.number for entry in found.entries[-_MOST_ENTRIES:]}
    for name in found.metrics or SHOWN:
        lines = [change for line in series(found, name).values() for change in line if change.now.entry.number in shown]
        if not lines:
            continue
        console.print()
        console.print(text(f"{title_of(name, lines[-1].now.entry.metric)}".capitalize(), style="bold"))
        console.print(_table(lines, roomy=roomy))
    if any(change.is_clear for name in found.metrics or SHOWN for line in series(found, name).values() for change in line):
        console.print()
        console.print(text("* the 95 % intervals of both have nothing in common.", style="dim"))


def _table(lines: Sequence[Change], *, roomy: bool) -> Any:
    from edgekit.report.terminal_tables import plain_table, text

    more = ("95 % interval", "n") if roomy else ()
    table = plain_table("no.", "device", "artifact", "value", *more, "change", "", "evidence", left=("", "artifact", "evidence"),
                        fold=("device",))  # fmt: skip
    previous: tuple[str, ...] = ()
    for change in lines:
        place, number = change.now, change.now.number
        if previous and place.series != previous:
            table.add_section()
        previous = place.series
        label = f"{place.result.label} {place.result.scenario}".strip()
        interval = [_interval(change), quantities.count(number.sample_count)] if roomy else []
        weak = "dim" if number.evidence is Evidence.MEASURED else "yellow"
        mark = text("*" if change.is_clear else "", style=_mark_style(change))
        table.add_row(
            str(place.entry.number), text(place.entry.device), text(label), written(number.value, number.unit), *interval,
            text(changed(change), style=_mark_style(change)), mark, text(number.evidence.value, style=weak),
        )  # fmt: skip
    return table


def _mark_style(change: Change) -> str:
    return {True: "green", False: "bold red", None: ""}[change.is_better]


def _style(verdict: str) -> str:
    return {"SHIP": "green", "BLOCK": "bold red", "INCONCLUSIVE": "bold yellow"}.get(verdict, "dim")


def _interval(change: Change) -> str:
    number = change.now.number
    if number.interval is None:
        return quantities.NOTHING
    return f"{written(number.interval[0], number.unit).rpartition(' ')[0] or number.interval[0]} to " + written(
        number.interval[1], number.unit
    )


def changed(change: Change) -> str:
    """In the number's own unit for shares and points, else in percent of what it was."""
    number, difference = change.now.number, change.difference
    if difference is None:
        return quantities.NOTHING
    if difference == 0:
        return "none"
    if number.unit == "share":
        return f"{round(100 * difference, 2) + 0.0:+.2f} pts"
    if number.unit in {"points", "steps"} or change.ratio is None:
        return written(difference, number.unit, signed=True)
    percent = 100 * (change.ratio - 1)
    return f"{round(percent, 1) + 0.0:+.1f} %" if abs(percent) < 1000 else f"{change.ratio:.0f} times"


def render_comparison(changes: Sequence[Change], names: tuple[str, str], console: Console) -> None:
    """Print two entries, or two runs, number by number."""
    from edgekit.report.terminal_tables import plain_table, text

    left = ("", "artifact", "number", "evidence")
    table = plain_table("device", "artifact", "number", *names, "change", "", "evidence", left=left, fold=("device",))
    for change in changes:
        before, now = change.before, change.now
        if before is None:
            continue
        label = f"{now.result.label} {now.result.scenario}".strip()
        number, style = now.number, _mark_style(change)
        words = [written(place.number.value, place.number.unit) for place in (before, now)]
        marks = (text(changed(change), style=style), text("*" if change.is_clear else "", style=style))
        title = text(title_of(number.name, now.entry.metric))
        table.add_row(text(now.entry.device), text(label), title, *words, *marks, text(number.evidence.value, style="dim"))
    console.print(table if changes else text("The two have no number in common."))
    for sentence in _remarks(changes):
        console.print(text(f"· {sentence}", style="dim"), soft_wrap=True)
    if any(change.is_clear for change in changes):
        console.print(text("* the 95 % intervals of both have nothing in common.", style="dim"))


def _remarks(changes: Sequence[Change]) -> list[str]:
    """What else is not as it was, each thing once."""
    found: dict[str, list[str]] = {}
    for change in changes:
        for words in change.differences:
            labels = found.setdefault(words, [])
            labels += [change.now.result.label] if change.now.result.label not in labels else []
    tasks = {(change.before.entry.task, change.now.entry.task) for change in changes if change.before}
    other = [f"Of different tasks: {old} and {new}." for old, new in sorted(tasks) if old != new]
    every = {change.now.result.label for change in changes}
    return other + [
        f"Also changed{'' if set(labels) == every else f' for {wording.joined(labels)}'}: {words}."
        for words, labels in found.items()
    ]


def change_document(change: Change) -> dict[str, Any]:
    """A change for ``--json``."""
    now, before = change.now, change.before
    return {
        "entry": now.entry.number,
        "device": now.entry.device,
        "label": now.result.label,
        "scenario": now.result.scenario,
        "name": now.number.name,
        "unit": now.number.unit,
        "evidence": now.number.evidence.value,
        "value": now.number.value,
        "interval": now.number.interval,
        "before": None if before is None else {"entry": before.entry.number, "value": before.number.value,
                                               "interval": before.number.interval},
        "difference": change.difference,
        "ratio": change.ratio,
        "is_clear": change.is_clear,
        "is_better": change.is_better,
        "also_changed": list(change.differences),
    }  # fmt: skip


def write_csv(found: History, path: Path) -> None:
    """Write a line for each number (RFC 4180), whole or not at all.

    Raises:
        OutputError: The disk is full, or the place cannot be written.
    """
    stream = io.StringIO()
    out = csv.writer(stream)
    out.writerow(_COLUMNS)
    for entry, result, number in found.rows():
        low, high = number.interval or ("", "")
        about: Sequence[object] = (
            entry.number, entry.created, entry.kind, entry.run, entry.task, entry.recipe, entry.device, entry.verdict,
            result.label, result.target, result.scenario, result.runtime, result.runtime_version, result.artifact_sha256,
            number.name, repr(number.value), number.unit, number.evidence.value, low, high, number.sample_count,
        )  # fmt: skip
        out.writerow([_inert(cell) for cell in about])
    write_text(path, stream.getvalue())


def _inert(cell: object) -> object:
    """Names come from model files: a text that a spreadsheet would take for a formula gets an apostrophe in front."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in set("=+-@\t\r") and not _is_number(cell) else cell


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def notebook_html(found: History) -> str:
    """Figures and tables, as a piece of HTML that brings its own style; without jinja2 the terminal's."""
    try:
        from edgekit.report.page import history_html

        return history_html(found)
    except MissingExtraError as reason:
        from rich.console import Console

        stream = io.StringIO()
        render_terminal(found, Console(file=stream, width=100, color_system=None, force_terminal=False, legacy_windows=False))
        return f"<pre>{html.escape(stream.getvalue())}\n{html.escape(str(reason))}</pre>"


RENDERERS["text/html"] = notebook_html
