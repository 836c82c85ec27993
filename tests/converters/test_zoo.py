"""The conformance zoo: cells of different families on every target, float and int8, and the harness that survives them."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
CELLS = {"onnx": "radiance-field", "tflite": "autoencoder-output-padding", "coreml": "conditional-branch"}
"""Each is refused by the vendor's own call with the versions in constraints.txt, but for the autoencoder."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of the nets, captured and quantized once."""
    place = tmp_path_factory.mktemp("zoo")
    run(place, "--stage", "programs", *(word for name in CELLS.values() for word in ("--only", name)))
    return place


@pytest.fixture(scope="module")
def zoo() -> Iterator[Any]:
    """Imports a module of the zoo."""
    sys.path.insert(0, str(BENCHMARKS))
    yield lambda name: importlib.import_module(f"zoo.{name}")
    sys.path.remove(str(BENCHMARKS))


def run(work: Path, *words: str) -> list[dict[str, Any]]:
    """Carry out one stage and return its cells."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(BENCHMARKS / "zoo" / "run.py"), "--work", str(work), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    stage = words[words.index("--stage") + 1]
    return [json.loads(line) for line in (work / f"cells-{stage}.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("target", CELLS)
def test_cells_pass(work: Path, target: str) -> None:
    if target == "tflite":
        pytest.importorskip("litert_torch", reason="LiteRT is not installed: pip install 'edgekit[tflite]'")
    if target == "coreml":
        pytest.importorskip("coremltools", reason="coremltools is not installed: pip install 'edgekit[coreml]'")
    cells = run(work, "--stage", target, "--only", CELLS[target], "--road", "edgekit")
    assert [(cell["precision"], cell["status"]) for cell in cells] == [("float", "pass"), ("int8", "pass")], cells
    assert cells[0]["relative_error"] < 1e-4
    assert cells[1]["snr_db"] is None or cells[1]["snr_db"] > 20
    again = run(work, "--stage", target, "--only", CELLS[target], "--road", "edgekit")
    assert again == cells  # what is done is not done anew


def test_every_architecture_has_a_name_of_its_own_and_two_different_inputs(zoo: Any) -> None:
    nets = zoo("catalogue").architectures()
    count = sum(len(zoo(f"families.{name}").ARCHITECTURES) for name in zoo("catalogue").FAMILIES)
    assert len(nets) == count >= 60
    for net in nets.values():
        first, second = (
            list(inputs.values()) if isinstance(inputs, dict) else inputs if isinstance(inputs, tuple) else [inputs]
            for inputs in (net.inputs(0), net.inputs(1))
        )
        assert [(array.shape, array.dtype) for array in first] == [(array.shape, array.dtype) for array in second]
        assert any((one != other).any() for one, other in zip(first, second, strict=True)), net.name


CHILDREN = """
import os, sys, time, json
from pathlib import Path
from zoo.isolation import call_forked
def fail(): raise ValueError("first line\\nsecond line")
def crash(): os.kill(os.getpid(), 11)
for function in (lambda: {"answer": 42}, fail, crash, lambda: time.sleep(60), lambda: bytearray(2**33)):
    ended = call_forked(function, timeout_s=2, memory_bytes=2**32, log=Path(sys.argv[1]) / "log.txt")
    print(json.dumps(ended))
"""


def test_a_cell_that_dies_is_a_cell(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS)}
    command = [sys.executable, "-c", CHILDREN, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    good, failed, crashed, late, greedy = map(json.loads, done.stdout.splitlines())
    assert good["value"] == {"answer": 42}
    assert (failed["kind"], failed["error"]) == ("refused", "ValueError: first line")
    assert (crashed["kind"], crashed["error"]) == ("crashed", "killed by SIGSEGV")
    assert late["kind"] == "timeout"
    assert greedy["error"].startswith("MemoryError")
    assert all(ended["seconds"] >= 0 and ended["peak_mb"] > 1 for ended in (good, failed, crashed, late, greedy))


def test_judging(zoo: Any) -> None:
    compare = zoo("judge").compare
    right = {"y": np.linspace(-1, 1, 30, dtype=np.float32).reshape(3, 10), "n": np.arange(6).reshape(3, 2)}
    assert compare(right, right, is_float=True)["is_same"]
    near = {**right, "y": right["y"] + 0.01}
    assert not compare(near, right, is_float=True)["is_same"]
    judged = compare(near, right, is_float=False)
    assert judged["is_same"]
    assert judged["snr_db"] == pytest.approx(20 * np.log10(np.sqrt((right["y"] ** 2).mean()) / 0.01), abs=0.01)
    assert compare({**right, "n": right["n"] + 1}, right, is_float=True)["problem"] == "n: 0% of integers equal"
    assert "shape" in compare({**right, "y": right["y"][:, :5]}, right, is_float=True)["problem"]
    assert not compare({**right, "y": right["y"] * np.nan}, right, is_float=False)["is_same"]


def test_the_page_counts_cells_and_names_what_fails(zoo: Any) -> None:
    def cell(name: str, status: str, *, road: str = "edgekit", precision: str = "float", error: str = "") -> dict[str, Any]:
        return {"architecture": name, "target": "onnx", "precision": precision, "road": road, "status": status, "error": error}

    page = zoo("table").markdown(
        [
            cell("vit", "pass"),
            cell("swin", "refused", error="ConversionError: why | not"),
            cell("vit", "wrong", road="vendor"),
            cell("swin", "pass", road="vendor"),
            cell("vit", "pass", precision="int8") | {"snr_db": 31.4},
        ]
    )
    assert "| onnx | float | 1 of 2 (50.0%) | 1 of 2 (50.0%) | 1 |" in page
    assert "| onnx | int8 | 1 of 1 (100.0%) | no such call |" in page
    assert "| vit | ✓ | **wrong** | ✓ 31 dB |" in page
    assert "- swin, onnx float: refused (the vendor's call passes). ConversionError: why \\| not" in page
