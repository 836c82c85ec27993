"""Devices that are computed: a whole validation of a tiny net, and every number labelled as what it is."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("tflite_micro", reason="pip install 'edgekit[micro]' runs this")

from edgekit import pipeline, registry
from edgekit.core.artifact import Artifact
from edgekit.core.errors import ProfileError
from edgekit.core.files import sha256, size_bytes
from edgekit.core.measurement import Evidence
from edgekit.core.profile import DeviceProfile
from edgekit.core.run import RunFolder
from edgekit.core.task import Task
from edgekit.core.validation import ArtifactResult, DeviceResult
from edgekit.core.verdict import Decision
from edgekit.device_tests.host import host_facts
from edgekit.device_tests.jobs import Job
from edgekit.device_tests.profiles import load_profile, profile_names
from edgekit.device_tests.testing import FakeModel
from edgekit.device_tests.transports.estimated import EstimatedDevice
from edgekit.device_tests.transports.local import LocalTransport
from edgekit.device_tests.validate import validate_device
from tests.runtimes.native.tflite_models import Graph, schema

ESTIMATED = [file.stem for file in Path(__file__).parents[2].glob("device_tests/profiles/[!_]*.toml")
             if any(f'extends = "{base}"' in file.read_text() for base in ("_microcontroller", "_ethos-u"))]  # fmt: skip
CHOICE = {"tflite": {"runtime": "tflite-micro", "evidence": "estimated"}}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(x)).mean(-1))


def device(**changes: Any) -> DeviceProfile:
    fields: dict[str, Any] = {"name": "board", "title": "A board", "transport": "microcontroller", "runtimes": CHOICE}
    return DeviceProfile.model_validate(fields | changes)


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Task]:
    """A run with the int8 artifact for tflite."""
    torch.manual_seed(0)
    net = Net().eval()
    signals = np.random.default_rng(0).standard_normal((40, 3, 16)).astype(np.float32)
    with torch.no_grad():
        targets = net(torch.from_numpy(signals)).argmax(1).numpy()
    task = Task(
        name="tiny",
        model=net,
        example_inputs=signals[:1],
        calibration=[signals],
        evaluation=[(signals, targets)],
        labels=list("abcd"),
    )
    folder = tmp_path_factory.mktemp("estimates") / "run"
    pipeline.compress(task, recipe="int8", output=folder)
    pipeline.export(folder, targets=["tflite"], float_baseline=False)
    return RunFolder(folder), task


def validated(road: tuple[RunFolder, Task], profile: DeviceProfile) -> tuple[DeviceResult, ArtifactResult]:
    run, task = road
    output = run.validation("boards")  # one folder, so that torch answers once
    result = validate_device(
        profile, compressed_folder=run.compressed, artifacts=run.load_artifacts(), task=task, output=output, log=run.log
    )
    stored = json.loads((output / "result.json").read_text(encoding="utf-8"))
    assert DeviceResult.model_validate(stored) == result
    (one,) = result.results
    return result, one


def check_labels(one: ArtifactResult) -> None:
    """Nothing but the file's own size is called measured."""
    assert one.evidence is Evidence.ESTIMATED
    for measurement in one.measurements:
        assert measurement.evidence is (Evidence.MEASURED if measurement.name == "size" else Evidence.ESTIMATED)


@pytest.mark.proof
def test_a_microcontroller_with_an_exported_net(road: tuple[RunFolder, Task]) -> None:
    result, one = validated(road, load_profile("stm32f746g-disco"))
    check_labels(one)
    assert one.failure == ""
    assert one.metric is not None
    assert one.metric.sample_count == 40
    assert {"arena", "arena_tensors", "arena_structures", "flash", "operators", "size"} <= {
        found.name for found in one.measurements
    }
    assert not {"latency", "cpu_time", "load_time", "peak_memory"} & {found.name for found in one.measurements}
    assert one.layers
    assert max(layer.largest_steps for layer in one.layers) <= 1
    flash = one.measurement("flash")
    assert flash is not None
    assert flash.value == one.artifact.size_bytes
    assert result.facts["processor"] == "ST STM32F746NG"
    assert result.facts["memory"] == "320 KiB"
    assert result.facts["evidence"].startswith("estimated")
    asked = {gate.name for gate in result.verdict.gates}
    assert {"contract", "layer parity", "metric drop", "size"} <= asked
    assert not asked & {"slowdown", "latency p90", "load time", "peak memory"}


@pytest.mark.proof
def test_an_npu_with_an_exported_net(road: tuple[RunFolder, Task]) -> None:
    result, one = validated(road, load_profile("ethos-u55-128"))
    check_labels(one)
    assert one.failure == ""
    assert one.runtime_version is not None
    assert one.runtime_version.startswith("5.2.0, answers by tflite-micro")
    latency, cycles, share = (one.measurement(name) for name in ("latency", "cycles", "npu_share"))
    assert latency is not None
    assert cycles is not None
    assert share is not None
    assert latency.distribution is None
    assert latency.value == pytest.approx(cycles.value / 500e3)
    assert "Dequantize" in share.note
    assert one.layers
    assert result.facts["accelerators"] == "Ethos-U55-128"
    assert not {gate.name for gate in result.verdict.gates} & {"slowdown", "latency p90"}


@pytest.fixture
def dense(bench: Any) -> Artifact:
    """The fake program's one layer as an int8 ``.tflite`` file, float at both ends."""
    graph, kinds, codes = Graph(), schema.BuiltinOptions, schema.BuiltinOperator
    model, step = bench.int8_model, 1.001 / 127
    weights = np.round(np.array(model.weight, np.float32).T / step).astype(np.int8)
    bias = np.round(np.array(model.bias, np.float32) / (0.05 * step)).astype(np.int32)
    signal = graph.tensor("signal", "float32", (1, 2))
    x = graph.tensor("x", "int8", (1, 2), scale=0.05)
    kernel = graph.tensor("fc.weight", "int8", (3, 2), data=weights, scale=step)
    added = graph.tensor("fc.bias", "int32", (3,), data=bias, scale=np.float32(0.05 * step))
    layer = graph.tensor("fc", "int8", (1, 3), scale=0.05)
    y = graph.tensor("y", "float32", (1, 3))
    graph.operator(codes.QUANTIZE, [signal], [x], schema.QuantizeOptionsT(), kinds.QuantizeOptions)
    options = schema.FullyConnectedOptionsT()
    graph.operator(codes.FULLY_CONNECTED, [x, kernel, added], [layer], options, kinds.FullyConnectedOptions)
    graph.operator(codes.DEQUANTIZE, [layer], [y], schema.DequantizeOptionsT(), kinds.DequantizeOptions)
    path = bench.folder / "model.tflite"
    path.write_bytes(graph.finish([signal], [y], (["x"], ["output"])))
    return Artifact(
        target="tflite", path=path, sha256=sha256(path), size_bytes=size_bytes(path), precision="int8", inputs=model.inputs,
        outputs=model.outputs, contract_report=bench.report,
    )  # fmt: skip


def judged(bench: Any, artifact: Artifact, profile: DeviceProfile) -> tuple[DeviceResult, ArtifactResult]:
    result = validate_device(profile, artifacts=[artifact], **bench.arguments())
    (one,) = result.results
    assert one.failure == ""
    assert one.metric is not None
    assert one.metric.sample_count == 400
    assert [layer.entry for layer in one.layers] == ["fc"]
    assert one.layers[0].largest_steps <= 1
    assert one.evidence is Evidence.ESTIMATED
    for measurement in one.measurements:
        assert measurement.evidence is (Evidence.MEASURED if measurement.name == "size" else Evidence.ESTIMATED)
    assert result.facts["evidence"].startswith("estimated")
    assert not {gate.name for gate in result.verdict.gates} & {"slowdown", "latency p90", "load time", "peak memory"}
    return result, one


def test_a_microcontroller_from_end_to_end(bench: Any, dense: Artifact) -> None:
    result, one = judged(bench, dense, load_profile("stm32f746g-disco"))
    found = {measurement.name: measurement for measurement in one.measurements}
    assert {"arena", "arena_tensors", "arena_structures", "flash", "operators", "size"} <= set(found)
    assert not {"latency", "cpu_time", "load_time", "peak_memory"} & set(found)
    assert found["flash"].value == found["size"].value == dense.size_bytes
    assert found["operators"].note == "kernels to register: DEQUANTIZE, FULLY_CONNECTED, QUANTIZE"
    assert (result.facts["processor"], result.facts["memory"]) == ("ST STM32F746NG", "320 KiB")
    assert {"contract", "layer parity", "metric drop", "size"} <= {gate.name for gate in result.verdict.gates}


def test_an_npu_from_end_to_end(bench: Any, dense: Artifact) -> None:
    pytest.importorskip("ethosu.vela", reason="pip install 'edgekit[micro]' runs this")
    result, one = judged(bench, dense, load_profile("ethos-u55-128"))
    assert str(one.runtime_version).startswith("5.2.0, answers by tflite-micro")
    found = {measurement.name: measurement for measurement in one.measurements}
    assert found["latency"].distribution is None
    assert found["latency"].value == pytest.approx(found["cycles"].value / 500e3)
    assert found["npu_share"].note.startswith("1 of 3 operators; on the CPU: Quantize 'x'")
    assert result.facts["accelerators"] == "Ethos-U55-128"


def test_an_arena_of_the_board_that_is_too_small_is_that_artifacts_failure(bench: Any, dense: Artifact) -> None:
    profile = device(runtimes={"tflite": CHOICE["tflite"] | {"options": {"arena_bytes": 600}}})
    result = validate_device(profile, artifacts=[dense], **bench.arguments())
    assert "needs an arena of" in result.results[0].failure
    assert "allows 600" in result.results[0].failure
    assert result.verdict.decision is Decision.BLOCK


def test_facts_are_the_profiles_never_this_machines() -> None:
    here = host_facts()
    for name in ESTIMATED:
        profile = load_profile(name)
        facts = registry.transport(profile.transport)(profile).facts()  # type: ignore[operator]
        assert facts["processor"] == profile.hardware.processor
        assert facts["architecture"] == profile.hardware.architecture != platform.machine()
        assert facts["system"] not in {"Linux", "Darwin"} or name == "imx93-evk"
        assert facts["processor"] != here["processor"]
        assert not {"load average", "python", "governor"} & set(facts)
        assert facts["evidence"].startswith("estimated")


def test_every_estimated_profile_is_whole() -> None:
    assert len(ESTIMATED) >= 20
    assert set(ESTIMATED) <= set(profile_names())
    for name in ESTIMATED:
        profile = load_profile(name)
        assert profile.sources
        assert "Nothing is attached" in profile.attach
        assert EstimatedDevice.obstacle(profile) == ""
        assert set(profile.runtimes) == {"tflite"}
        choice = profile.runtimes["tflite"]
        assert choice.evidence is Evidence.ESTIMATED
        options = registry.runtime(choice.runtime).options
        assert set(choice.options) <= {option.name for option in options}
        if profile.hardware.memory_bytes is not None and profile.budgets.peak_memory_bytes is not None:
            assert profile.budgets.peak_memory_bytes <= profile.hardware.memory_bytes / 2


def test_every_npu_profile_is_a_configuration_that_vela_knows() -> None:
    pytest.importorskip("ethosu.vela", reason="pip install 'edgekit[micro]' runs this")
    from edgekit.runtimes.vela.configuration import read_configuration

    found = {name: load_profile(name) for name in ESTIMATED if load_profile(name).transport == "npu-estimate"}
    assert len(found) >= 8
    for profile in found.values():
        configuration = read_configuration(profile.runtimes["tflite"].options)
        assert configuration.accelerator.removeprefix("ethos-u") in profile.hardware.accelerators[0].lower()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"runtimes": {"tflite": {"runtime": "tflite-micro"}}},
            "claims evidence 'measured'.*evidence = \"estimated\" in .runtimes.tfl",
        ),
        (
            {"runtimes": {"tflite": {"runtime": "litert", "evidence": "estimated"}}},
            "'litert' for target 'tflite' appraises nothing",
        ),
        ({"systems": {"Linux": {"tflite": {"runtime": "tflite-micro", "evidence": "emulated"}}}}, "claims evidence 'emulated'"),
        ({"connection": {"host": "board.local"}}, "connects to nothing, and 'connection' sets host"),
    ],
)
@pytest.mark.parametrize("transport", ["microcontroller", "npu-estimate"])
def test_profiles_that_claim_more_are_refused(transport: str, changes: dict[str, Any], complaint: str) -> None:
    profile = device(transport=transport, **changes)
    with pytest.raises(ProfileError, match=complaint):
        registry.transport(transport)(profile)  # type: ignore[operator]


def test_what_is_missing_is_named_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit.runtimes.tflite_micro.runtime import TFLiteMicroRuntime

    monkeypatch.setattr(TFLiteMicroRuntime, "modules", ("no_such_module",))
    assert EstimatedDevice.obstacle(device()) == "'no_such_module' is not installed: pip install 'edgekit[micro]'"
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert EstimatedDevice.obstacle(device()).endswith("wheels for Linux on x86-64 only: run edgekit on such a machine")


def test_limits_of_the_device_do_not_bind_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Job] = []
    monkeypatch.setattr(LocalTransport, "run_agent", lambda _, job, **__: seen.append(Job.read_json(job / "job.json")))
    artifact = FakeModel(weight=((1.0,),), bias=(0.0,)).export(tmp_path)
    plan = Job(
        kind="answers", what="x", runtime="tflite-micro", threads=1, artifacts=(artifact,), affinity="63", memory_bytes=256 * 1024
    )
    plan.write_json(tmp_path / "job.json")
    EstimatedDevice(device()).run_agent(tmp_path, timeout_s=1)
    assert seen == [plan.replace(memory_bytes=None, affinity="")]
