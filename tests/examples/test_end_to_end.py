"""The README's commands on real data: from the recordings to a verdict, and the promises that come with it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ("onnx", "tflite", "coreml")
DROP_LIMIT_POINTS = 0.5
MAY_FAIL = {"smartwatch": set[str](), "fashion": {"slowdown"}}
"""The fashion net takes tens of microseconds, most of them calls: on some processors integers are no faster there."""
FLOAT_ACCURACY = {"smartwatch": (0.87, 0.91), "fashion": (0.90, 0.93)}


def readme_commands() -> list[str]:
    """The four commands the README walks."""
    [block] = re.findall(r"^```console\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line.removeprefix("$ ") for line in block.splitlines()]


def walk(name: str, folder: Path) -> dict[str, Any]:
    """Run the README's commands for an example; returns report.json."""
    (folder / "examples").symlink_to(ROOT / "examples")
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    for command in readme_commands():
        line = command.replace("examples/smartwatch/", f"examples/{name}/")
        done = subprocess.run(["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, check=False)
        missed = "validate" in line and MAY_FAIL[name]
        assert done.returncode in ({0, 1} if missed else {0}), (
            f"$ {line}\nended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
    run = folder / "runs" / "watch"
    assert (run / "report.html").is_file()
    document: dict[str, Any] = json.loads((run / "report.json").read_text(encoding="utf-8"))
    return document


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smartwatch", pytest.param("fashion", marks=pytest.mark.proof)])  # fashion trains for minutes
def test_an_example_keeps_its_promises_on_all_three_targets(
    name: str, needs: Callable[..., None], tmp_path: Path, assets: Any
) -> None:
    needs(name)
    if name == "fashion" and not list((assets.assets_folder() / "trained").glob("fashion-*.pt")):
        pytest.skip("the fashion net was not trained (minutes); run: python examples/fashion/train.py")
    report = walk(name, tmp_path)
    [device] = report["devices"]
    failed = {gate["name"] for gate in device["verdict"]["gates"] if gate["outcome"] != "pass"}
    assert failed <= MAY_FAIL[name], device["verdict"]
    assert (device["verdict"]["decision"] == "SHIP") is (not failed)
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
