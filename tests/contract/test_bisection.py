"""Every target's files can be bisected: an unaltered one diverges nowhere, an altered one in the layer that was altered."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from edgekit.core.artifact import Artifact
from edgekit.core.compressed import Compressed
from edgekit.core.errors import IntegrityError, UsageError
from edgekit.core.run import RunFolder
from edgekit.device_tests.bisection.bisect import bisect
from edgekit.device_tests.bisection.examine import Examination, examine, report
from edgekit.device_tests.bisection.loss import with_float_snr
from edgekit.device_tests.bisection.reproduction import write_reproduction
from edgekit.registry import runtime
from edgekit.report.bisection import describe, notebook_html

RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert", "coreml": "coreml-reference"}
LABELS = [f"{target}{suffix}" for target in RUNTIMES for suffix in ("", "-float32")]


@pytest.fixture(scope="session")
def faults() -> ModuleType:
    """What the benchmark plants faults with."""
    path = Path(__file__).parents[2] / "benchmarks" / "lab" / "faults.py"
    spec = importlib.util.spec_from_file_location("edgekit_planted_faults", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def exported(run: RunFolder, compressed: Compressed) -> Callable[[str], Examination]:
    """The comparison of an unaltered artifact, made once."""
    made: dict[str, Examination] = {}

    def get(label: str) -> Examination:
        if label not in made:
            artifact = Artifact.load(run.artifacts / label)
            made[label] = examine(compressed, artifact, artifact.path, runtime=RUNTIMES[artifact.target], sample_count=2)
        return made[label]

    return get


@pytest.mark.parametrize("label", LABELS)
def test_an_unaltered_file_diverges_nowhere(label: str, exported: Callable[[str], Examination]) -> None:
    found = exported(label)
    result = report(found, run="run", original=None, reproductions={})
    assert result.passed
    assert result.is_exported
    layers = {row.layer for row in result.layers}
    expected = {"stem", "head"} if label == "tflite-float32" else {"depthwise", "pointwise", "head"}  # there, others end fused
    assert expected <= {name.split(".")[0] for name in layers}
    assert all(row.local_error <= 1.001 for row in result.layers if row.unit == "steps")
    placed = found.walk.placed
    assert len(placed) == len(result.provenance.matches)
    assert "computes what" in next(iter(describe(result)))


@pytest.mark.parametrize(("label", "kind"), [
    ("onnx", "pad"), ("onnx", "scale"), ("onnx-float32", "activation"), ("tflite", "weight"), ("tflite", "scale"),
    ("tflite-float32", "weight"), ("coreml", "scale"), ("coreml-float32", "pad"), ("coreml-float32", "weight"),
])  # fmt: skip
@pytest.mark.parametrize("beside", [pytest.param(False, id="alone"), pytest.param(True, id="beside", marks=pytest.mark.proof)])
def test_a_planted_fault_is_named(
    label: str,
    kind: str,
    beside: bool,
    exported: Callable[[str], Examination],
    compressed: Compressed,
    faults: ModuleType,
    tmp_path: Path,
) -> None:
    before = exported(label)
    artifact = before.artifact
    fault = faults.plant(artifact.path, tmp_path / "altered", target=artifact.target, kind=kind, rng=np.random.default_rng(4))
    found = examine(
        compressed, artifact, fault.path, runtime=RUNTIMES[artifact.target], sample_count=2, known=before if beside else None
    )
    first = report(found, run="run", original=before.file, reproductions={}).first
    assert first is not None
    right = {match.node for match in _provenance(before) if match.tensor == fault.tensor}
    assert right
    layers = {row.layer for row in report(before, run="", original=None, reproductions={}).layers if row.node in right}
    assert first.layer in layers or set(first.layers) & layers, f"{fault.what}: named {first.layer} ({first.ops}), not {layers}"
    assert not first.is_equal
    assert first.local_error > first.tolerance or first.grid


def _provenance(found: Examination) -> Any:
    return report(found, run="", original=None, reproductions={}).provenance.matches


@pytest.mark.parametrize("label", ["onnx", "tflite-float32", "coreml-float32"])
def test_the_script_shows_the_same_difference_by_itself(
    label: str, exported: Callable[[str], Examination], compressed: Compressed, faults: ModuleType, tmp_path: Path
) -> None:
    artifact = exported(label).artifact
    fault = faults.plant(artifact.path, tmp_path / "altered", target=artifact.target, kind="weight", rng=np.random.default_rng(1))
    found = examine(compressed, artifact, fault.path, runtime=RUNTIMES[artifact.target], sample_count=2, known=exported(label))
    suspect = found.found.suspects[0]
    folder = write_reproduction(found, suspect, tmp_path / "script", tracer=runtime(RUNTIMES[artifact.target]))
    done = subprocess.run([sys.executable, folder / "repro.py"], capture_output=True, text=True, check=True)
    shown = float(done.stdout.rpartition("largest difference ")[2].partition(",")[0])
    assert shown == pytest.approx(found.walk.placed[suspect.node].candidate.error, rel=1e-3)


def test_the_whole_way(run: RunFolder, faults: ModuleType, tmp_path: Path) -> None:
    """Through the worker: the layer, what was altered, and a remedy that was tried."""
    artifact = Artifact.load(run.artifacts / "onnx")
    fault = faults.plant(artifact.path, tmp_path / "altered", target="onnx", kind="pad", rng=np.random.default_rng(4))
    result = bisect(run.path, target="onnx", file=fault.path, sample_count=1)
    assert not result.passed
    assert not result.is_exported
    first = result.first
    assert first is not None
    assert any("pads was" in line for line in first.altered)
    assert Path(first.reproduction, "repro.py").is_file()
    [remedy] = result.remedies
    assert remedy.helped
    assert remedy.error_after is not None
    assert remedy.error_after < remedy.error_before
    assert first.name in notebook_html(result)
    again = json.loads((run.path / "bisection" / "onnx" / "bisection.json").read_text())
    assert again["divergences"][0]["layer"] == first.layer


def test_what_cannot_be_bisected_is_said(run: RunFolder, compressed: Compressed, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Unknown target 'onxn'.*Did you mean 'onnx'"):
        bisect(run.path, target="onxn")
    with pytest.raises(UsageError, match="no artifact 'onnx-fp16'"):
        bisect(run.path, target="onnx", artifact="onnx-fp16")
    with pytest.raises(UsageError, match="does not exist"):
        bisect(run.path, target="onnx", file=tmp_path / "nowhere.onnx")
    artifact = Artifact.load(run.artifacts / "onnx")
    text = tmp_path / "text.onnx"
    text.write_text("no model")
    with pytest.raises(IntegrityError):
        examine(compressed, artifact, text, runtime="onnxruntime", sample_count=1)
    smaller = artifact.replace(inputs=(artifact.inputs[0].replace(shape=(1, 3, 8, 8)),))
    with pytest.raises(IntegrityError, match="another model"):
        examine(compressed, smaller, artifact.path, runtime="onnxruntime", sample_count=1)


def test_the_command_line_says_what_is_missing(run: RunFolder, command_line: Callable[..., Result]) -> None:
    result = command_line(f"bisect {run.path} --target tensorrt")
    assert result.exit_code == 2
    assert "Unknown target 'tensorrt'" in result.output


def test_against_the_float_program_each_layer_has_a_ratio(exported: Callable[[str], Examination], compressed: Compressed) -> None:
    found = exported("onnx")
    result = with_float_snr(report(found, run="run", original=None, reproductions={}), found, compressed)
    ratios = [row.float_snr_db for row in result.layers if row.float_snr_db is not None]
    assert ratios
    assert min(ratios) > 5
    with pytest.raises(UsageError, match="no other float program"):
        with_float_snr(result.replace(label="onnx-float32"), exported("onnx-float32"), compressed)
