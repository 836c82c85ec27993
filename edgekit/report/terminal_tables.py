"""The tables of the terminal report.

Words carry every meaning, colour only repeats it. Names come from model files, so they are printed as text, never as
markup, and without control characters.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from edgekit.core.measurement import Evidence
from edgekit.core.validation import DeviceResult
from edgekit.core.verdict import Gate, Outcome
from edgekit.report import quantities, wording
from edgekit.report.figure_contract import OUTCOMES
from edgekit.report.gates import OUTCOME_WORDS, sorted_gates
from edgekit.report.matrix import Row
from edgekit.report.overview import OverviewDevice
from edgekit.report.slices import sliced

__all__ = ["gate_table", "overview_table", "plain_table", "slice_table", "tables", "text"]

_MOST_SLICES = 3
_OUTCOME_STYLES = {Outcome.PASS: "green", Outcome.FAIL: "bold red", Outcome.INCONCLUSIVE: "bold yellow"}


def tables(matrix: Sequence[Row], device: DeviceResult, *, is_roomy: bool) -> list[tuple[str, Table]]:
    """Titles and tables of one device, in reading order.

    Args:
        matrix: The target matrix.
        device: The device.
        is_roomy: There is room for intervals' companions, limits and spelt-out evidence.
    """
    ran = [row for row in matrix if not row.failure]
    scored = [row for row in ran if row.result and row.result.metric]
    found = [
        (_accuracy_title(scored), _accuracy(scored, is_roomy=is_roomy)),
        ("Slices with the largest drop", slice_table(device, is_roomy=is_roomy)),
        ("Device latency", _latency(ran, is_roomy=is_roomy)),
        ("Footprint", _footprint(ran, is_roomy=is_roomy)),
        ("Parity with the compressed program", _parity([row for row in ran if row.layers], is_roomy=is_roomy)),
        ("Quantization contract, read back from the files", _contract([row for row in matrix if row.contract.outcomes])),
        ("Spread between runtimes, end to end", _spread(device, is_roomy=is_roomy)),
    ]
    return [(title, table) for title, table in found if table.row_count]


def text(words: str, *, style: str = "") -> Text:
    """Words as they are: no markup, no control characters."""
    return Text(wording.printable(words), style=style)


def plain_table(*columns: str, left: Sequence[str] = ("artifact", "evidence"), fold: Sequence[str] = ()) -> Table:
    """An empty table; numbers stand on the right, columns in ``left`` and ``fold`` on the left, and the latter may be broken."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False, header_style="dim")
    for name in columns:
        side: JustifyMethod = "left" if name in left or name in fold else "right"
        table.add_column(text(name), justify=side, no_wrap=name not in fold, overflow="fold" if name in fold else "ellipsis")
    return table


def _label(row: Row) -> Text:
    return text(row.label, style="dim" if row.is_baseline else "")


def _evidence(kind: Evidence | None, target: str, *, is_roomy: bool) -> Text:
    if kind is None:
        return text("")
    words = wording.evidence_label(kind, target) if is_roomy else kind.value
    return text(words, style="dim" if kind is Evidence.MEASURED else "yellow")


def _accuracy_title(scored: Sequence[Row]) -> str:
    found = [row.result.metric for row in scored if row.result and row.result.metric]
    name = found[0].name if found else "metric"
    counts = " or ".join(quantities.count(count) for count in sorted({metric.sample_count for metric in found}))
    return f"{name[:1].upper()}{name[1:]} over {counts} samples, in the artifact's own runtime"


def _accuracy(scored: Sequence[Row], *, is_roomy: bool) -> Table:
    more = ("gained", "lost", "p") if is_roomy else ()
    table = plain_table("artifact", "score", "drop pts", "95 % interval", "flips", *more, "evidence")
    for row in scored:
        if row.result is None or row.result.metric is None:
            continue
        metric = row.result.metric
        low, high = metric.drop_interval
        found = [quantities.points(metric.drop_points), f"{quantities.points(low)} to {quantities.points(high)}"]
        found += [quantities.count(metric.flip_count)]
        if is_roomy:
            found += [quantities.count(metric.gained), quantities.count(metric.lost), quantities.probability(metric.p_value)]
        shown = [quantities.NOTHING] * len(found) if row.is_baseline else found
        table.add_row(_label(row), quantities.share(metric.value), *shown, _evidence(row.evidence, row.target, is_roomy=is_roomy))
    return table


def slice_table(device: DeviceResult, *, is_roomy: bool) -> Table:
    """The worst slices of the compressed artifacts."""
    more = ("float",) if is_roomy else ()
    table = plain_table("artifact", "slice", "samples", "score", *more, "drop pts", "95 % interval", fold=("artifact", "slice"))
    for labels, slices in sliced(device.results):
        for part in slices[:_MOST_SLICES]:
            low, high = part.drop_interval
            table.add_row(
                text(", ".join(labels)),
                text(f"{part.group} {part.name}"),
                quantities.count(part.sample_count),
                quantities.share(part.value),
                *([quantities.share(part.float_value)] if is_roomy else []),
                quantities.points(part.drop_points),
                f"{quantities.points(low)} to {quantities.points(high)}",
            )
    return table


def _latency(ran: Sequence[Row], *, is_roomy: bool) -> Table:
    more = ("p99 ms",) if is_roomy else ()
    table = plain_table("artifact", "p50 ms", "p90 ms", *more, "CPU ms", "speed-up", "95 % interval", "evidence")
    for row in ran:
        latency, fast = row.latency, row.speed_up
        if latency is None:
            continue
        spread = latency.distribution
        tails = [spread.p90, spread.p99][: 2 if is_roomy else 1] if spread else [None] * (2 if is_roomy else 1)
        times = [latency.value, *tails, row.cpu_time.value if row.cpu_time else None]
        shown = [quantities.NOTHING if value is None else quantities.significant(value) for value in times]
        interval = f"{quantities.ratio(fast.low)} to {quantities.ratio(fast.high)}" if fast else quantities.NOTHING
        ratio = quantities.ratio(fast.value if fast else None)
        table.add_row(_label(row), *shown, ratio, interval, _evidence(latency.evidence, row.target, is_roomy=is_roomy))
    return table


def _footprint(ran: Sequence[Row], *, is_roomy: bool) -> Table:
    table = plain_table("artifact", "load time", "peak memory", "size", "smaller", "evidence")
    for row in ran:
        load, memory = row.taken("load_time"), row.taken("peak_memory")
        taken = [quantities.milliseconds(load.value if load else None), quantities.size(memory.value if memory else None)]
        sizes = [quantities.size(row.artifact.size_bytes), quantities.ratio(row.size_ratio)]
        kind = load.evidence if load else memory.evidence if memory else row.evidence
        table.add_row(_label(row), *taken, *sizes, _evidence(kind, row.target, is_roomy=is_roomy))
    return table


def _parity(with_layers: Sequence[Row], *, is_roomy: bool) -> Table:
    more = ("least exact layer",) if is_roomy else ()
    table = plain_table(
        "artifact", "layers", "largest", "exact", *more, "end to end", "evidence", left=("artifact", "evidence", *more)
    )
    for row in with_layers:
        worst = row.worst_layer
        if worst is None or row.result is None:
            continue
        name = worst.entry if worst.exact_share < 1 else quantities.NOTHING
        layer = [text(name)] if is_roomy else []
        outputs = ", ".join(quantities.decibels(output.snr_db) for output in row.result.outputs) or quantities.NOTHING
        found = [quantities.count(len(row.layers)), quantities.steps(worst.largest_steps), quantities.share(row.exact_share)]
        table.add_row(_label(row), *found, *layer, outputs, _evidence(row.evidence, row.target, is_roomy=is_roomy))
    return table


def _contract(reported: Sequence[Row]) -> Table:
    table = plain_table("artifact", *OUTCOMES)
    for row in reported:
        counts = row.contract.counts
        dropped = "bold red" if counts.get("dropped") else ""
        table.add_row(
            _label(row), *(text(str(counts.get(kind, 0)), style=dropped if kind == "dropped" else "") for kind in OUTCOMES)
        )
    return table


def _spread(device: DeviceResult, *, is_roomy: bool) -> Table:
    known = {result.artifact.target: result.evidence for result in device.results}
    table = plain_table("pair", "outputs", "predictions differ", "equal values", "evidence", left=("pair", "evidence"))
    for spread in device.spreads:
        kinds = {target: known.get(target, Evidence.MEASURED) for target in (spread.first, spread.second)}
        weak = next((target for target, kind in kinds.items() if kind is not Evidence.MEASURED), spread.first)
        table.add_row(
            text(f"{spread.first} – {spread.second}"),
            quantities.decibels(spread.snr_db),
            quantities.share(spread.disagreement_share),
            quantities.share(spread.identical_share),
            _evidence(kinds[weak], weak, is_roomy=is_roomy),
        )
    return table


def overview_table(devices: Sequence[OverviewDevice]) -> Table:
    """A row for each artifact on each device."""
    table = plain_table("device", "artifact", "score", "latency", "size", "evidence", fold=("device",))
    for one in devices:
        for row in one.rows:
            label = f"{one.device.profile.title}: {one.device.verdict.decision.value}" if row is one.rows[0] else ""
            if row.reason:
                words = text("failed" if row.failed else "not run", style="bold red" if row.failed else "dim")
                table.add_row(text(label), text(row.label), *[quantities.NOTHING] * 3, words)
                continue
            accuracy, latency, _, size, _ = row.cells
            kind = latency.evidence or accuracy.evidence
            shown = [text(cell.value or quantities.NOTHING) for cell in (accuracy, latency, size)]
            table.add_row(text(label), text(row.label), *shown, _evidence(kind, row.target, is_roomy=False))
        table.add_section()
    return table


def gate_table(gates: Sequence[Gate], *, is_roomy: bool) -> Table:
    """Gates, those that did not pass first."""
    more = ("limit",) if is_roomy else ()
    table = plain_table("", "target", "gate", "found", *more, left=("", "target", "gate"), fold=("found", "limit"))
    for gate in sorted_gates(gates):
        found = text(gate.found)
        if not is_roomy:
            found.append("; ").append_text(text(f"limit: {gate.limit}", style="dim"))
        if gate.advice:
            found.append("\n").append_text(text(f"→ {gate.advice}"))
        limit = [text(gate.limit)] if is_roomy else []
        outcome = text(OUTCOME_WORDS[gate.outcome], style=_OUTCOME_STYLES[gate.outcome])
        table.add_row(outcome, text(gate.target), text(gate.name), found, *limit)
    return table
