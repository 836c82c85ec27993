"""Sample data: a lab of six devices, a benchmark with everything in it, a history of releases. Nothing of it was measured."""

from __future__ import annotations

import math
import zlib

import numpy as np

from edgekit.core.device_bench import AuditCheck, BenchedArtifact, BenchedDevice, Interference, ScenarioResult
from edgekit.core.history_entry import History, HistoryEntry, HistoryNumber, HistoryResult
from edgekit.core.measurement import Distribution, Evidence, Measurement
from edgekit.core.operator_profile import OperatorProfile, OperatorTime, with_shares
from edgekit.core.profile import DeviceProfile, RuntimeChoice
from edgekit.core.sustained import Drift, SustainedRun, Window
from edgekit.core.validation import ArtifactResult, DeviceResult, Skipped, ValidationReport
from edgekit.core.verdict import Verdict
from tests.report.conftest import RUNTIMES, make_gates, make_report

LAB = {
    "host": ("This machine", Evidence.MEASURED, 1.0, ("onnx", "tflite", "coreml")),
    "pi-5": ("Raspberry Pi 5", Evidence.MEASURED, 3.1, ("onnx", "tflite")),
    "pixel-8": ("Google Pixel 8, by adb", Evidence.MEASURED, 1.6, ("tflite",)),
    "mac-m2": ("Mac mini, M2", Evidence.MEASURED, 0.6, ("onnx", "coreml")),
    "cortex-a72": ("Arm Cortex-A72, emulated by qemu", Evidence.EMULATED, 400.0, ("onnx", "tflite")),
    "ethos-u55": ("Arm Ethos-U55 with 256 MACs, estimated by Vela", Evidence.ESTIMATED, 12.0, ("tflite",)),
}
"""Name -> title, evidence, how many times this machine's latency, targets."""


def make_lab(variant: str = "BLOCK") -> ValidationReport:
    """Six devices and three targets; the second device blocks, where ``variant`` says so."""
    report = make_report()
    devices = tuple(_device(report, name, variant if name == "pi-5" else "SHIP") for name in LAB)
    return report.replace(devices=devices)


def _device(report: ValidationReport, name: str, variant: str) -> DeviceResult:
    title, evidence, factor, targets = LAB[name]
    base = report.devices[0]
    results = tuple(
        _slower(result, evidence if result.artifact.target != "coreml" or name == "mac-m2" else Evidence.REFERENCE, factor)
        for result in base.results
        if result.artifact.target in targets
    )
    if name == "mac-m2":
        results = tuple(result.replace(runtime="coreml") if result.artifact.target == "coreml" else result for result in results)
    skipped = tuple(
        Skipped(label=one.label, target=one.target, reason=f"{name} names no runtime for {one.target}")
        for one in report.artifacts
        if one.target not in targets
    )
    runtimes = {target: RuntimeChoice(runtime=RUNTIMES[target], evidence=evidence) for target in targets}
    gates = tuple(gate for gate in make_gates(variant) if gate.target in targets)
    return base.replace(
        profile=DeviceProfile(name=name, title=title, runtimes=runtimes, transport="local"),
        results=results,
        skipped=skipped,
        spreads=(),
        verdict=Verdict.from_gates(gates),
        notes=(),
    )


def _slower(result: ArtifactResult, evidence: Evidence, factor: float) -> ArtifactResult:
    rng = np.random.default_rng(zlib.crc32(f"{result.artifact.label}{factor}".encode()))
    measurements = []
    for one in result.measurements:
        scaled = one.replace(evidence=evidence)
        if one.unit == "ms" and one.name != "load_time":
            spread = one.distribution
            samples = [] if spread is None else [factor * v * (1 + 0.02 * rng.random()) for v in spread.samples]
            made = Distribution.of(samples) if samples else None
            scaled = scaled.replace(value=made.p50 if made else factor * one.value, distribution=made)
        measurements.append(scaled)
    metric = result.metric
    if metric is not None and not result.artifact.is_baseline:
        shift = float(rng.normal(0, 0.15))
        metric = metric.replace(value=metric.value - shift / 100, drop_points=metric.drop_points + shift)
    return result.replace(evidence=evidence, measurements=tuple(measurements), metric=metric)


def times(name: str, median: float, *, evidence: Evidence = Evidence.MEASURED, count: int = 12, seed: int = 0) -> Measurement:
    rng = np.random.default_rng(seed)
    spread = Distribution.of([median * (1 + 0.05 * float(v)) for v in rng.gamma(2.0, 0.5, count)])
    return Measurement(name=name, value=spread.p50, unit="ms", evidence=evidence, distribution=spread)


def make_windows(count: int = 60) -> tuple[Window, ...]:
    """A device that throttles after ten minutes."""
    found = []
    for at in range(count):
        hot = 1 / (1 + math.exp(-(at - 22) / 3))
        p50 = 2.9 * (1 + 0.35 * hot) + 0.02 * math.sin(at)
        found.append(
            Window(start_s=30.0 * at, seconds=30.0, inference_count=9000, p50_ms=p50, p90_ms=p50 * 1.08 + 0.1 * (at % 7 == 0),
                   cpu_ms=p50 * 0.97, waiting_share=0.002 * (at % 5), temperature_c=46 + 38 * (1 - math.exp(-at / 12)),
                   clock_mhz=2400 - 600 * hot)
        )  # fmt: skip
    return tuple(found)


def make_profile() -> OperatorProfile:
    rows = [("QLinearConv", 9, 0.11, "integer"), ("QLinearAdd", 4, 0.02, "integer"), ("MaxPool", 4, 0.012, "movement"),
            ("QuantizeLinear", 1, 0.004, "conversion"), ("DequantizeLinear", 2, 0.003, "conversion"),
            ("Softmax", 1, 0.002, "float"), ("com.microsoft.nchwc.ReorderInput", 2, 0.006, "movement")]  # fmt: skip
    operators = with_shares(
        OperatorTime(name=f"{kind}_{at}", type=kind, time_ms=ms, kind=how, provider="CPU", is_fallback=kind == "Softmax")  # type: ignore[arg-type]
        for kind, count, ms, how in rows
        for at in range(count)
    )
    return OperatorProfile(model="watch.onnx", runtime="onnxruntime 1.31.1", provider="CPU", threads=1, run_count=20,
                           inference_ms=1.4, operators=operators, evidence=Evidence.MEASURED)  # fmt: skip


def make_scenarios(median: float) -> tuple[ScenarioResult, ...]:
    found = []
    for scenario, percentile, size in (("single-stream", 90, 1), ("multi-stream", 99, 8), ("offline", 50, 1243)):
        value = median * size**0.95
        latency = times("latency", value, count=300, seed=percentile).replace(interval=(0.985 * value, 1.02 * value), value=value)
        rate = Measurement(name="throughput", value=1000 * size / value, unit="samples/s", evidence=Evidence.MEASURED,
                           interval=(980 * size / value, 1020 * size / value))  # fmt: skip
        disturbed = Interference(is_flagged=scenario == "multi-stream", sentence="multi stream: 31 % of rounds were disturbed."
                                 if scenario == "multi-stream" else "")  # fmt: skip
        found.append(
            ScenarioResult(scenario=scenario, query_size=size, query_count=1800, sample_count=1800 * size,  # type: ignore[arg-type]
                           different_samples=64, percentile=percentile, latency=latency, throughput=rate,
                           ended_by="time" if scenario == "multi-stream" else "precision", relative_half_width=0.034,
                           interference=disturbed)
        )  # fmt: skip
    return tuple(found)


def make_bench(name: str = "pi-5") -> BenchedDevice:
    title, evidence, factor, targets = LAB[name]
    artifacts = [_benched(target, precision, 0.09 * factor, evidence)
                 for target in ("onnx", "tflite") if target in targets for precision in ("int8", "float32")]  # fmt: skip
    return BenchedDevice(
        created="2026-11-22T11:30:00+00:00",
        profile=DeviceProfile(name=name, title=title, runtimes={"onnx": RuntimeChoice(runtime="onnxruntime", evidence=evidence)}),
        facts={"processor": "Cortex-A76"},
        artifacts=tuple(artifacts),
        skipped={"coreml": f"{name} names no runtime for coreml"},
        environment={"edgekit": "0.1.0"},
    )


def _benched(target: str, precision: str, median: float, evidence: Evidence) -> BenchedArtifact:
    is_float, main = precision == "float32", target == "onnx" and precision == "int8"
    median *= 1.9 if is_float else 1.0
    drift = Drift(ratio=1.33, interval=(1.31, 1.35), settled_ratio=1.35, settled_interval=(1.34, 1.36))
    sustained = SustainedRun(
        minutes=30, windows=make_windows(), drift=drift, is_throttled=True, governor="ondemand", evidence=evidence,
        signs=("The clock fell from 2,400 to 1,800 MHz.", "The hottest sensor rose from 46 to 84 °C."),
        advice="Cool the device, or judge by the settled latency.",
        measurements=(times("sustained_latency", 3.9),),
    )  # fmt: skip
    ratio = Measurement(name="slowdown_ratio", value=0.52, unit="ratio", evidence=evidence, interval=(0.51, 0.53))
    cells = (times("latency", median, evidence=evidence, count=600), times("cpu_time", median * 0.98, evidence=evidence),
             times("cold_load_time", 41.0, evidence=evidence), times("warm_load_time", 12.0, evidence=evidence),
             times("first_inference", 3 * median, evidence=evidence),
             Measurement(name="peak_memory", value=41_200_000, unit="bytes", evidence=evidence))  # fmt: skip
    return BenchedArtifact(
        label=target if not is_float else f"{target}-float32", target=target, precision=precision, sha256="c" * 64,
        size_bytes=139_260 if is_float else 51_304, runtime=RUNTIMES[target], runtime_version="1.31.1", evidence=evidence,
        measurements=cells if is_float else (*cells, ratio), scenarios=make_scenarios(median) if main else (),
        sustained=sustained if main else None, profile=make_profile() if main else None, audit=make_audit() if main else (),
        profile_failure="" if main else "the runtime has no profiler on this device",
    )  # fmt: skip


def make_audit() -> tuple[AuditCheck, ...]:
    return (
        AuditCheck(name="accuracy-in-performance-mode", outcome="passed", sentence="1,243 of 1,243 sampled answers are equal."),
        AuditCheck(name="no-caching", outcome="failed", sentence="Repeated inputs took 0.61 of the time (0.58 to 0.64)."),
        AuditCheck(name="other-seed", outcome="undecided", sentence="1.01 of the time (0.94 to 1.09)."),
    )


def make_history(count: int = 9) -> History:
    """Releases of the watch on two devices, by two targets; one emulated device; latency gets worse in release 6."""
    entries = []
    for at in range(count):
        for name in ("host", "pi-5", "cortex-a72"):
            title, evidence, factor, targets = LAB[name]
            results = [_past(target, at, factor, evidence) for target in targets if target != "coreml"]
            entries.append(
                HistoryEntry(
                    number=len(entries) + 1, created=f"2026-{3 + at:02d}-14T09:00:00+00:00", kind="validate", run=f"watch-1.{at}",
                    task="watch", recipe="int8", metric="top-1 accuracy", device=name, device_title=title,
                    facts={"processor": "Cortex-A76"}, versions={"edgekit": f"0.{1 + at // 3}.0"},
                    verdict="BLOCK" if at == 6 else "SHIP", results=tuple(results),
                    open_gates=("fail: latency p90 of onnx",) if at == 6 else (),
                )
            )  # fmt: skip
    return History(entries=tuple(entries))


def _past(target: str, at: int, factor: float, evidence: Evidence) -> HistoryResult:
    rng = np.random.default_rng([at, len(target), int(10 * factor)])
    latency = factor * (0.094 if target == "onnx" else 0.071) * (1.22 if at == 6 else 1.0) * (1 + 0.01 * float(rng.normal()))
    score = 0.884 + 0.001 * at + 0.001 * float(rng.normal())
    rows = [("score", score, "share", (score - 0.004, score + 0.004), 1243),
            ("latency", latency, "ms", (0.99 * latency, 1.01 * latency), 600),
            ("size", 57_412.0 - 300 * at, "bytes", None, 1)]  # fmt: skip
    numbers = tuple(
        HistoryNumber(name=n, value=v, unit=u, evidence=evidence, interval=i, sample_count=c) for n, v, u, i, c in rows
    )
    return HistoryResult(label=target, target=target, precision="int8", artifact_sha256=f"{at:064x}", runtime=RUNTIMES[target],
                         runtime_version="1.31.1", evidence=evidence, numbers=numbers)  # fmt: skip
