"""A verdict as GitHub-flavoured Markdown: for a pull request, or a job's summary (``$GITHUB_STEP_SUMMARY``)."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.core.files import write_text
from edgekit.core.measurement import Evidence
from edgekit.core.verdict import Gate, Outcome
from edgekit.report import quantities, wording
from edgekit.report.gates import OUTCOME_MARKS, OUTCOME_WORDS, sorted_gates
from edgekit.report.overview import OverviewRow, overview
from edgekit.report.wording import device_reason, verdict_reason

if TYPE_CHECKING:
    from edgekit.core.validation import ArtifactResult, DeviceResult, ValidationReport

__all__ = ["markdown_summary", "write_markdown"]

_SPECIAL = re.compile(r"([\\`*_{}\[\]|#~])")
_GATE_COLUMNS = ("", "artifact", "gate", "found", "allowed", "what would change it")
_RESULT_COLUMNS = ("artifact", "score", "drop, points", "latency p50", "speed-up", "peak memory", "size", "evidence")


def markdown_summary(report: ValidationReport) -> str:
    """The verdict, what stands in its way, and one row for each artifact; what passed is folded away."""
    lines = [
        f"## {report.verdict}: {_plain(report.compressed.name)}, {_plain(str(report.compressed.recipe.get('name', '')))}",
        "",
    ]
    if len(report.devices) != 1:  # one device gives its own reason below
        lines += [_plain(verdict_reason(report)), "", *_overview(report)]
    for device in report.devices:
        lines += _device(device)
    return "\n".join(lines).rstrip() + "\n"


def write_markdown(report: ValidationReport, path: Path) -> None:
    """Write :func:`markdown_summary` whole or not at all.

    Raises:
        OutputError: The disk is full, or the place cannot be written.
    """
    write_text(path, markdown_summary(report))


def _overview(report: ValidationReport) -> Iterator[str]:
    """A row for each device, a column for each target."""
    found = overview(report)
    labels = list(dict.fromkeys(row.label for one in found for row in one.rows))
    if not labels:
        return
    rows = []
    for one in found:
        cells = {row.label: _cell(row) for row in one.rows}
        decision = one.device.verdict.decision.value
        rows.append((one.device.profile.title, decision, *(cells.get(label, "") for label in labels)))
    yield from _table(("device", "verdict", *labels), rows)


def _cell(row: OverviewRow) -> str:
    """Score, latency and what they rest on, or why there is nothing."""
    if row.reason:
        return f"failed: {row.reason}" if row.failed else f"not run: {row.reason}"
    accuracy, latency = row.cells[:2]
    kinds = wording.joined(dict.fromkeys(cell.evidence.value for cell in (accuracy, latency) if cell.value and cell.evidence))
    found = ", ".join(cell.value for cell in (accuracy, latency) if cell.value)
    return ", ".join(
        part for part in (f"{found} ({kinds})" if found else "", *(c.remark for c in row.cells[:2] if not c.value)) if part
    )


def _device(device: DeviceResult) -> Iterator[str]:
    yield f"### {_plain(device.profile.title)}: {device.verdict.decision.value}"
    yield ""
    yield _plain(device_reason(device))
    yield ""
    gates = sorted_gates(device.verdict.gates)
    standing = [gate for gate in gates if gate.outcome is not Outcome.PASS]
    passed = [gate for gate in gates if gate.outcome is Outcome.PASS]
    if standing:
        yield from _table(_GATE_COLUMNS, map(_gate, standing))
    yield from _table(_RESULT_COLUMNS, map(_result, device.results))
    if passed:
        yield f"<details><summary>{len(passed)} gates passed</summary>"
        yield ""
        yield from _table(_GATE_COLUMNS[:-1], (_gate(gate)[:-1] for gate in passed))
        yield "</details>"
        yield ""
    for note in (*(f"{one.label} did not run here: {one.reason}" for one in device.skipped), *device.notes):
        yield f"* {_plain(note)}"
    yield ""


def _gate(gate: Gate) -> Sequence[str]:
    mark = f"{OUTCOME_MARKS[gate.outcome]} {OUTCOME_WORDS[gate.outcome]}"
    return mark, gate.target, gate.name, gate.found, gate.limit, gate.advice


def _result(result: ArtifactResult) -> Sequence[str]:
    if result.failure:
        return result.artifact.label, "did not run", "", "", "", "", quantities.size(result.artifact.size_bytes), ""
    timed = ("latency", "slowdown_ratio", "peak_memory") if result.evidence is Evidence.MEASURED else ()
    values = {name: found.value for name in timed if (found := result.measurement(name))}
    metric = result.metric
    drop = metric.drop_points if metric is not None and not result.artifact.is_baseline else None
    slowdown = values.get("slowdown_ratio")
    return (
        result.artifact.label,
        quantities.share(metric.value) if metric else quantities.NOTHING,
        quantities.points(drop, signed=True),
        quantities.milliseconds(values.get("latency")),
        quantities.ratio(1 / slowdown) if slowdown else quantities.NOTHING,
        quantities.size(values.get("peak_memory")),
        quantities.size(result.artifact.size_bytes),
        wording.evidence_label(result.evidence, result.artifact.target),
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(_plain(cell) for cell in row)} |"
    yield ""


def _plain(text: str) -> str:
    """Text as it is: names come from model files, and must not become markup."""
    return _SPECIAL.sub(r"\\\1", html.escape(" ".join(wording.printable(text).split()), quote=False))
