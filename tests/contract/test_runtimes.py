"""What every runtime promises (:class:`edgekit.core.plugins.Runtime`)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekit import registry
from edgekit.core.artifact import Artifact
from edgekit.core.compressed import Compressed
from edgekit.core.errors import DataError, IntegrityError
from edgekit.core.plugins import Runtime, Session
from edgekit.core.run import RunFolder
from edgekit.runtimes.native.build import missing_tools
from edgekit.runtimes.torch import record_layers

HERE = ("onnxruntime", "litert", "coreml-reference", "tflite-micro", "ethos-u-vela")
EXACT_SHARES = {"tflite-micro": 0.85, "ethos-u-vela": 0.85}
"""Where less than 0.9 is equal: TFLite's reference kernels round a mean twice."""
NO_COMPILER = f"edgekit-runner cannot be built here, install {' '.join(missing_tools())}" if missing_tools() else ""
NATIVE = [
    pytest.param(name, marks=pytest.mark.skipif(bool(NO_COMPILER), reason=NO_COMPILER))
    for name in ("native-onnx", "native-tflite")
]
FRAMEWORKS = ("torch", "tensorflow", "onnx", "onnxruntime", "coremltools", "litert_torch", "ai_edge_litert")


def artifact_of(run: RunFolder, runtime: Runtime, precision: str = "int8") -> Artifact:
    return Artifact.load(run.artifacts / (runtime.target if precision == "int8" else f"{runtime.target}-float32"))


@pytest.mark.parametrize("name", registry.names("runtimes"))
def test_describes_itself_without_importing_a_framework(name: str) -> None:
    code = (
        "import sys; from edgekit import registry; part = registry.runtime(sys.argv[1]);"
        "print(part.name, *[m for m in sys.argv[2:] if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, name, *FRAMEWORKS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [name]
    assert isinstance(registry.runtime(name), Runtime)


@pytest.mark.parametrize("name", [*HERE, *NATIVE])
@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_answers_like_the_program(run: RunFolder, compressed: Compressed, name: str, precision: str) -> None:
    runtime = registry.runtime(name)
    artifact = artifact_of(run, runtime, precision)
    state = compressed if precision == "int8" else compressed.as_float()
    session = runtime.load(artifact.path, threads=1)
    assert isinstance(session, Session)
    assert session.inputs == artifact.inputs
    assert session.outputs == artifact.outputs
    step = compressed.contract["head"].scale[0] if precision == "int8" else 1e-5
    for image, expected in zip(state.golden.inputs["image"], state.golden.outputs["output"], strict=True):
        found = session.run({"image": image})
        assert list(found) == ["output"]
        assert found["output"].dtype == np.float32
        assert np.abs(found["output"] - expected).max() <= 2.01 * step
    session.close()
    assert runtime.version()


@pytest.mark.parametrize("name", HERE)
def test_every_layer_is_within_one_step_of_the_program(run: RunFolder, compressed: Compressed, name: str) -> None:
    runtime = registry.runtime(name)
    artifact = artifact_of(run, runtime)
    recorded = record_layers(run.compressed / "program.pt2", compressed.contract, dict(compressed.golden.inputs))
    replayed = runtime.replay_layers(artifact, compressed.contract, recorded)
    computed = {entry.name for entry in compressed.contract.activations if entry.role == "activation"}
    tensors = artifact.contract_report.tensors
    assert set(replayed) == {entry for entry in computed if entry in tensors}
    assert len(replayed) >= 5
    for entry, integers in replayed.items():
        assert integers.shape == recorded[entry].shape, entry
        steps = np.abs(integers.astype(int) - recorded[entry].astype(int))
        assert steps.max() <= 1, f"{entry}: {steps.max()} steps"
        assert (steps == 0).mean() > EXACT_SHARES.get(name, 0.9), f"{entry}: {(steps == 0).mean():.3f} exact"


@pytest.mark.parametrize("name", HERE)
def test_replay_notices_a_wrong_layer(run: RunFolder, compressed: Compressed, name: str) -> None:
    runtime = registry.runtime(name)
    recorded = record_layers(run.compressed / "program.pt2", compressed.contract, dict(compressed.golden.inputs))
    wrong = {**recorded, "stem.0": np.clip(recorded["stem.0"].astype(int) + 20, -128, 127).astype(np.int8)}
    replayed = runtime.replay_layers(artifact_of(run, runtime), compressed.contract, wrong)
    assert np.abs(replayed["depthwise"].astype(int) - recorded["depthwise"].astype(int)).max() > 1
    np.testing.assert_array_equal(
        replayed["head"], runtime.replay_layers(artifact_of(run, runtime), compressed.contract, recorded)["head"]
    )


@pytest.mark.parametrize("name", [*HERE, *NATIVE])
@pytest.mark.parametrize(
    ("inputs", "complaint"),
    [
        ({"imag": np.zeros((1, 3, 16, 20), np.float32)}, "Did you mean 'image'"),
        ({}, "is missing"),
        ({"image": np.zeros((1, 3, 20, 16), np.float32)}, r"expects float32 \[1, 3, 16, 20\]"),
        ({"image": np.zeros((1, 3, 16, 20), np.float64)}, "float64"),
    ],
)
def test_wrong_inputs_are_refused(run: RunFolder, name: str, inputs: dict[str, np.ndarray], complaint: str) -> None:
    runtime = registry.runtime(name)
    session = runtime.load(artifact_of(run, runtime).path)
    with pytest.raises(DataError, match=complaint):
        session.run(inputs)
    session.close()


@pytest.mark.parametrize("name", ["onnxruntime", "litert", "tflite-micro", "ethos-u-vela", *NATIVE])
def test_foreign_file_is_refused(name: str, tmp_path: Path) -> None:
    runtime = registry.runtime(name)
    file = tmp_path / f"model.{runtime.target}"
    file.write_bytes(b"this is no model" * 64)
    with pytest.raises(IntegrityError, match=file.name):
        runtime.load(file)


def test_foreign_package_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "model.mlpackage"
    (package / "Data").mkdir(parents=True)
    (package / "Manifest.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"model.mlpackage"):
        registry.runtime("coreml-reference").load(package)
