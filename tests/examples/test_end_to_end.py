"""The demo, as the command line runs it: from the recordings to a verdict, and the promises that come with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ("onnx", "tflite", "coreml")
DROP_LIMIT_POINTS = 0.5
FLOAT_ACCURACY = {"smartwatch": (0.87, 0.91), "fashion": (0.90, 0.93)}


def edgekit(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("edgekit")), *arguments]
    return subprocess.run(command, cwd=folder, env={**os.environ, "NO_COLOR": "1"}, capture_output=True, text=True, check=False)


def walk(name: str, folder: Path) -> dict[str, Any]:
    """Compress, export, validate, report; returns report.json."""
    run = str(folder / name)
    steps = (
        ["compress", str(ROOT / "examples" / name / "task.py"), "--recipe", "int8", "-o", run],
        ["export", run, *(part for target in TARGETS for part in ("--target", target))],
        ["validate", run, "--device", "host"],
        ["report", run],
    )
    for step in steps:
        done = edgekit(*step, folder=folder)
        assert done.returncode == 0, f"edgekit {step[0]} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert (folder / name / "report.html").is_file()
    document: dict[str, Any] = json.loads((folder / name / "report.json").read_text(encoding="utf-8"))
    return document


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smartwatch", "fashion"])
def test_an_example_ships_on_all_three_targets(name: str, needs: Callable[..., None], tmp_path: Path, assets: Any) -> None:
    needs(name)
    if name == "fashion" and not list((assets.assets_folder() / "trained").glob("fashion-*.pt")):
        pytest.skip("the fashion net was not trained (minutes); run: python examples/fashion/train.py")
    report = walk(name, tmp_path)
    [device] = report["devices"]
    assert device["verdict"]["decision"] == "SHIP", device["verdict"]
    results = {result["artifact"]["target"]: result for result in device["results"] if result["artifact"]["precision"] == "int8"}
    assert set(results) == set(TARGETS)
    low, high = FLOAT_ACCURACY[name]
    for target, result in results.items():
        metric = result["metric"]
        assert low <= metric["float_value"] <= high
        assert metric["drop_points"] <= DROP_LIMIT_POINTS, f"{target} loses {metric['drop_points']} points"
        assert result["layers"], f"{target}: no layer was replayed"
        assert max(layer["largest_steps"] for layer in result["layers"]) <= 1, target
    pairs = {frozenset((spread["first"], spread["second"])) for spread in device["spreads"]}
    assert {frozenset(("torch", target)) for target in TARGETS} <= pairs
    assert {result["evidence"] for result in device["results"] if result["artifact"]["target"] == "coreml"} <= {
        "reference",
        "measured",
    }
