"""The truth table: what each gate answers to each kind of finding."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from edgekit.core.artifact import Artifact
from edgekit.core.contract import ContractReport, EntryOutcome, QuantizationContract, TensorQuantization
from edgekit.core.measurement import Distribution, Evidence, Measurement
from edgekit.core.profile import Budgets, DeviceProfile, Hardware, RuntimeChoice, Tolerances
from edgekit.core.validation import ArtifactResult, LayerParity, MetricResult, SliceResult
from edgekit.core.verdict import Gate, Outcome, Verdict
from edgekit.device_tests.gates import Finding, contract_gate, device_gates, layer_gate, metric_gate, notes, slice_gate

PASS, FAIL, OPEN = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


def entry(name: str, role: str = "activation") -> TensorQuantization:
    fields: dict[str, Any] = {"name": name, "role": role, "op": "conv2d", "shape": (1, 4), "dtype": "int8", "scale": (0.5,)}
    return TensorQuantization.model_validate(fields | {"zero_point": (0,), "minimum": -128, "maximum": 127, "node": name})


CONTRACT = QuantizationContract(entries=(entry("x", "input"), entry("conv"), entry("fc")))


def report(**outcomes: str) -> ContractReport:
    kinds = {"x": "honoured", "conv": "honoured", "fc": "re-typed"} | outcomes
    return ContractReport(
        outcomes=tuple(
            EntryOutcome.model_validate({"name": name, "outcome": kind, "tensor": "" if kind in {"folded", "dropped"} else name})
            for name, kind in kinds.items()
        )
    )


def artifact(precision: str = "int8", **changes: Any) -> Artifact:
    made = Artifact(
        target="onnx", path=Path("model"), sha256="0", size_bytes=1_000_000, precision=precision, inputs=(), outputs=(),
        contract_report=report(),
    )  # fmt: skip
    return made.replace(**changes)


def layer(name: str = "conv", counts: tuple[int, ...] = (100, 0), largest: int = 0) -> LayerParity:
    total = sum(counts)
    within = sum(counts[:2]) / total
    return LayerParity(
        entry=name, op="conv2d", value_count=total, exact_share=counts[0] / total, within_one_share=within,
        largest_steps=largest, difference_counts=counts,
    )  # fmt: skip


def metric(drop: float, low: float, high: float) -> MetricResult:
    return MetricResult(
        name="top-1 accuracy",
        value=0.9,
        float_value=0.9 + drop / 100,
        sample_count=1000,
        drop_points=drop,
        drop_interval=(low, high),
    )


def number(name: str, value: float, unit: str = "ms", **more: Any) -> Measurement:
    return Measurement(name=name, value=value, unit=unit, evidence=Evidence.MEASURED, **more)


def finding(*measurements: Measurement, evidence: Evidence = Evidence.MEASURED, precision: str = "int8", **more: Any) -> Finding:
    result = ArtifactResult(
        artifact=artifact(precision),
        runtime="onnxruntime",
        evidence=evidence,
        measurements=measurements,
        layers=(layer("conv"), layer("fc")),
        metric=metric(0.1, -0.2, 0.4),
    )
    timing = more.pop("timing_failure", "")
    return Finding(result.replace(**more), timing_failure=timing)


def profile(**budgets: Any) -> DeviceProfile:
    runtimes = {"onnx": RuntimeChoice(runtime="onnxruntime")}
    return DeviceProfile(name="p", title="P", runtimes=runtimes, budgets=Budgets(**budgets))


def named(gates: tuple[Gate, ...], name: str) -> Gate:
    (gate,) = [gate for gate in gates if gate.name == name]
    return gate


@pytest.mark.parametrize(
    ("changes", "outcome", "words"),
    [
        ({}, PASS, "2 honoured, 1 re-typed"),
        ({"conv": "folded"}, PASS, "1 folded"),
        ({"conv": "dropped"}, FAIL, "1 dropped"),
    ],
)
def test_contract_gate(changes: dict[str, str], outcome: Outcome, words: str) -> None:
    gate = contract_gate(artifact(contract_report=report(**changes)), CONTRACT)
    assert gate.outcome is outcome
    assert words in gate.found
    assert bool(gate.advice) == (outcome is not PASS)


def test_contract_gate_misses_entries_without_a_report() -> None:
    gate = contract_gate(artifact(contract_report=ContractReport()), CONTRACT)
    assert gate.outcome is FAIL
    assert "3 not reported (x, conv, fc)" in gate.found


@pytest.mark.parametrize(
    ("layers", "tolerances", "outcome", "words"),
    [
        ([layer("conv"), layer("fc")], {}, PASS, "2 layers, 100 % exact"),
        ([layer("conv", (99, 1), 1), layer("fc")], {}, PASS, "99.5 % exact, 100 % within 1, largest 1 (conv)"),
        ([layer("conv", (99, 0, 1), 2), layer("fc")], {}, FAIL, "largest 2 (conv)"),
        ([layer("conv", (99, 0, 1), 2), layer("fc")], {"layer_steps": 2}, PASS, "100 % within 2"),
        ([layer("conv", (99, 0, 1), 2), layer("fc")], {"layer_within_share": 0.99}, PASS, "99.5 % within 1"),
        ([layer("conv", (98, 0, 0, 0, 0, 0, 0, 0, 2), 200), layer("fc")], {"layer_steps": 9}, FAIL, "largest 200"),
        ([layer("conv", (99, 1), 1), layer("fc")], {"layer_steps": 0}, FAIL, "within 0"),
        ([layer("conv", (999_999, 1), 1), layer("fc", (10**9, 0))], {}, PASS, "99.999 % exact"),
        ([layer("conv")], {}, OPEN, "1 layers not replayed"),
        ([], {}, OPEN, "no layer was replayed"),
    ],
)
def test_layer_gate(layers: list[LayerParity], tolerances: dict[str, Any], outcome: Outcome, words: str) -> None:
    gate = layer_gate("onnx", layers, expected=["conv", "fc"], tolerances=Tolerances(**tolerances))
    assert gate.outcome is outcome
    assert words in gate.found
    assert bool(gate.advice) == (outcome is not PASS)


def test_layer_gate_says_why_there_was_no_replay() -> None:
    gate = layer_gate("onnx", [], expected=["conv"], tolerances=Tolerances(), failure="ConversionError: no tensor 'a'")
    assert gate.outcome is OPEN
    assert "no tensor 'a'" in gate.found


@pytest.mark.parametrize(
    ("result", "outcome", "advice"),
    [
        (metric(0.1, -0.3, 0.5), PASS, ""),
        (metric(-2.0, -3.0, -1.0), PASS, ""),
        (metric(3.0, 1.5, 4.5), FAIL, "look at the layer errors"),
        (metric(0.5, -0.5, 1.5), OPEN, "about 3,000 more evaluation samples to pass"),
        (metric(2.0, 0.5, 3.5), OPEN, "about 1,300 more evaluation samples to fail"),
        (metric(0.5, 0.0, 1.0), OPEN, "more evaluation samples"),
        (None, OPEN, "evaluation="),
    ],
)
def test_metric_gate(result: MetricResult | None, outcome: Outcome, advice: str) -> None:
    gate = metric_gate("onnx", result, tolerances=Tolerances(metric_drop_points=1.0))
    assert gate.outcome is outcome
    assert advice in gate.advice


@pytest.mark.parametrize(
    ("interval", "outcome"), [((0.4, 0.6), PASS), ((0.9, 1.0), PASS), ((0.9, 1.1), OPEN), ((1.01, 1.2), FAIL)]
)
def test_slowdown_gate(interval: tuple[float, float], outcome: Outcome) -> None:
    found = finding(number("slowdown_ratio", sum(interval) / 2, "ratio", interval=interval))
    gate = named(device_gates(profile(slowdown_ratio=1.0), CONTRACT, [found]), "slowdown")
    assert gate.outcome is outcome
    assert bool(gate.advice) == (outcome is not PASS)


def test_slowdown_without_a_baseline_or_after_a_crash_is_open() -> None:
    (lone,) = [gate for gate in device_gates(profile(slowdown_ratio=1.0), CONTRACT, [finding()]) if gate.name == "slowdown"]
    assert (lone.outcome, "Export the float baseline" in lone.advice) == (OPEN, True)
    crashed = finding(timing_failure="WorkerError: was killed by SIGSEGV")
    gate = named(device_gates(profile(slowdown_ratio=1.0, latency_p90_ms=1.0), CONTRACT, [crashed]), "slowdown")
    assert (gate.outcome, "SIGSEGV" in gate.found) == (OPEN, True)
    latency = named(device_gates(profile(slowdown_ratio=1.0, latency_p90_ms=1.0), CONTRACT, [crashed]), "latency p90")
    assert (latency.outcome, "SIGSEGV" in latency.found) == (OPEN, True)


@pytest.mark.parametrize(("limit", "outcome"), [(12.0, PASS), (9.0, OPEN), (5.0, FAIL)])
def test_latency_gate_asks_about_the_percentile(limit: float, outcome: Outcome) -> None:
    samples = [index / 10 for index in range(101)]
    latency = number("latency", 5.0, distribution=Distribution.of(samples))
    gate = named(device_gates(profile(latency_p90_ms=limit), CONTRACT, [finding(latency)]), "latency p90")
    assert gate.outcome is outcome
    assert gate.found.startswith("9.000 ms")


@pytest.mark.parametrize(
    ("budget", "limit", "outcome"),
    [
        ("load_time_ms", 20.0, PASS),
        ("load_time_ms", 19.0, FAIL),
        ("peak_memory_bytes", 50_000_000, PASS),
        ("peak_memory_bytes", 49_000_000, FAIL),
        ("size_bytes", 1_000_000, PASS),
        ("size_bytes", 999_999, FAIL),
    ],
)
def test_plain_budgets(budget: str, limit: float, outcome: Outcome) -> None:
    found = finding(number("load_time", 20.0), number("peak_memory", 50_000_000, "bytes"))
    gates = device_gates(profile(**{budget: limit}), CONTRACT, [found])
    assert gates[-1].outcome is outcome
    assert bool(gates[-1].advice) == (outcome is FAIL)


def test_a_reference_executor_is_never_asked_about_time_and_the_notes_say_so() -> None:
    asked = profile(slowdown_ratio=1.0, latency_p90_ms=0.001, load_time_ms=0.001, peak_memory_bytes=1, size_bytes=2_000_000)
    slow = finding(number("load_time", 20.0), evidence=Evidence.REFERENCE)
    assert [gate.name for gate in device_gates(asked, CONTRACT, [slow])] == ["contract", "layer parity", "metric drop", "size"]
    (note,) = notes(asked, [slow])
    assert "reference evidence" in note
    assert "latency_p90_ms, load_time_ms, peak_memory_bytes, slowdown_ratio" in note
    assert notes(profile(size_bytes=1), [slow]) == ()
    assert notes(asked, [finding()]) == ()


def test_a_failure_is_one_failed_gate_and_blocks() -> None:
    gates = device_gates(
        profile(slowdown_ratio=1.0), CONTRACT, [finding(failure="WorkerError: was killed by SIGSEGV"), finding()]
    )
    assert [gate.name for gate in gates][:2] == ["runs", "contract"]
    assert gates[0].outcome is FAIL
    assert "SIGSEGV" in gates[0].found
    assert Verdict.from_gates(gates).decision == "BLOCK"


def test_float_baselines_are_judged_only_where_they_are_all_there_is() -> None:
    baseline = finding(precision="float32", failure="IntegrityError: broken")
    gates = device_gates(profile(), CONTRACT, [finding(), baseline])
    assert {gate.target for gate in gates} == {"onnx"}
    alone = device_gates(profile(size_bytes=2_000_000), QuantizationContract(), [finding(precision="float32")])
    assert [(gate.name, gate.target) for gate in alone] == [("metric drop", "onnx-float32"), ("size", "onnx-float32")]


def test_a_pruned_float_program_is_judged_against_the_dense_one() -> None:
    """It is float32 and no baseline: metric and slowdown are asked, what is about integers is not."""
    ratio = number("slowdown_ratio", 1.3, "ratio", interval=(1.2, 1.4), note="wall time")
    pruned = finding(ratio, precision="float32")
    pruned = dataclasses.replace(pruned, result=pruned.result.replace(artifact=artifact("float32", is_baseline=False)))
    gates = device_gates(profile(slowdown_ratio=1.0), QuantizationContract(), [pruned, finding(precision="float32")])
    assert [(gate.name, gate.target) for gate in gates] == [("metric drop", "onnx"), ("slowdown", "onnx")]
    assert gates[1].outcome is FAIL
    assert gates[1].advice.startswith("It is slower here")


def part(name: str, drop: float, low: float, high: float, lowest: float | None = None) -> SliceResult:
    return SliceResult(
        group="person", name=name, sample_count=200, value=0.9, float_value=0.9, drop_points=drop, drop_interval=(low, high),
        lowest_drop_points=low if lowest is None else lowest,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "outcome", "words"),
    [
        ([part("a", 0.1, -0.5, 0.8), part("b", -0.2, -1.0, 0.9)], PASS, "2 slices; person b"),
        ([part("a", 5.0, 3.0, 7.0, 2.0), part("b", 0, -1, 0.5)], FAIL, "1 of 2 slices lose more: person a (+5.00)"),
        ([part("a", 2.0, 1.1, 3.0, 0.4), part("b", 0, -1, 0.5)], OPEN, "1 slices cannot be told yet"),
        ([part("a", 0.5, -1.5, 2.5)], OPEN, "up to 3,000 more samples of each"),
    ],
)
def test_slice_gate(parts: list[SliceResult], outcome: Outcome, words: str) -> None:
    gate = slice_gate("onnx", metric(0.1, -0.2, 0.4).replace(slices=tuple(parts)), limit=1.0)
    assert gate.outcome is outcome
    assert words in f"{gate.found} {gate.advice}"


def test_a_profile_asks_for_slices_or_not() -> None:
    profile = DeviceProfile(name="x", title="X", runtimes={"onnx": RuntimeChoice(runtime="onnxruntime")})
    asked = profile.replace(tolerances=Tolerances(slice_drop_points=1.0))
    names = [[gate.name for gate in device_gates(one, CONTRACT, [finding()])] for one in (profile, asked)]
    assert "slice drop" not in names[0]
    assert "slice drop" in names[1]
    assert slice_gate("onnx", None, limit=1.0).outcome is OPEN


@pytest.mark.parametrize(("needed", "outcome"), [(90_000, Outcome.PASS), (100_001, Outcome.FAIL)])
def test_what_a_microcontroller_cannot_hold_blocks_on_an_estimate_too(needed: float, outcome: Outcome) -> None:
    small = profile().replace(hardware=Hardware(memory_bytes=100_000, storage_bytes=200_000))
    arena = Measurement(name="arena", value=needed, unit="bytes", evidence=Evidence.ESTIMATED)
    flash = arena.replace(name="flash", value=250_000)
    found = finding(arena, flash, evidence=Evidence.ESTIMATED)
    gates = {gate.name: gate for gate in device_gates(small, CONTRACT, [found])}
    assert gates["arena"].outcome is outcome and gates["flash"].outcome is Outcome.FAIL
    assert "less than that" in gates["flash"].advice
    assert "estimated; 90% of what the device has" in gates["arena"].found or outcome is Outcome.FAIL
    assert not {"arena", "flash"} & {gate.name for gate in device_gates(profile(), CONTRACT, [found])}


def test_a_runtime_that_replays_nothing_is_not_asked_and_the_notes_say_so() -> None:
    whole = dataclasses.replace(finding(), layers_absent="the runner runs whole files only")
    assert "layer parity" not in [gate.name for gate in device_gates(profile(), CONTRACT, [whole])]
    (note,) = notes(profile(), [whole])
    assert note == "Layer parity was not asked of onnx: the runner runs whole files only"
