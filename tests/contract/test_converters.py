"""What every converter promises (:class:`edgekit.core.plugins.Converter`)."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from edgekit import pipeline, registry
from edgekit.core.artifact import Artifact, ExportOptions
from edgekit.core.compressed import Compressed
from edgekit.core.errors import OutputError, UsageError
from edgekit.core.files import sha256, size_bytes
from edgekit.core.plugins import Converter
from edgekit.core.run import RunFolder

TARGETS = registry.targets()
FRAMEWORKS = ("torch", "tensorflow", "onnx", "onnxruntime", "coremltools", "litert_torch", "ai_edge_litert")


@pytest.mark.parametrize("target", TARGETS)
def test_describes_itself_without_importing_a_framework(target: str) -> None:
    code = (
        "import sys; from edgekit import registry; part = registry.converter(sys.argv[1]);"
        "print(part.name, registry.missing_module(part) or '-', *[m for m in sys.argv[2:] if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, target, *FRAMEWORKS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [target, "-"]
    assert isinstance(registry.converter(target), Converter)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_artifact_describes_the_file(run: RunFolder, compressed: Compressed, target: str, precision: str) -> None:
    folder = run.artifacts / (target if precision == "int8" else f"{target}-float32")
    artifact = Artifact.load(folder)
    assert (artifact.target, artifact.precision) == (target, precision)
    assert artifact.sha256 == sha256(artifact.path)
    assert artifact.size_bytes == size_bytes(artifact.path)
    assert [spec.name for spec in artifact.inputs] == [spec.name for spec in compressed.record.inputs]
    assert [spec.name for spec in artifact.outputs] == [spec.name for spec in compressed.record.outputs]
    assert [spec.shape for spec in artifact.inputs] == [spec.shape for spec in compressed.record.inputs]
    assert artifact.labels == tuple("abcde")
    assert artifact.preprocessing == {"scale": 1.0}
    assert artifact.versions
    assert artifact.source_sha256 == sha256(run.compressed / "compressed.json")


@pytest.mark.parametrize("target", TARGETS)
def test_every_contract_entry_has_an_outcome(run: RunFolder, compressed: Compressed, target: str) -> None:
    report = Artifact.load(run.artifacts / target).contract_report
    assert [outcome.name for outcome in report.outcomes] == [entry.name for entry in compressed.contract.entries]
    assert report.counts.get("dropped", 0) == 0
    explained = [outcome for outcome in report.outcomes if outcome.outcome != "honoured"]
    assert all(outcome.reason for outcome in explained)
    names = [report.tensors[entry.name].tensor for entry in compressed.contract.activations if entry.name in report.tensors]
    assert len(names) == len(set(names)), "two activations claim one tensor"


@pytest.mark.parametrize("target", TARGETS)
def test_float_baseline_claims_no_integers(run: RunFolder, target: str) -> None:
    assert Artifact.load(run.artifacts / f"{target}-float32").contract_report.outcomes == ()


@pytest.mark.parametrize("target", TARGETS)
def test_integers_make_the_file_smaller(run: RunFolder, target: str) -> None:
    small, large = (Artifact.load(run.artifacts / name) for name in (target, f"{target}-float32"))
    assert np.isfinite(small.size_bytes / large.size_bytes)
    assert small.precision != large.precision
    assert small.sha256 != large.sha256


def test_export_again_keeps_what_is_there_and_refuses_what_differs(run: RunFolder) -> None:
    before = {artifact.label: artifact.path.stat().st_mtime_ns for artifact in run.load_artifacts()}
    again = pipeline.export(run.path, targets=["onnx"])
    assert [artifact.label for artifact in again] == ["onnx", "onnx-float32"]
    assert again[0].path.stat().st_mtime_ns == before["onnx"]
    with pytest.raises(OutputError, match="other options"):
        pipeline.export(run.path, targets=["onnx"], options=ExportOptions(integer_io=True))


def test_unknown_target_is_named_with_its_neighbour(run: RunFolder) -> None:
    with pytest.raises(UsageError, match="Did you mean 'tflite'"):
        pipeline.export(run.path, targets=["tflight"])
    with pytest.raises(UsageError, match="No target was asked for"):
        pipeline.export(run.path, targets=[])
