"""``examples/foreign.py``: a model file to three targets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.core.artifact import Artifact

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "foreign.py"


@pytest.mark.slow
def test_a_model_file_becomes_three_artifacts(tmp_path: Path) -> None:
    for framework in ("onnxruntime", "litert_torch", "coremltools"):
        pytest.importorskip(framework, reason="needs pip install 'edgekit[onnx,tflite,coreml]'")
    environment = {**os.environ, "EDGEKIT_CACHE": "off"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    made = [Artifact.load(path) for path in sorted((tmp_path / "runs" / "given" / "artifacts").iterdir())]
    assert [one.target for one in made] == ["coreml", "onnx", "tflite"]
    assert {(spec.name, spec.shape) for one in made for spec in one.inputs} == {("image", (1, 3, 32, 32))}
    assert all(f"{one.label}: {one.size_bytes:,} bytes" in done.stdout for one in made)
