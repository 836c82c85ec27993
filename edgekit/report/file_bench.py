"""Timed model files in a terminal and in a notebook: what each costs, and where its time goes."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.core.file_bench import RENDERERS, BenchedFile, FileBench
from edgekit.core.measurement import Evidence, Measurement
from edgekit.core.operator_profile import OperatorProfile, OperatorTypeTime
from edgekit.report import quantities

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["FileBench", "notebook_html", "render_profile", "render_terminal"]

_MOST_TYPES = 12
_ROWS = (
    "runtime", "size", "load", "first inference", "median", "90 % of inferences in", "CPU time, median", "peak memory",
    "times the first file's", "evidence",
)  # fmt: skip
_PROFILE_COLUMNS = ("operators", "count", "time", "share", "computes", "on")
_PROFILE_LEFT = ("operators", "computes", "on")
_REFERENCE = "reference: edgekit executes the format's semantics, not the Neural Engine; no device's latency."


def render_terminal(found: FileBench, console: Console) -> None:
    """Print what was measured."""
    from edgekit.report.terminal_tables import plain_table, text

    columns, rows = _matrix(found)
    table = plain_table(*columns, left=("",))
    for row in rows:
        table.add_row(*(text(cell) for cell in row))
    console.print(table)
    for sentence in _sentences(found):
        console.print(text(sentence, style="dim"), soft_wrap=True)
    for file in found.files:
        if file.profile is not None:
            console.print()
            render_profile(file.profile, console)
        elif file.profile_failure:
            console.print(text(f"{Path(file.path).name} has no profile: {file.profile_failure}", style="yellow"), soft_wrap=True)


def render_profile(profile: OperatorProfile, console: Console) -> None:
    """Print where an inference's time goes."""
    from edgekit.report.terminal_tables import plain_table, text

    console.print(text(_profile_title(profile), style="bold"), soft_wrap=True)
    table = plain_table(*_PROFILE_COLUMNS, left=_PROFILE_LEFT)
    for row in _profile_rows(profile):
        table.add_row(*(text(cell) for cell in row))
    console.print(table)
    console.print(text(_profile_remark(profile), style="dim"), soft_wrap=True)


def notebook_html(found: FileBench) -> str:
    """Tables for a notebook."""
    parts = [_table(*_matrix(found)), *(f"<p>{html.escape(sentence)}</p>" for sentence in _sentences(found))]
    for file in found.files:
        if file.profile is not None:
            parts += [f"<p><b>{html.escape(_profile_title(file.profile))}</b></p>"]
            parts += [
                _table(_PROFILE_COLUMNS, _profile_rows(file.profile)),
                f"<p>{html.escape(_profile_remark(file.profile))}</p>",
            ]
    return f'<div class="edgekit-bench">{"".join(parts)}</div>'


def _matrix(found: FileBench) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """A column for each file, and a row for each number."""
    cells = [_cells(file) for file in found.files]
    rows = [(title, *(file[at] for file in cells)) for at, title in enumerate(_ROWS)]
    return ("", *_labels(found)), [row for row in rows if set(row[1:]) != {quantities.NOTHING}]


def _labels(found: FileBench) -> list[str]:
    """Names of the files, with their folders where the names alone do not tell them apart."""
    names = [Path(file.path).name for file in found.files]
    return names if len(set(names)) == len(names) else [str(Path(*Path(file.path).parts[-2:])) for file in found.files]


def _cells(file: BenchedFile) -> Sequence[str]:
    latency = file.find("latency")
    p90 = latency.distribution.p90 if latency is not None and latency.distribution is not None else None
    return (
        file.runtime, quantities.size(file.size_bytes), _time(file, "load_time"), _time(file, "first_inference"),
        _time(file, "latency"), quantities.milliseconds(p90), _time(file, "cpu_time"),
        quantities.size(_value(file, "peak_memory")), _ratio(file.find("slowdown_ratio")), str(file.evidence),
    )  # fmt: skip


def _sentences(found: FileBench) -> Iterable[str]:
    machine = found.machine
    threads = f"{found.threads} thread{'s' if found.threads > 1 else ''}"
    yield f"{machine.get('processor', '?')}, {threads}; inputs: {found.inputs}."
    for file, label in zip(found.files, _labels(found), strict=True):
        latency = file.find("latency")
        if latency is not None and latency.note:
            yield f"{label}: {latency.note}."
    if any(file.evidence is Evidence.REFERENCE for file in found.files):
        yield _REFERENCE
    if found.first_answer_s is not None:
        yield f"First answer {found.first_answer_s:.2f} s after the start of the process."


def _time(file: BenchedFile, name: str) -> str:
    return quantities.milliseconds(_value(file, name))


def _value(file: BenchedFile, name: str) -> float | None:
    found = file.find(name)
    return None if found is None else found.value


def _ratio(found: Measurement | None) -> str:
    if found is None:
        return quantities.NOTHING
    low, high = found.interval or (found.value, found.value)
    return f"{found.value:.2f} ({low:.2f} to {high:.2f})"


def _profile_title(profile: OperatorProfile) -> str:
    return f"{profile.model} in {profile.runtime} on {profile.provider}: where the time goes, {profile.run_count} inferences"


def _profile_rows(profile: OperatorProfile) -> Iterable[Sequence[str]]:
    rows = profile.by_type()
    for row in rows[:_MOST_TYPES]:
        yield _profile_row(row)
    if rest := rows[_MOST_TYPES:]:
        time_ms, part = sum(row.time_ms for row in rest), sum(row.share for row in rest)
        counts = str(sum(row.count for row in rest))
        yield f"{len(rest)} other types", counts, quantities.milliseconds(time_ms), quantities.share(part, decimals=1), "", ""


def _profile_row(row: OperatorTypeTime) -> Sequence[str]:
    where = f"{row.provider}, a fallback" if row.is_fallback else row.provider
    time, part = quantities.milliseconds(row.time_ms), quantities.share(row.share, decimals=1)
    return row.type, str(row.count), time, part, row.kind, where


def _profile_remark(profile: OperatorProfile) -> str:
    parts = [
        f"{quantities.share(profile.share_of(kind), decimals=1)} {kind}"
        for kind in ("integer", "float", "conversion", "movement")
    ]
    words = f"Of the operators' time: {', '.join(parts)}. Outside operators: {quantities.milliseconds(profile.outside_ms)}"
    words += " an inference, the profiler's own work included."
    if fallbacks := sum(operator.is_fallback for operator in profile.operators):
        words += f" {fallbacks} of {len(profile.operators)} operators fell back from {profile.provider}."
    return f"{words} {profile.note}".strip()


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


RENDERERS["text/html"] = notebook_html
