"""A realistic report, built by hand: three targets with float baselines on one device, 20 layers, Core ML by reference."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.core.artifact import Artifact
from edgekit.core.compressed import CompressedRecord, StepRecord
from edgekit.core.contract import ContractReport, EntryOutcome, FloatLayer, QuantizationContract, TensorQuantization
from edgekit.core.measurement import Distribution, Evidence, Measurement
from edgekit.core.profile import Budgets, DeviceProfile, Hardware, RuntimeChoice
from edgekit.core.recipe import Recipe
from edgekit.core.tensors import TensorSpec
from edgekit.core.validation import (
    ArtifactResult,
    DeviceResult,
    LayerError,
    LayerParity,
    MetricResult,
    OutputParity,
    Spread,
    ValidationReport,
)
from edgekit.core.verdict import Gate, Outcome, Verdict

RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert", "coreml": "coreml-reference"}
VERSIONS = {"onnx": "1.31.1", "tflite": "2.3.0", "coreml": "0.1.0"}
FILES = {"onnx": "watch.onnx", "tflite": "watch.tflite", "coreml": "watch.mlpackage"}
LAYERS = (
    [("stem.conv", "conv1d")]
    + [
        (f"blocks.{block}.{part}", op)
        for block in range(4)
        for part, op in (("depthwise", "conv1d"), ("pointwise", "conv1d"), ("add", "add"), ("pool", "max_pool1d"))
    ]
    + [("head.pool", "mean"), ("head.hidden", "linear"), ("head.logits", "linear")]
)


def digest(text: str) -> str:
    return "".join(f"{zlib.crc32(f'{text}{i}'.encode()):08x}" for i in range(8))


def entry(name: str, op: str, *, role: str = "activation", dtype: str = "int8", channels: int = 1) -> TensorQuantization:
    return TensorQuantization(
        name=name,
        role=role,
        op=op,
        layer=name.rsplit(".", 1)[0] if role in {"weight", "bias"} else name,
        shape=(channels, 16, 5) if role == "weight" else (1, 32, 100),
        dtype=dtype,
        scale=(0.0123,) * channels,
        zero_point=(0,) * channels,
        channel_axis=0 if channels > 1 else None,
        minimum=-128,
        maximum=127,
        node=f"node_{name.replace('.', '_')}",
        sha256=digest(name) if role in {"weight", "bias"} else "",
    )


def make_contract() -> QuantizationContract:
    entries = [entry("signal", "placeholder", role="input")]
    for name, op in LAYERS:
        if op in {"conv1d", "linear"}:
            entries += [
                entry(f"{name}.weight", op, role="weight", channels=32),
                entry(f"{name}.bias", op, role="bias", dtype="int32", channels=32),
            ]
        entries.append(entry(name, op))
    reasons = FloatLayer(
        layer="head.softmax", op="softmax", reason="it is the last layer and its output leaves the model as float32"
    )
    norm = FloatLayer(layer="gate.norm", op="layer_norm", reason="no target has an integer kernel for layer_norm")
    return QuantizationContract(entries=tuple(entries), float_layers=(norm, reasons))


def make_contract_report(target: str, contract: QuantizationContract) -> ContractReport:
    def outcome(e: TensorQuantization) -> EntryOutcome:
        if target == "onnx" and e.role in {"input", "activation"}:
            reason = "ONNX Runtime's x86 kernels want unsigned activations"
            return EntryOutcome(
                name=e.name, outcome="re-typed", tensor=f"{e.name}_q", dtype="uint8", zero_point_shift=128, reason=reason
            )
        if target == "tflite" and e.name.endswith(".pool") and "blocks" in e.name:
            return EntryOutcome(name=e.name, outcome="folded", reason="max_pool keeps its input's scale: no tensor of its own")
        if target == "coreml" and e.role == "bias":
            return EntryOutcome(
                name=e.name, outcome="re-typed", tensor=e.name, dtype="float32", reason="Core ML adds biases as float32"
            )
        if target == "coreml" and e.name == "head.logits":
            return EntryOutcome(name=e.name, outcome="dropped", reason="the converter leaves the last quantize out")
        return EntryOutcome(name=e.name, outcome="honoured", tensor=e.name, dtype=e.dtype)

    return ContractReport(outcomes=tuple(outcome(e) for e in contract.entries))


def make_artifact(target: str, precision: str, contract: QuantizationContract) -> Artifact:
    sizes = {"onnx": (57_412, 141_903), "tflite": (51_304, 139_260), "coreml": (63_870, 146_022)}
    is_float = precision == "float32"
    folder = f"{target}-float32" if is_float else target
    return Artifact(
        target=target,
        path=Path("/runs/watch/artifacts") / folder / FILES[target],
        sha256=digest(folder),
        size_bytes=sizes[target][is_float],
        precision=precision,
        inputs=(TensorSpec(name="signal", shape=(1, 6, 200), dtype="float32"),),
        outputs=(TensorSpec(name="output", shape=(1, 7), dtype="float32"),),
        labels=("walk", "run"),
        contract_report=ContractReport() if is_float else make_contract_report(target, contract),
        versions={"edgekit": "0.1.0"},
        notes=() if is_float or target != "coreml" else ("gate.norm runs in float32 between two dequantize operations",),
    )


def timed(
    rng: np.random.Generator, name: str, median: float, evidence: Evidence, *, note: str = "", count: int = 600
) -> Measurement:
    body = median * (1 + 0.03 * rng.gamma(2.0, 0.5, count))
    tail = np.where(rng.random(count) < 0.03, median * rng.gamma(2.0, 0.12, count), 0.0)
    distribution = Distribution.of([float(v) for v in body + tail])
    return Measurement(name=name, value=distribution.p50, unit="ms", evidence=evidence, distribution=distribution, note=note)


def make_result(artifact: Artifact, contract: QuantizationContract, *, drop: float | None = None) -> ArtifactResult:
    target, is_float = artifact.target, artifact.precision == "float32"
    rng = np.random.default_rng(zlib.crc32(artifact.label.encode()))
    evidence = Evidence.REFERENCE if target == "coreml" else Evidence.MEASURED
    median = {"onnx": (0.094, 0.187), "tflite": (0.071, 0.163), "coreml": (38.2, 21.7)}[target][is_float]
    load = {"onnx": 14.2, "tflite": 3.1, "coreml": 412.0}[target]
    memory = {"onnx": 61_200_000, "tflite": 34_800_000, "coreml": 188_000_000}[target]
    note = f"1 thread; warm-up: the first {40 + len(target)} of 1,280 inferences, found by MSER-5"
    measurements = (
        timed(rng, "latency", median, evidence, note=note),
        timed(rng, "cpu_time", median * 0.97, evidence, note=note),
        Measurement(name="load_time", value=load * (1.3 if is_float else 1), unit="ms", evidence=evidence),
        Measurement(name="peak_memory", value=memory + (900_000 if is_float else 0), unit="bytes", evidence=evidence),
        Measurement(name="size", value=artifact.size_bytes, unit="bytes", evidence=evidence),
    )
    if not is_float:
        how = "medians of 64 alternating rounds, wall time; 95 % interval by resampling rounds"
        for name, ratio in (("slowdown_ratio", 0.503), ("slowdown_ratio_cpu", 0.498)):
            interval = (ratio - 0.009, ratio + 0.011)
            measurements += (Measurement(name=name, value=ratio, unit="ratio", evidence=evidence, interval=interval, note=how),)
    drop = {"onnx": 0.12, "tflite": 0.20, "coreml": 0.08}[target] if drop is None else drop
    drop = 0.0 if is_float else drop
    flips = 0 if is_float else 14 + round(20 * abs(drop))
    metric = MetricResult(
        name="top-1 accuracy",
        value=0.8912 - drop / 100,
        float_value=0.8912,
        sample_count=1243,
        drop_points=drop,
        drop_interval=(0.0, 0.0) if is_float else (drop - 0.41, drop + 0.43),
        flip_count=flips,
        gained=0 if is_float else 4,
        lost=0 if is_float else 6,
        p_value=1.0 if is_float else 0.754,
    )
    output = OutputParity(
        output="output",
        snr_db=None if is_float else {"onnx": 46.1, "tflite": 38.7, "coreml": 51.9}[target],
        largest_difference=0.0 if is_float else 0.043,
        largest_steps=None,
        exact_share=1.0 if is_float else 0.81,
    )
    return ArtifactResult(
        artifact=artifact,
        runtime=RUNTIMES[target],
        runtime_version=VERSIONS[target],
        evidence=evidence,
        measurements=measurements,
        outputs=(output,),
        layers=() if is_float else make_layers(target, contract, rng),
        metric=metric,
    )


def make_layers(target: str, contract: QuantizationContract, rng: np.random.Generator) -> tuple[LayerParity, ...]:
    present = contract_names(target, contract)
    layers = []
    for e in contract.activations:
        if e.role == "input" or e.name not in present:
            continue
        exact = 1.0 if e.op == "max_pool1d" or target == "coreml" else 1.0 - float(rng.gamma(1.2, 0.0012))
        layers.append(
            LayerParity(
                entry=e.name, op=e.op, value_count=25_600, exact_share=exact, within_one_share=1.0, largest_steps=int(exact < 1)
            ),
        )
    return tuple(layers)


def contract_names(target: str, contract: QuantizationContract) -> set[str]:
    return set(make_contract_report(target, contract).tensors)


def make_spreads() -> tuple[Spread, ...]:
    rows = [
        ("torch", "onnx", 46.1, 0.81, 0.0032),
        ("torch", "tflite", 38.7, 0.62, 0.0080),
        ("torch", "coreml", None, 1.0, 0.0),
        ("onnx", "tflite", 37.9, 0.60, 0.0088),
        ("onnx", "coreml", 46.1, 0.81, 0.0032),
        ("tflite", "coreml", 38.7, 0.62, 0.0080),
    ]
    return tuple(
        Spread(first=a, second=b, snr_db=snr, identical_share=same, disagreement_share=flips, sample_count=1243)
        for a, b, snr, same, flips in rows
    )


def passed(name: str, target: str, found: str, limit: str) -> Gate:
    return Gate(name=name, target=target, found=found, limit=limit, outcome=Outcome.PASS)


def make_gates(variant: str) -> tuple[Gate, ...]:
    gates = []
    for target, drop in {"onnx": 0.12, "tflite": 0.20, "coreml": 0.08}.items():
        interval = f"(95 % CI {drop - 0.41:+.2f} to {drop + 0.43:+.2f}; 1,243 samples)"
        parity = "20 layers, 99.896% exact, 100.0000% within 1, largest 1 (blocks.1.pointwise)"
        gates += [
            passed("contract", target, "22 honoured, 21 re-typed", "0 of 43 entries dropped"),
            passed("layer parity", target, parity, "100 % within 1 step"),
            passed("metric drop", target, f"{drop:+.2f} points {interval}", "less than 1 points"),
        ]
        if target != "coreml":
            ratio = "0.503 (95 % CI 0.494 to 0.514; medians of 64 alternating rounds, wall time)"
            gates += [
                passed("slowdown", target, ratio, "at most 1 times the float artifact's latency"),
                passed("latency p90", target, "0.101 ms (95 % CI 0.100 to 0.103)", "at most 2 ms"),
            ]
        gates.append(passed("size", target, "0.0574 MB", "at most 0.1 MB"))
    if variant == "BLOCK":
        advice = "top-1 accuracy falls from 0.8912 to 0.8720: look at the layer errors, and keep the worst float."
        gates[8] = gates[8].replace(
            found="+1.92 points (95 % CI +1.11 to +2.74; 1,243 samples)", outcome=Outcome.FAIL, advice=advice
        )
        found = "2.310 ms (95 % CI 2.291 to 2.334)"
        gates[10] = gates[10].replace(found=found, outcome=Outcome.FAIL, advice="Compress further, or raise the budget.")
    if variant == "INCONCLUSIVE":
        advice = "It would pass with about 2,400 more evaluation samples, if the drop stays as it is."
        found = "+0.71 points (95 % CI +0.22 to +1.21; 1,243 samples)"
        gates[2] = gates[2].replace(found=found, outcome=Outcome.INCONCLUSIVE, advice=advice)
    return tuple(gates)


def make_profile() -> DeviceProfile:
    return DeviceProfile(
        name="host",
        title="This machine",
        hardware=Hardware(),
        runtimes={
            target: RuntimeChoice(runtime=runtime, evidence=Evidence.REFERENCE if target == "coreml" else Evidence.MEASURED)
            for target, runtime in RUNTIMES.items()
        },
        budgets=Budgets(latency_p90_ms=2.0, size_bytes=100_000, slowdown_ratio=1.0),
    )


def make_compressed() -> CompressedRecord:
    return CompressedRecord(
        name="watch",
        recipe=Recipe.parse_text("int8").model_dump(mode="json"),
        inputs=(TensorSpec(name="signal", shape=(1, 6, 200), dtype="float32"),),
        outputs=(TensorSpec(name="output", shape=(1, 7), dtype="float32"),),
        labels=("walking", "jogging", "pushups"),
        seed=7,
        history=(
            StepRecord(
                kind="capture",
                summary="Captured 61 operators, 33,415 parameters.",
                seconds=1.42,
                cpu_seconds=1.37,
                details={"parameters": 33_415, "operators": 61},
            ),
            StepRecord(
                kind="quantize",
                summary="Quantized 18 of 20 layers to int8, calibrated on 512 samples.",
                seconds=6.1,
                cpu_seconds=5.8,
                details={"samples": 512, "layers": 18, "folded_batch_norms": 9, "weight_bytes": 33_100, "snr_db": 31.4192},
            ),
        ),
        versions={"torch": "2.13.0", "torchao": "0.18.0"},
        sha256={"program.pt2": digest("program"), "float.pt2": digest("float"), "contract.json": digest("contract")},
    )  # fmt: skip


def make_report(variant: str = "SHIP") -> ValidationReport:
    """A report whose verdict is ``variant``."""
    contract = make_contract()
    artifacts = tuple(make_artifact(t, p, contract) for t in RUNTIMES for p in ("int8", "float32"))
    drops = {"tflite": 1.92} if variant == "BLOCK" else {}
    results = tuple(make_result(a, contract, drop=drops.get(a.target)) for a in artifacts)
    rng = np.random.default_rng(3)
    activations = [e for e in contract.activations if e.role == "activation"]
    falling = np.linspace(41, 30, len(activations)) + rng.normal(0, 1.6, len(activations))
    falling[[10, 13]] -= 9
    errors = tuple(
        LayerError(entry=e.name, inherited_snr_db=float(v), own_snr_db=float(v) + 4 + 3 * float(rng.random()))
        if e.op != "max_pool1d"
        else LayerError(entry=e.name, inherited_snr_db=float(v))
        for e, v in zip(activations, falling, strict=True)
    )
    device = DeviceResult(
        profile=make_profile(),
        facts={
            "processor": "Example CPU <fast> & steady",
            "architecture": "x86_64",
            "cores": "2",
            "memory": "24 GiB",
            "system": "Linux 6.1",
        },
        results=results,
        spreads=make_spreads(),
        verdict=Verdict.from_gates(make_gates(variant)),
        notes=(
            "coreml ran in coreml-reference: reference evidence, so its times and memory are not the device's,"
            " and no gate was asked about latency_p90_ms, slowdown_ratio.",
        ),
        seconds=48.3,
    )
    return ValidationReport(
        created="2026-11-22T09:30:00+00:00",
        compressed=make_compressed(),
        contract=contract,
        artifacts=artifacts,
        layer_errors=errors,
        devices=(device,),
        environment={
            "edgekit": "0.1.0",
            "python": "3.11.2",
            "system": "Linux x86_64",
            "torch": "2.13.0",
            "onnxruntime": "1.31.1",
        },
    )


@pytest.fixture(scope="session")
def build_report() -> Callable[[str], ValidationReport]:
    return make_report


@pytest.fixture(scope="session")
def shipping() -> ValidationReport:
    return make_report("SHIP")


@pytest.fixture
def hostile(shipping: ValidationReport) -> ValidationReport:
    """Names as a malicious model file would give them."""
    name = "<script>alert(1)</script>\x1b[31m[bold]"

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: renamed(item) for key, item in value.items()}
        if isinstance(value, list):
            return [renamed(item) for item in value]
        return name if value in {"blocks.2.pointwise", "This machine", "signal", "head.softmax", "watch"} else value

    return ValidationReport.model_validate(renamed(shipping.model_dump(mode="json")))
