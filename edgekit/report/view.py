"""What the page shows, prepared: rows, figures and remarks by device. Templates only place it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from edgekit.core.error_split import ErrorSplit
from edgekit.core.measurement import Evidence, Measurement
from edgekit.core.tensors import TensorSpec
from edgekit.core.validation import DeviceResult, SliceResult, ValidationReport
from edgekit.core.verdict import Gate, Outcome
from edgekit.report import quantities, wording
from edgekit.report.drawn import HALF_PX, Drawn
from edgekit.report.error_split import SpreadRow, describe, spread_rows
from edgekit.report.figure_contract import contract_bars
from edgekit.report.figure_error_split import split_figure
from edgekit.report.figure_front import front_figure, points_of_report
from edgekit.report.figure_latency import latency_strips
from edgekit.report.figure_layers import layer_figure
from edgekit.report.figure_stages import stage_figure
from edgekit.report.figure_tradeoff import against_latency, against_size
from edgekit.report.gates import sorted_gates
from edgekit.report.layers import Layer, layers
from edgekit.report.matrix import Row, rows
from edgekit.report.overview import OverviewDevice, overview
from edgekit.report.slices import sliced
from edgekit.report.stages import StageRow, stage_remark, stage_rows, stages_of

__all__ = ["Column", "DeviceView", "Drawn", "HonouredReason", "PageView", "heading_spans", "honoured_reasons", "page_view"]


@dataclasses.dataclass(frozen=True)
class Column:
    """One quantity of the target matrix.

    Args:
        key: What the template shows for it.
        group: Heading over several columns.
        title: Heading of the column.
        name: Name of the quantity where it stands alone.
    """

    key: str
    group: str
    title: str
    name: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class HonouredReason:
    """Contract entries of one artifact that are not simply honoured, for the same reason."""

    label: str
    outcome: str
    reason: str
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceView:
    """One device, ready to be placed.

    Args:
        device: The records behind it.
        reason: Why its verdict is what it is.
        gates: Failed, then open, then passed.
        open_gates: Those that did not pass.
        rows: The target matrix.
        evidence_by_label: What each artifact's numbers rest on.
        columns: Of the target matrix.
        notes: Labels, and what their converters have to say.
        against_latency: Figure.
        against_size: Figure.
        latency: Figure.
        latency_notes: Labels, and how their latencies were taken.
        without_latency: Labels that have a metric but no device latency.
        executors: Rows whose time was taken, and is not device latency.
        estimates: Artifact, number, and the number in words: what a model of the hardware says.
        executor_remark: What those times are.
        spread_remark: Why runtimes differ.
        spread_evidence: Target and evidence of both sides of each spread.
        layers: Every layer.
        layer_figure: Figure.
        parity_targets: Targets with layer parity.
        parity_evidence: Target and evidence of each of them.
    """

    device: DeviceResult
    reason: str
    gates: tuple[Gate, ...]
    open_gates: tuple[Gate, ...]
    rows: tuple[Row, ...]
    evidence_by_label: dict[str, Evidence]
    columns: tuple[Column, ...]
    notes: tuple[tuple[tuple[str, ...], str], ...]
    against_latency: Drawn
    against_size: Drawn
    latency: Drawn
    latency_notes: tuple[tuple[tuple[str, ...], str], ...]
    without_latency: tuple[str, ...]
    executors: tuple[Row, ...]
    estimates: tuple[tuple[Row, Measurement, str], ...]
    executor_remark: str
    spread_remark: str
    spread_evidence: tuple[tuple[tuple[str, Evidence], ...], ...]
    layers: tuple[Layer, ...]
    layer_figure: Drawn
    parity_targets: tuple[str, ...]
    parity_evidence: tuple[tuple[str, Evidence], ...]

    @property
    def sliced(self) -> tuple[tuple[tuple[str, ...], tuple[SliceResult, ...]], ...]:
        """Labels, and what these artifacts score slice by slice."""
        return sliced(self.device.results)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitView:
    """One artifact's error by its causes.

    Args:
        split: The records behind it.
        sentences: What to take home.
        figure: Figure.
    """

    split: ErrorSplit
    sentences: tuple[str, ...]
    figure: Drawn


@dataclasses.dataclass(frozen=True, kw_only=True)
class PageView:
    """The whole page, ready to be placed.

    Args:
        report: The records behind it.
        reason: Why the verdict is what it is.
        devices: By device.
        overview: All devices at a glance.
        front: Figure of accuracy against latency over devices.
        front_targets: Targets, as the front colours them.
        latency: Figure of the compressed artifacts' latencies on all devices.
        contract_figure: Figure.
        reasons: Why entries were not simply honoured.
        io: Role, the program's tensor, and what it is in each of ``io_labels``.
        io_labels: Compressed artifacts.
        evidence_kinds: Evidence that occurs in the report.
        stages: What the program was worth after each step; empty where that was not measured.
        stage_figure: Figure.
        stage_remark: Where the stages' numbers come from.
        splits: Each artifact's error by its causes.
        kernel_spreads: Pairs of executors, layer by layer.
    """

    report: ValidationReport
    reason: str
    devices: tuple[DeviceView, ...]
    overview: tuple[OverviewDevice, ...]
    front: Drawn
    front_targets: tuple[tuple[str, str], ...]
    latency: Drawn
    contract_figure: Drawn
    reasons: tuple[HonouredReason, ...]
    io: tuple[tuple[str, TensorSpec, tuple[str, ...]], ...]
    io_labels: tuple[str, ...]
    evidence_kinds: tuple[Evidence, ...]
    stages: tuple[StageRow, ...]
    stage_figure: Drawn
    stage_remark: str
    splits: tuple[SplitView, ...]
    kernel_spreads: tuple[SpreadRow, ...]


def page_view(report: ValidationReport) -> PageView:
    """Prepare a report."""
    own = rows(report, None)
    stages = stages_of(report.compressed.history)
    shipped = [artifact for artifact in report.artifacts if not artifact.is_baseline] or list(report.artifacts)
    found = {result.evidence for device in report.devices for result in device.results}
    found |= {stage.timed.evidence for stage in stages if stage.timed}
    found |= {m.evidence for device in report.devices for result in device.results for m in result.measurements}
    return PageView(
        report=report,
        reason=wording.verdict_reason(report),
        devices=tuple(_device_view(report, device) for device in report.devices),
        overview=overview(report),
        front=_front(report),
        latency=_latency_of_all(report),
        front_targets=tuple((target, target) for target in dict.fromkeys(row.target for row in own)),
        contract_figure=Drawn.by(lambda width: contract_bars(own, width=width)),
        reasons=honoured_reasons(own),
        io=_edges(report),
        io_labels=tuple(artifact.label for artifact in shipped),
        evidence_kinds=tuple(kind for kind in Evidence if kind in found),
        stages=stage_rows(stages),
        stage_figure=Drawn.by(lambda width: stage_figure(stages, width=width)),
        stage_remark=stage_remark(stages),
        splits=tuple(_split_view(split) for split in report.error_splits),
        kernel_spreads=tuple(row for split in report.error_splits for row in spread_rows(split.spreads)),
    )


def _front(report: ValidationReport) -> Drawn:
    names = [r.metric.name for device in report.devices for r in device.results if r.metric]
    points = points_of_report(report)
    return Drawn.by(lambda width: front_figure(points, metric=names[0] if names else "metric", width=width))


def _latency_of_all(report: ValidationReport) -> Drawn:
    """Of the compressed artifacts that were measured, each under its device's number."""
    found = [
        (row, f"{number} {row.label}")
        for number, device in enumerate(report.devices, 1)
        for row in rows(report, device)
        if row.latency and not row.is_baseline
    ]
    return Drawn.by(lambda width: latency_strips([row for row, _ in found], width=width, names=[name for _, name in found]))


def _split_view(split: ErrorSplit) -> SplitView:
    return SplitView(
        split=split,
        sentences=tuple(describe(split)),
        figure=Drawn.by(lambda width: split_figure(split.layers, width=width)),
    )


def _device_view(report: ValidationReport, device: DeviceResult) -> DeviceView:
    matrix = rows(report, device)
    all_layers = layers(report, matrix)
    with_parity = [row for row in matrix if row.layers]
    targets = tuple(row.target for row in with_parity)
    executors = tuple(row for row in matrix if row.executor_time and row.executor_time.evidence is not Evidence.ESTIMATED)
    scored = [row for row in matrix if row.result and row.result.metric]
    return DeviceView(
        device=device,
        reason=wording.device_reason(device),
        gates=sorted_gates(device.verdict.gates),
        open_gates=tuple(gate for gate in sorted_gates(device.verdict.gates) if gate.outcome is not Outcome.PASS),
        rows=matrix,
        evidence_by_label={row.label: row.evidence for row in matrix if row.evidence},
        columns=_columns(matrix),
        notes=wording.by_note((row.label, note) for row in matrix for note in row.artifact.notes),
        against_latency=Drawn.by(lambda width: against_latency(matrix, width=width), wide=HALF_PX),
        against_size=Drawn.by(lambda width: against_size(matrix, width=width), wide=HALF_PX),
        latency=Drawn.by(lambda width: latency_strips(matrix, width=width)),
        latency_notes=wording.by_note((row.label, row.latency.note) for row in matrix if row.latency and row.latency.note),
        without_latency=tuple(row.label for row in scored if not row.latency),
        executors=executors,
        estimates=tuple((row, one, quantities.measured(one.value, one.unit)) for row in matrix for one in _estimates(row)),
        executor_remark=_executor_remark(executors),
        spread_remark=wording.spread_remark(device.spreads),
        spread_evidence=_spread_evidence(device),
        layers=all_layers,
        layer_figure=Drawn.by(lambda width: layer_figure(all_layers, targets, width=width)),
        parity_targets=targets,
        parity_evidence=tuple((row.target, row.evidence) for row in with_parity if row.evidence),
    )


def _estimates(row: Row) -> list[Measurement]:
    return [one for one in row.result.measurements if one.evidence is Evidence.ESTIMATED] if row.result else []


def _columns(matrix: Sequence[Row]) -> tuple[Column, ...]:
    names = [row.result.metric.name for row in matrix if row.result and row.result.metric]
    metric = names[0] if names else "metric"
    return (
        Column("metric", "Accuracy", metric, metric),
        Column("drop", "Accuracy", "drop, 95 % CI", "drop"),
        Column("flips", "Accuracy", "flips", "flips"),
        Column("layer", "Parity", "worst layer", "worst layer"),
        Column("outputs", "Parity", "end to end", "end to end"),
        Column("latency", "Device latency", "p50, p90, CPU", "latency"),
        Column("speed-up", "Device latency", "speed-up", "speed-up"),
        Column("load", "Footprint", "load time", "load time"),
        Column("memory", "Footprint", "peak memory", "peak memory"),
        Column("size", "Footprint", "size", "size"),
        Column("contract", "", "contract", "contract"),
    )


def heading_spans(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """Group headings with how many columns each spans."""
    return [(group, len(list(found))) for group, found in itertools.groupby(columns, key=lambda column: column.group)]


def honoured_reasons(found: Sequence[Row]) -> tuple[HonouredReason, ...]:
    """Entries that a target did not simply honour, grouped by artifact, outcome and reason."""
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for row in found:
        for outcome in row.contract.outcomes:
            if outcome.outcome != "honoured":
                grouped.setdefault((row.label, outcome.outcome, outcome.reason), []).append(outcome.name)
    return tuple(
        HonouredReason(label=key[0], outcome=key[1], reason=key[2], names=tuple(names)) for key, names in grouped.items()
    )


def _executor_remark(executors: Sequence[Row]) -> str:
    by_kind: dict[Evidence, list[str]] = {}
    for row in executors:
        if row.executor_time:
            by_kind.setdefault(row.executor_time.evidence, []).append(row.label)
    return " ".join(
        f"{kind.value.capitalize()} ({wording.joined(labels)}): {wording.EVIDENCE_MEANING[kind]}"
        for kind, labels in by_kind.items()
    )


def _spread_evidence(device: DeviceResult) -> tuple[tuple[tuple[str, Evidence], ...], ...]:
    """Evidence of both sides; where both were measured, it is said once."""
    known = {result.artifact.target: result.evidence for result in device.results if not result.artifact.is_baseline}
    found = []
    for spread in device.spreads:
        sides = tuple((target, known.get(target, Evidence.MEASURED)) for target in (spread.first, spread.second))
        weak = tuple(side for side in sides if side[1] is not Evidence.MEASURED)
        found.append(weak or sides[:1])
    return tuple(found)


def _edges(report: ValidationReport) -> tuple[tuple[str, TensorSpec, tuple[str, ...]], ...]:
    shipped = [artifact for artifact in report.artifacts if not artifact.is_baseline] or list(report.artifacts)
    found = []
    for role, specs in (("input", report.compressed.inputs), ("output", report.compressed.outputs)):
        for index, spec in enumerate(specs):
            sides = [artifact.inputs if role == "input" else artifact.outputs for artifact in shipped]
            found.append(
                (role, spec, tuple(_edge(side[index], spec) if index < len(side) else quantities.NOTHING for side in sides))
            )
    return tuple(found)


def _edge(spec: TensorSpec, program: TensorSpec) -> str:
    """A tensor at the edge of an artifact, in words: its type, and its name and shape where they are not the program's."""
    shape = " × ".join(str(size) for size in spec.shape) if spec.shape != program.shape else ""
    name = f"as {spec.name}" if spec.name != program.name else ""
    grid = f"scale {spec.scale:.6g}, zero point {spec.zero_point}" if spec.scale is not None else ""
    return ", ".join(part for part in (spec.dtype, shape, name, grid) if part)
