"""``examples/device_lab.py``: one net on three devices, each number with its evidence."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "device_lab.py"


@pytest.mark.slow
def test_three_devices_say_what_they_rest_on(tmp_path: Path, needs: Callable[..., None]) -> None:
    needs("litert-arm64", "onnxruntime-arm64")
    for program in ("qemu-aarch64-static", "aarch64-linux-gnu-g++"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: apt-get install qemu-user-static g++-aarch64-linux-gnu")
    for module in ("onnxruntime", "litert_torch", "tflite_micro", "ethosu"):
        pytest.importorskip(module, reason="needs pip install 'edgekit[onnx,tflite,micro]'")
    environment = {**os.environ, "EDGEKIT_CACHE": "off"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    sections = re.split(r"^(?=\S+: (?:SHIP|BLOCK|INCONCLUSIVE)$)", done.stdout, flags=re.MULTILINE)[1:]
    found = {section.partition(":")[0]: section for section in sections}
    assert list(found) == ["host", "cortex-a53", "ethos-u55-128"], done.stdout
    assert len(re.findall(r"ms measured$", found["host"], re.MULTILINE)) == 2
    assert found["cortex-a53"].count("not timed: emulated") == 2
    assert re.search(r"tflite: .* of 400 right, [\d.]+ ms estimated$", found["ethos-u55-128"], re.MULTILINE)
    assert "onnx: not run" in found["ethos-u55-128"]
    assert (tmp_path / "runs" / "device-lab" / "report.html").is_file()
