"""``examples/runtimes.py``: three files, one answer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "runtimes.py"


@pytest.mark.slow
def test_three_files_answer_alike_and_are_timed(tmp_path: Path) -> None:
    for framework in ("onnxruntime", "litert_torch", "coremltools"):
        pytest.importorskip(framework, reason="needs pip install 'edgekit[onnx,tflite,coreml]'")
    environment = {**os.environ, "EDGEKIT_CACHE": "off"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [name for name in ("onnxruntime", "litert", "coreml-reference") if f": {name}, answers" not in done.stdout] == []
    difference = re.search(r"largest difference: ([\d.]+)", done.stdout)
    assert difference is not None
    assert float(difference[1]) < 0.02, done.stdout
    timed = re.findall(r"ms \((\w+)\), (\d+)% of it", done.stdout)
    assert [evidence for evidence, _ in timed] == ["measured", "measured", "reference"], done.stdout
    assert int(timed[0][1]) > 0
