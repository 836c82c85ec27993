"""Benches of a run's artifacts on devices, in a terminal: a table of times, one of scenarios, and what there is to say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgekit.core.device_bench import BenchedArtifact, BenchedDevice, RunBench, ScenarioResult
from edgekit.core.measurement import Evidence, Measurement
from edgekit.report import quantities

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["render_terminal"]

_TIME_COLUMNS = ("artifact", "latency", "interval", "CPU time", "evidence")
_START_COLUMNS = ("artifact", "cold load", "warm load", "first inference", "memory")
_SCENARIO_COLUMNS = ("artifact", "scenario", "latency", "to", "samples/s", "times float")
_SUSTAINED_COLUMNS = ("artifact", "at first", "at last", "drift", "hottest", "clock", "throttled", "energy")
_AUDIT_COLUMNS = ("artifact", "check", "outcome")
_LEFT = ("artifact", "evidence", "scenario", "check", "outcome", "throttled")
_FOLD = ("artifact", "scenario")
_STYLES = {"passed": "green", "failed": "bold red", "undecided": "bold yellow"}
_ESTIMATE = {"latency", "arena", "peak_memory", "energy"}


def render_terminal(found: RunBench, console: Console) -> None:
    """Print what was found on every device."""
    for number, device in enumerate(found.devices):
        if number:
            console.print()
        _render_device(device, console)


def _render_device(device: BenchedDevice, console: Console) -> None:
    from edgekit.report.file_bench import render_profile
    from edgekit.report.terminal_tables import plain_table, text

    processor = device.facts.get("processor") or device.profile.hardware.processor or "?"
    console.print(text(f"{device.profile.title}: {processor}", style="bold"), soft_wrap=True)
    ran = [artifact for artifact in device.artifacts if not artifact.failure]
    parts = (
        (_TIME_COLUMNS, [_time_row(artifact) for artifact in ran if artifact.find("latency")]),
        (_START_COLUMNS, [_start_row(artifact) for artifact in ran if artifact.measurements]),
        (_SCENARIO_COLUMNS, [_scenario_row(one.label, result) for one in ran for result in one.scenarios]),
        (_SUSTAINED_COLUMNS, [_sustained_row(artifact) for artifact in ran if artifact.sustained]),
    )
    for columns, rows in parts:
        if not rows:
            continue
        kept = [at for at in range(len(columns)) if any(row[at] != quantities.NOTHING for row in rows)]
        table = plain_table(*(columns[at] for at in kept), left=_LEFT, fold=_FOLD)
        for row in rows:
            table.add_row(*(text(row[at]) for at in kept))
        console.print()
        console.print(table)
    _render_audit(ran, console)
    for sentence, style in _sentences(device):
        console.print(text(sentence, style=style), soft_wrap=True)
    for artifact in ran:
        if artifact.profile is not None:
            console.print()
            render_profile(artifact.profile, console)


def _render_audit(ran: list[BenchedArtifact], console: Console) -> None:
    from edgekit.report.terminal_tables import plain_table, text

    checks = [(artifact.label, check) for artifact in ran for check in artifact.audit]
    if not checks:
        return
    table = plain_table(*_AUDIT_COLUMNS, left=_LEFT)
    for label, check in checks:
        table.add_row(text(label), text(check.name), text(check.outcome, style=_STYLES[check.outcome]))
    console.print()
    console.print(table)
    for label, check in checks:
        if check.outcome != "passed":
            console.print(text(f"{label}: {check.sentence}", style="yellow"), soft_wrap=True)


def _time_row(artifact: BenchedArtifact) -> tuple[str, ...]:
    latency = artifact.find("latency")
    interval = latency.interval or (latency.distribution.p50_interval if latency.distribution else None) if latency else None
    return (
        artifact.label, _time(artifact, "latency"), _interval(interval), _time(artifact, "cpu_time"), str(artifact.evidence),
    )  # fmt: skip


def _start_row(artifact: BenchedArtifact) -> tuple[str, ...]:
    times = (_time(artifact, name) for name in ("cold_load_time", "warm_load_time", "first_inference"))
    return (artifact.label, *times, _memory(artifact))


def _scenario_row(label: str, found: ScenarioResult) -> tuple[str, ...]:
    half = found.relative_half_width
    return (
        label,
        f"{found.scenario}{f' of {found.query_size}' if found.scenario == 'multi-stream' else ''}, p{found.percentile}",
        quantities.milliseconds(found.latency.value),
        quantities.NOTHING if half is None else f"±{100 * half:.1f} %",
        quantities.significant(found.throughput.value),
        _ratio(found.slowdown),
    )


def _sustained_row(artifact: BenchedArtifact) -> tuple[str, ...]:
    run = artifact.sustained
    if run is None or not run.windows:
        return (artifact.label, *[quantities.NOTHING] * (len(_SUSTAINED_COLUMNS) - 1))
    drift, clocks = run.drift, [window.clock_mhz for window in run.windows if window.clock_mhz is not None]
    late = next((one for one in run.measurements if one.name == "sustained_latency"), None)
    energy = next((one for one in run.measurements if one.name == "energy"), None)
    return (
        artifact.label,
        quantities.milliseconds(run.windows[0].p50_ms),
        quantities.milliseconds(late.value if late else None),
        quantities.NOTHING if drift is None else f"{drift.ratio:.2f} ({drift.interval[0]:.2f} to {drift.interval[1]:.2f})",
        quantities.NOTHING if run.hottest_c is None else f"{run.hottest_c:.0f} °C",
        f"{min(clocks):.0f} to {max(clocks):.0f} MHz" if clocks else quantities.NOTHING,
        {True: "yes", False: "no", None: "cannot tell"}[run.is_throttled],
        quantities.NOTHING if energy is None else f"{quantities.significant(energy.value)} mJ",
    )


def _sentences(device: BenchedDevice) -> Iterator[tuple[str, str]]:
    """What is to be said, and how it is coloured."""
    for artifact in device.artifacts:
        if artifact.failure:
            yield f"{artifact.label} could not be run: {artifact.failure}", "bold red"
        yield from ((f"{artifact.label}: {why}", "dim") for why in artifact.skipped)
        if artifact.profile_failure:
            yield f"{artifact.label} has no profile: {artifact.profile_failure}", "yellow"
        if artifact.interference is not None and artifact.interference.sentence:
            yield f"{artifact.label}: {artifact.interference.sentence}.", "yellow" if artifact.interference.is_flagged else "dim"
        yield from ((f"{artifact.label}: {measured.name} {measured.note}.", "dim") for measured in _worth_a_note(artifact))
        if artifact.sustained is not None:
            yield f"{artifact.label}, {artifact.sustained.minutes:g} min: {'; '.join(artifact.sustained.signs)}.", "dim"
            if artifact.sustained.advice:
                yield artifact.sustained.advice, "yellow"
    yield from ((f"{label}: not for this device, {why}", "dim") for label, why in device.skipped.items())
    if any(result.ended_by == "time" for artifact in device.artifacts for result in artifact.scenarios):
        yield "The time was up before every percentile was known to ±2 %; --seconds gives more.", "dim"
    if any(artifact.evidence is Evidence.REFERENCE for artifact in device.artifacts):
        yield "reference: edgekit executes the format's semantics; no device's latency.", "dim"


def _worth_a_note(artifact: BenchedArtifact) -> Iterator[Measurement]:
    """Numbers whose note changes how they are read: what is no cold start, and what an estimate rests on."""
    for one in artifact.measurements:
        is_false_start = one.name == "cold_load_time" and "not a cold start" in one.note
        if is_false_start or (artifact.evidence is Evidence.ESTIMATED and one.note and one.name in _ESTIMATE):
            yield one


def _time(artifact: BenchedArtifact, name: str) -> str:
    found = artifact.find(name)
    return quantities.milliseconds(None if found is None else found.value)


def _memory(artifact: BenchedArtifact) -> str:
    found = artifact.find("peak_memory") or artifact.find("arena")
    return quantities.size(None if found is None else found.value)


def _interval(found: tuple[float, float] | None) -> str:
    return quantities.NOTHING if found is None else f"{quantities.significant(found[0])} to {quantities.significant(found[1])}"


def _ratio(found: Measurement | None) -> str:
    if found is None:
        return quantities.NOTHING
    low, high = found.interval or (found.value, found.value)
    return f"{found.value:.2f} ({low:.2f} to {high:.2f})"
