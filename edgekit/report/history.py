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
from edgekit.core.history_changes import SHOWN, Change, Place, series
from edgekit.core.history_entry import RENDERERS, History
from edgekit.core.measurement import Evidence
from edgekit.report import quantities, wording
from edgekit.report.figure_history import written
from edgekit.report.overview import NOT_TIMED

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

__all__ = [
    "History",
    "change_document",
    "changed",
    "history",
    "notebook_html",
    "render_comparison",
    "render_terminal",
    "says_something",
    "title_of",
    "write_csv",
]

_TITLES = {
    "score": "score", "drop": "drop", "latency": "latency", "cpu_time": "CPU time", "size": "size",
    "load_time": "load time", "peak_memory": "peak memory", "exact_share": "layers exact", "layer_steps": "worst layer",
    "slowdown_ratio": "against float", "slowdown_ratio_cpu": "…, CPU time",
}  # fmt: skip
_TIMES = {"latency", "cpu_time", "load_time", "first_inference", "peak_memory", "slowdown_ratio", "slowdown_ratio_cpu"}
"""What says nothing about a device where it was emulated, or executed by reference."""
_CLEAR = "* the 95 % intervals of both have nothing in common."
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


def says_something(name: str, evidence: Evidence) -> bool:
    """Whether a number is about the device, or at least about the file.

    >>> says_something("latency", Evidence.EMULATED), says_something("score", Evidence.EMULATED)
    (False, True)
    """
    return name not in _TIMES or evidence not in NOT_TIMED


def render_terminal(found: History, console: Console) -> None:
    """Print the entries, then each number over time; float baselines where they stand alone."""
    from edgekit.report.terminal_tables import plain_table, text

    roomy = console.width >= _ROOMY
    left, fold = ("when", "what", "verdict"), ("run", "recipe", "device")
    table = plain_table("no.", "when", "what", "verdict", "run", "recipe", "device", left=left, fold=fold)
    for entry in found.entries[-_MOST_ENTRIES:]:
        verdict = text(entry.verdict or quantities.NOTHING, style=_style(entry.verdict))
        about = (text(entry.run), text(entry.recipe), text(entry.device))
        table.add_row(str(entry.number), quantities.moment(entry.created), entry.kind, verdict, *about)
    console.print(table if found.entries else text("The history has no such entry."))
    if len(found) > _MOST_ENTRIES:
        console.print(text(f"{len(found) - _MOST_ENTRIES} older entries are not shown; --json and --csv have them.", style="dim"))
    found = found.replace(entries=found.entries[-_MOST_ENTRIES:]).without_baselines()
    clear = False
    for name in found.metrics or SHOWN:
        lines = [line for line in series(found, name).values() if says_something(name, line[0].now.number.evidence)]
        if not lines:
            continue
        title = title_of(name, lines[-1][-1].now.entry.metric)
        console.print()
        console.print(text(f"{title[:1].upper()}{title[1:]}", style="bold"))
        console.print(_table(lines, roomy=roomy))
        clear = clear or any(change.is_clear for line in lines for change in line)
    if clear:
        console.print(text(_CLEAR, style="dim"))


def _table(lines: Sequence[Sequence[Change]], *, roomy: bool) -> Table:
    """A row for each number; series with several are kept apart."""
    from edgekit.report.terminal_tables import plain_table, text

    more = ("95 % interval", "n") if roomy else ()
    table = plain_table("no.", "device", "artifact", "value", *more, "change", "evidence", left=("artifact", "evidence"),
                        fold=("device",))  # fmt: skip
    for at, line in enumerate(lines):
        for change in line:
            place, number = change.now, change.now.number
            label = f"{place.result.label} {place.result.scenario}".strip()
            interval = [_interval(change), quantities.count(number.sample_count)] if roomy else []
            table.add_row(
                str(place.entry.number), text(place.entry.device), text(label), written(number.value, number.unit), *interval,
                _change(change), _kind(number.evidence),
            )  # fmt: skip
        if len(line) > 1 or len(lines[min(at + 1, len(lines) - 1)]) > 1:
            table.add_section()
    return table


def _change(change: Change) -> Text:
    from edgekit.report.terminal_tables import text

    return text(f"{changed(change)}{'*' if change.is_clear else ' '}", style=_mark_style(change))


def _kind(evidence: Evidence) -> Text:
    from edgekit.report.terminal_tables import text

    return text(evidence.value, style="dim" if evidence is Evidence.MEASURED else "yellow")


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

    changes = [one for one in changes if says_something(one.now.number.name, one.now.number.evidence)]
    if not changes:
        console.print("The two have no number in common.")
    for device in dict.fromkeys(one.now.entry.device for one in changes):
        own = [one for one in changes if one.now.entry.device == device]
        console.print(text(f"On {own[0].now.entry.device_title or device}", style="bold"))
        heads = [_head(name, [one.before if at == 0 else one.now for one in own]) for at, name in enumerate(names)]
        table = plain_table("artifact", "number", *heads, "change", "evidence", left=("artifact", "evidence"), fold=("number",))
        for before, now, change in ((one.before, one.now, one) for one in own if one.before):
            label = f"{now.result.label} {now.result.scenario}".strip()
            values = [written(place.number.value, place.number.unit) for place in (before, now)]
            title = title_of(now.number.name, now.entry.metric)
            table.add_row(text(label), text(title), *values, _change(change), _kind(now.number.evidence))
        console.print(table)
        console.print()
    for sentence in _remarks(changes):
        console.print(text(f"· {sentence}", style="dim"), soft_wrap=True)
    if any(change.is_clear for change in changes):
        console.print(text(_CLEAR, style="dim"))


def _head(name: str, places: Sequence[Place | None]) -> str:
    """The last part of what was named, and its entries: the same run may stand on both sides."""
    numbers = sorted({place.entry.number for place in places if place})
    return name if name.isdecimal() else f"{Path(name).resolve().name} {', '.join(f'#{number}' for number in numbers)}"


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
    same = {change.now.result.label for change in changes if change.is_same_file}
    if same:
        other.append(f"The same file{'' if same == every else f' for {wording.joined(sorted(same))}'}.")
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
        "is_same_file": change.is_same_file,
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
