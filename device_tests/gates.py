"""The questions a release is asked, and how each is answered from numbers.

============== ============================================== ====================================================
gate           passes when                                    asked of
============== ============================================== ====================================================
runs           (only shown when it failed)                    every artifact that ships
contract       no entry is dropped                            artifacts with integers
layer parity   enough values lie within the allowed steps     artifacts with integers
metric drop    95 % upper bound of the paired drop < limit    every artifact that ships
slice drop     the same in every slice                        every artifact that ships, if the profile asks
regressions    not worse, slower, larger than a baseline run  compressed artifacts, where a baseline is named
slowdown       95 % upper bound of the ratio <= limit         compressed artifacts, on measured evidence
arena, flash   what is needed <= what the device has          microcontrollers, on estimates too
latency p90    95 % upper bound of the percentile <= limit    every artifact that ships, on measured evidence
load time      found <= limit                                 every artifact that ships, on measured evidence
peak memory    found <= limit                                 every artifact that ships, on measured evidence
size           found <= limit                                 every artifact that ships
============== ============================================== ====================================================

A gate with an interval fails when the whole interval lies beyond the limit, and is inconclusive when the limit lies
inside it. What ships are the compressed artifacts; float baselines are judged only where nothing else was exported.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edgekit.core.contract import QuantizationContract
from edgekit.core.measurement import Evidence, Measurement
from edgekit.core.profile import Budgets, DeviceProfile, Tolerances
from edgekit.core.validation import ArtifactResult, LayerParity, MetricResult
from edgekit.core.verdict import Gate, Outcome
from edgekit.device_tests.baseline import regression_gates
from edgekit.device_tests.paired import passing_power, quantile_interval, samples_to_decide

if TYPE_CHECKING:
    from edgekit.core.artifact import Artifact

__all__ = [
    "Finding",
    "contract_gate",
    "device_gates",
    "layer_gate",
    "metric_gate",
    "notes",
    "room_gate",
    "shipped",
    "slice_gate",
]


@dataclasses.dataclass(frozen=True)
class Finding:
    """One artifact's result with what the gates need beside it.

    Args:
        result: What was found.
        layers_failure: Why its layers could not be replayed.
        layers_absent: Why its runtime replays none at all: the question is not asked then.
        timing_failure: Why its latency could not be measured.
    """

    result: ArtifactResult
    layers_failure: str = ""
    layers_absent: str = ""
    timing_failure: str = ""


def shipped(findings: Sequence[Finding]) -> list[Finding]:
    """The findings of what ships: compressed artifacts; the float ones where there are no others."""
    compressed = [finding for finding in findings if not finding.result.artifact.is_baseline]
    return compressed or list(findings)


def device_gates(profile: DeviceProfile, contract: QuantizationContract, findings: Sequence[Finding]) -> tuple[Gate, ...]:
    """All gates of one device, artifact by artifact."""
    return tuple(gate for finding in shipped(findings) for gate in _artifact_gates(profile, contract, finding))


def notes(profile: DeviceProfile, findings: Sequence[Finding]) -> tuple[str, ...]:
    """What was not asked, and why."""
    absent = [one for one in shipped(findings) if one.layers_absent and not one.result.artifact.is_baseline]
    unasked = [f"Layer parity was not asked of {one.result.artifact.label}: {one.layers_absent}" for one in absent]
    timed = [name for name, limit in profile.budgets if isinstance(limit, int | float) and name != "size_bytes"]
    others = [one.result for one in shipped(findings) if one.result.evidence is not Evidence.MEASURED and not one.result.failure]
    return (
        *unasked,
        *(
            f"{result.artifact.label} ran in {result.runtime}: {result.evidence.value} evidence, so its times and memory are not"
            f" the device's, and no gate was asked about {', '.join(timed)}."
            for result in others
            if timed
        ),
    )


def _artifact_gates(profile: DeviceProfile, contract: QuantizationContract, finding: Finding) -> Iterator[Gate]:
    result = finding.result
    target = result.artifact.label
    if result.failure:
        yield _runs_gate(result)
        return
    if not result.artifact.is_baseline and contract.entries:
        yield contract_gate(result.artifact, contract)
        has_integers = any(entry.role == "activation" for entry in contract.activations)  # weight-only layers make none to replay
        if has_integers and not finding.layers_absent:
            expected = _computed_entries(result.artifact, contract)
            failure = finding.layers_failure
            yield layer_gate(target, result.layers, expected=expected, tolerances=profile.tolerances, failure=failure)
    yield metric_gate(target, result.metric, tolerances=profile.tolerances)
    if profile.tolerances.slice_drop_points is not None:
        yield slice_gate(target, result.metric, limit=profile.tolerances.slice_drop_points)
    if result.regression is not None:
        yield from regression_gates(target, result.regression, tolerances=profile.tolerances, evidence=result.evidence)
    if result.evidence is Evidence.MEASURED:
        yield from _timing_gates(finding, profile.budgets)
    for name, has_bytes in (("arena", profile.hardware.memory_bytes), ("flash", profile.hardware.storage_bytes)):
        needed = result.measurement(name)
        if needed is not None and has_bytes is not None:
            yield room_gate(target, needed, has_bytes=has_bytes)
    if profile.budgets.size_bytes is not None:
        yield _size_gate(result.artifact, profile.budgets.size_bytes)


def _computed_entries(artifact: Artifact, contract: QuantizationContract) -> list[str]:
    """Entries that a layer of the file computes, by the contract report."""
    held = artifact.contract_report.tensors
    return [entry.name for entry in contract.activations if entry.role == "activation" and entry.name in held]


def _runs_gate(result: ArtifactResult) -> Gate:
    return Gate(
        name="runs",
        target=result.artifact.label,
        found=result.failure,
        limit=f"answers every input in {result.runtime}",
        outcome=Outcome.FAIL,
        advice="Read the message and the run's log; export again, or leave this target out.",
    )


def contract_gate(artifact: Artifact, contract: QuantizationContract) -> Gate:
    """Whether the file holds every entry of the contract, by the report that was read back from its bytes."""
    outcomes = {outcome.name: outcome for outcome in artifact.contract_report.outcomes}
    missing = [entry.name for entry in contract.entries if entry.name not in outcomes]
    dropped = [outcome for outcome in outcomes.values() if outcome.outcome == "dropped"]
    counts = artifact.contract_report.counts
    found = ", ".join(f"{counts[kind]} {kind}" for kind in ("honoured", "re-typed", "folded", "dropped") if counts.get(kind))
    if missing:
        found = f"{found or 'nothing'}; {len(missing)} not reported ({', '.join(missing[:3])}{', …' if len(missing) > 3 else ''})"
    advice = ""
    if dropped:
        first = dropped[0]
        reason = first.reason or "no reason given"
        advice = f"'{first.name}' is not in the file ({reason}): keep that layer float (keep_float) or change the layer."
    elif missing:
        advice = "The converter did not report on every entry; export again with the converter that made the contract's run."
    return Gate(
        name="contract",
        target=artifact.label,
        found=found,
        limit=f"0 of {len(contract.entries)} entries dropped",
        outcome=Outcome.FAIL if dropped or missing else Outcome.PASS,
        advice=advice,
    )


def layer_gate(
    target: str, layers: Sequence[LayerParity], *, expected: Sequence[str], tolerances: Tolerances, failure: str = ""
) -> Gate:
    """Whether every layer of the file, fed the program's own integers, answers as the program does.

    Args:
        target: The artifact's label.
        layers: What the replay found.
        expected: Entries that the file computes.
        tolerances: How far and how many.
        failure: Why there was no replay.
    """
    steps, needed = tolerances.layer_steps, tolerances.layer_within_share
    limit = f"{100 * needed:g} % within {steps} step{'s' if steps != 1 else ''}"
    gate = Gate(name="layer parity", target=target, found=failure, limit=limit, outcome=Outcome.INCONCLUSIVE)
    if failure:
        advice = "The file's layers could not be run one by one; the run's log holds the details."
        return gate.replace(found=f"not replayed: {failure}", advice=advice)
    if not layers:
        return gate.replace(found="no layer was replayed", advice="Export again: the file names no tensor of the contract.")
    total = sum(layer.value_count for layer in layers)
    within = sum(_within(layer, steps) for layer in layers)
    exact = sum(layer.exact_share * layer.value_count for layer in layers) / max(total, 1)
    worst = max(layers, key=lambda layer: (layer.largest_steps, 1 - layer.exact_share))
    found = f"{len(layers)} layers, {_percent(exact)} exact, {_percent(within / max(total, 1))} within {steps}"
    found += f", largest {worst.largest_steps} ({worst.entry})" if worst.largest_steps else ""
    gate = gate.replace(found=found)
    if within < needed * total:
        beyond = [layer for layer in layers if _within(layer, steps) < layer.value_count]
        names = ", ".join(f"{layer.entry} ({layer.op}, {layer.largest_steps} steps)" for layer in beyond[:3])
        advice = f"{len(beyond)} layers differ by more: {names}. Keep them float (keep_float), or report the kernel."
        return gate.replace(outcome=Outcome.FAIL, advice=advice)
    missing = sorted(set(expected) - {layer.entry for layer in layers})
    if missing:
        advice = f"{len(missing)} layers of the file were not replayed ({', '.join(missing[:3])}); the run's log may say why."
        return gate.replace(found=f"{found}; {len(missing)} layers not replayed", advice=advice)
    return gate.replace(outcome=Outcome.PASS)


def _percent(share: float) -> str:
    """A share in percent, cut off and not rounded: 99.99999 % does not become 100 %.

    >>> _percent(0.9999999), _percent(1.0)
    ('99.999 %', '100 %')
    """
    return f"{math.floor(share * 1e5) / 1e3:g} %"


def _within(layer: LayerParity, steps: int) -> int:
    """Values of a layer within ``steps``; counted from the histogram, whose last bin holds everything larger."""
    if layer.largest_steps <= steps:
        return layer.value_count
    return sum(layer.difference_counts[: min(steps + 1, len(layer.difference_counts) - 1)])


def metric_gate(target: str, metric: MetricResult | None, *, tolerances: Tolerances) -> Gate:
    """Non-inferiority: is the artifact's score, sample by sample against float, surely less than the tolerance worse?"""
    limit = tolerances.metric_drop_points
    gate = Gate(
        name="metric drop",
        target=target,
        found="",
        limit=f"less than {limit:g} point{'s' * (limit != 1)}",
        outcome=Outcome.INCONCLUSIVE,
    )
    if metric is None:
        advice = "Give the task evaluation data: Task(..., evaluation=...)."
        return gate.replace(found="no evaluation data", advice=advice)
    low, high = metric.drop_interval
    found = f"{metric.drop_points:+.2f} points (95 % CI {low:+.2f} to {high:+.2f}; {metric.sample_count:,} samples)"
    gate = gate.replace(name="metric drop", found=found)
    if high < limit:
        return gate.replace(outcome=Outcome.PASS)
    if low > limit:
        advice = f"{metric.name} falls from {metric.float_value:.4f} to {metric.value:.4f}:"
        advice += " look at the layer errors, and keep the worst layers float."
        return gate.replace(outcome=Outcome.FAIL, advice=advice)
    more = samples_to_decide(metric.sample_count, estimate=metric.drop_points, interval=metric.drop_interval, limit=limit)
    if more is None:
        return gate.replace(advice="Bring more evaluation samples.")
    side = "pass" if metric.drop_points < limit else "fail"
    advice = f"It needs about {more:,} more evaluation samples to {side}, if the drop stays as it is."
    power = passing_power(metric.drop_interval, limit=limit)
    advice += f" With as many as now a model that loses nothing passes in about {power:.0%} of trials."
    return gate.replace(advice=advice)


def slice_gate(target: str, metric: MetricResult | None, *, limit: float) -> Gate:
    """Non-inferiority in every slice.

    It passes where each slice's own 95 % upper bound lies below the limit, and fails where a lower bound that holds for all
    slices together lies above it.
    """
    gate = Gate(
        name="slice drop", target=target, found="no slices", outcome=Outcome.INCONCLUSIVE,
        limit=f"less than {limit:g} point{'s' * (limit != 1)} in every slice",
    )  # fmt: skip
    if metric is None or not metric.slices:
        return gate.replace(advice="Give the task slices (Task(..., slices=...)) or integer targets, whose classes are slices.")
    worst = max(metric.slices, key=lambda one: one.drop_interval[1])
    low, high = worst.drop_interval
    found = f"{len(metric.slices)} slices; {worst.group} {worst.name}: {worst.drop_points:+.2f} points"
    gate = gate.replace(found=f"{found} (95 % CI {low:+.2f} to {high:+.2f}; {worst.sample_count:,} samples)")
    if failed := [one for one in metric.slices if one.lowest_drop_points > limit]:
        names = ", ".join(f"{one.group} {one.name} ({one.drop_points:+.2f})" for one in failed[:3])
        return gate.replace(outcome=Outcome.FAIL, advice=f"{len(failed)} of {len(metric.slices)} slices lose more: {names}.")
    open_ones = [one for one in metric.slices if one.drop_interval[1] >= limit]
    if not open_ones:
        return gate.replace(outcome=Outcome.PASS)
    more = [
        samples_to_decide(one.sample_count, estimate=one.drop_points, interval=one.drop_interval, limit=limit)
        for one in open_ones
    ]
    needed = max((count for count in more if count is not None), default=None)
    amount = f"up to {needed:,} more samples of each, if the drops stay as they are" if needed else "more samples of each"
    return gate.replace(advice=f"{len(open_ones)} slices cannot be told yet: it needs {amount}.")


def _timing_gates(finding: Finding, budgets: Budgets) -> Iterator[Gate]:
    result = finding.result
    target = result.artifact.label
    if budgets.slowdown_ratio is not None and not result.artifact.is_baseline:
        yield _slowdown_gate(finding, budgets.slowdown_ratio)
    if budgets.latency_p90_ms is not None:
        yield _latency_gate(finding, budgets.latency_p90_ms)
    if budgets.load_time_ms is not None:
        yield _plain_gate("load time", target, result.measurement("load_time"), limit=budgets.load_time_ms, unit="ms")
    if budgets.peak_memory_bytes is not None:
        memory = result.measurement("peak_memory")
        yield _plain_gate("peak memory", target, memory, limit=budgets.peak_memory_bytes, unit="bytes")


def _slowdown_gate(finding: Finding, limit: float) -> Gate:
    found = finding.result.measurement("slowdown_ratio")
    gate = Gate(
        name="slowdown",
        target=finding.result.artifact.label,
        found="not measured",
        limit=f"at most {limit:g} times the float artifact's latency",
        outcome=Outcome.INCONCLUSIVE,
    )
    if found is None or found.interval is None:
        why = finding.timing_failure or "no float artifact ran beside it"
        advice = "Validate again." if finding.timing_failure else "Export the float baseline of this target too."
        return gate.replace(found=f"not measured: {why}", advice=advice)
    low, high = found.interval
    gate = gate.replace(found=f"{found.value:.3f} (95 % CI {low:.3f} to {high:.3f}; {found.note.split(';')[0]})")
    if high <= limit:
        return gate.replace(outcome=Outcome.PASS)
    if low > limit:
        slower = "Integers are slower than float here" if finding.result.artifact.precision != "float32" else "It is slower here"
        advice = f"{slower}: too small a model to gain, or layers that fell back (see the artifact's notes)."
        return gate.replace(outcome=Outcome.FAIL, advice=advice)
    return gate.replace(advice="The limit lies inside the interval: measure on a quieter machine, or for longer.")


def _latency_gate(finding: Finding, limit: float) -> Gate:
    latency = finding.result.measurement("latency")
    gate = Gate(
        name="latency p90",
        target=finding.result.artifact.label,
        found=f"not measured: {finding.timing_failure}",
        limit=f"at most {limit:g} ms",
        outcome=Outcome.INCONCLUSIVE,
        advice="Validate again; the run's log says what went wrong.",
    )
    if latency is None or latency.distribution is None:
        return gate
    import numpy as np

    low, high = quantile_interval(np.array(latency.distribution.samples), 0.9)
    gate = gate.replace(found=f"{latency.distribution.p90:.3f} ms (95 % CI {low:.3f} to {high:.3f})", advice="")
    if high <= limit:
        return gate.replace(outcome=Outcome.PASS)
    if low > limit:
        return gate.replace(outcome=Outcome.FAIL, advice="Compress further, or raise the budget.")
    return gate.replace(advice="The limit lies inside the interval: measure on a quieter device, or for longer.")


def _plain_gate(name: str, target: str, found: Measurement | None, *, limit: float, unit: str) -> Gate:
    allowed = f"at most {_amount(limit, unit)}"
    gate = Gate(name=name, target=target, found="not measured", limit=allowed, outcome=Outcome.INCONCLUSIVE)
    if found is None:
        return gate.replace(advice="Validate again; the run's log says what went wrong.")
    gate = gate.replace(found=_amount(found.value, unit))
    if found.value <= limit:
        return gate.replace(outcome=Outcome.PASS)
    return gate.replace(outcome=Outcome.FAIL, advice=f"It is {found.value / limit:.2f} times the budget.")


def room_gate(target: str, needed: Measurement, *, has_bytes: int) -> Gate:
    """Whether a microcontroller can hold the model's arena, or its file, at all; the rest of the program needs some room too."""
    gate = _plain_gate(needed.name, target, needed, limit=has_bytes, unit="bytes")
    if gate.outcome is Outcome.FAIL:
        return gate.replace(advice="The device has less than that. Take a smaller input, fewer channels, or another device.")
    return gate.replace(found=f"{gate.found} ({needed.evidence.value}; {needed.value / has_bytes:.0%} of what the device has)")


def _amount(value: float, unit: str) -> str:
    """A value with its unit, bytes as kB or MB.

    >>> _amount(57400, "bytes"), _amount(2.5e6, "bytes"), _amount(12.5, "ms")
    ('57.4 kB', '2.5 MB', '12.5 ms')
    """
    if unit != "bytes":
        return f"{value:.3g} {unit}"
    return f"{value / 1e6:.3g} MB" if value >= 1e6 else f"{value / 1e3:.3g} kB"


def _size_gate(artifact: Artifact, limit: int) -> Gate:
    found = Measurement(name="size", value=artifact.size_bytes, unit="bytes", evidence=Evidence.MEASURED)
    return _plain_gate("size", artifact.label, found, limit=limit, unit="bytes")
