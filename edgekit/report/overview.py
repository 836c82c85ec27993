"""The whole report on one screen: device by device, target by target, every cell with what it rests on."""

from __future__ import annotations

import dataclasses

from edgekit.core.measurement import Evidence
from edgekit.core.validation import DeviceResult, ValidationReport
from edgekit.report import quantities
from edgekit.report.matrix import Row, rows

__all__ = ["COLUMNS", "Cell", "OverviewDevice", "OverviewRow", "overview"]

COLUMNS = ("accuracy", "latency", "memory", "size", "parity")
NOT_TIMED = {Evidence.EMULATED, Evidence.REFERENCE}
"""Evidence whose times say nothing about the device; an estimate is about it, and is shown as one."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One quantity of one artifact on one device.

    Args:
        name: One of :data:`COLUMNS`.
        value: In words; empty where there is none.
        detail: A second line.
        evidence: What it rests on; None for what is counted in the file, and where there is nothing.
        remark: Why there is no number, or what a reader must know.
    """

    name: str
    value: str = ""
    detail: str = ""
    evidence: Evidence | None = None
    remark: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OverviewRow:
    """One artifact on one device.

    Args:
        label: The artifact's label.
        target: Its target.
        runtime: Runtime and version.
        cells: In the order of :data:`COLUMNS`; empty where it was not run.
        reason: Why it was not run.
        failed: It should have run: the reason is a failure, and not that it is not for this device.
    """

    label: str
    target: str
    runtime: str = ""
    cells: tuple[Cell, ...] = ()
    reason: str = ""
    failed: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class OverviewDevice:
    """One device with its verdict.

    Args:
        device: The records behind it.
        rows: Compressed artifacts in the order of export; float ones where a target has no other.
        kinds: Evidence that is not ``measured``, in its rows.
    """

    device: DeviceResult
    rows: tuple[OverviewRow, ...]
    kinds: tuple[Evidence, ...]


def overview(report: ValidationReport) -> tuple[OverviewDevice, ...]:
    """All devices of a report."""
    return tuple(_device(report, device) for device in report.devices)


def _device(report: ValidationReport, device: DeviceResult) -> OverviewDevice:
    matrix = rows(report, device)
    compressed = {row.target for row in matrix if not row.is_baseline}
    shown = [row for row in matrix if not row.is_baseline or row.target not in compressed]
    found = {row.evidence for row in shown if row.evidence}
    return OverviewDevice(
        device=device,
        rows=tuple(_row(row, device.available_samples) for row in shown),
        kinds=tuple(kind for kind in Evidence if kind in found and kind is not Evidence.MEASURED),
    )


def _row(row: Row, available: int | None) -> OverviewRow:
    if row.failure:
        failed = row.result is not None
        return OverviewRow(label=row.label, target=row.target, runtime=row.runtime, reason=row.failure, failed=failed)
    cells = (_accuracy(row, available), _latency(row), _memory(row), _size(row), _parity(row))
    return OverviewRow(label=row.label, target=row.target, runtime=row.runtime, cells=cells)


def _accuracy(row: Row, available: int | None) -> Cell:
    metric = row.result.metric if row.result else None
    if metric is None:
        return Cell("accuracy", remark="the task has no evaluation data")
    drop = "" if row.is_baseline else f"{quantities.points(-metric.drop_points, signed=True)} pts against float"
    if available is not None and metric.sample_count < available:
        drop += f"{', ' if drop else ''}{quantities.count(metric.sample_count)} of {quantities.count(available)} samples"
    return Cell("accuracy", quantities.share(metric.value), drop, row.evidence)


def _latency(row: Row) -> Cell:
    found = row.taken("latency")
    if found is None:
        kind = row.evidence
        return Cell("latency", evidence=kind, remark=f"not timed: {kind.value}" if kind in NOT_TIMED and kind else "not timed")
    if found.evidence in NOT_TIMED:
        return Cell("latency", evidence=found.evidence, remark=f"not timed: {found.evidence.value}")
    spread = found.distribution
    detail = f"p90 {quantities.milliseconds(spread.p90)}" if spread else ""
    if (faster := row.speed_up) is not None:
        detail += f"{', ' if detail else ''}{quantities.ratio(faster.value)} float's speed"
    return Cell("latency", quantities.milliseconds(found.value), detail, found.evidence, found.note)


def _memory(row: Row) -> Cell:
    found = row.taken("peak_memory") or row.taken("arena")
    kind = found.evidence if found else row.evidence
    if kind in NOT_TIMED and kind:
        return Cell("memory", evidence=kind, remark=f"not taken: {kind.value}")
    if found is None:
        return Cell("memory")
    return Cell("memory", quantities.size(found.value), "", found.evidence, found.note)


def _size(row: Row) -> Cell:
    ratio = f"{quantities.ratio(row.size_ratio)} smaller" if row.size_ratio else ""
    return Cell("size", quantities.size(row.artifact.size_bytes), ratio)


def _parity(row: Row) -> Cell:
    if row.worst_layer is None:
        outputs = [quantities.decibels(output.snr_db) for output in row.result.outputs] if row.result else []
        return Cell("parity", ", ".join(outputs), "end to end" if outputs else "", row.evidence if outputs else None)
    exact = f"{quantities.share(row.exact_share)} exact"
    return Cell("parity", quantities.steps(row.worst_layer.largest_steps), exact, row.evidence)
