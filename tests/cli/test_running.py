"""``edgekit run`` and ``edgekit bench``: answers, options, and mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

ARTIFACTS = "runs/tiny/artifacts"


@pytest.mark.slow
def test_run_writes_what_it_shows(run: Path, command_line: Callable[..., Result], tmp_path: Path) -> None:
    first = command_line(f"run {ARTIFACTS}/tflite-float32/model.tflite --output a.npz --json --no-progress")
    assert first.exit_code == 0, first.output
    document = json.loads(first.stdout)["run"]
    assert (document["runtime"], document["evidence"], document["inputs_are_random"]) == ("litert", "measured", True)
    given = {spec["name"]: np.zeros((3, *spec["shape"]), spec["dtype"]) for spec in document["inputs"]}
    np.savez(tmp_path / "x.npz", **given)
    again = command_line(f"run {ARTIFACTS}/tflite-float32/model.tflite --input x.npz --output b.npz --json --no-progress")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["run"]["sample_count"] == 3
    with np.load(tmp_path / "a.npz") as one, np.load(tmp_path / "b.npz") as three:
        for name in one.files:
            assert three[name].shape == (3, *one[name].shape)
            np.testing.assert_array_equal(three[name][0], three[name][2])
    refused = command_line(f"run {ARTIFACTS}/tflite-float32/model.tflite --output a.npz")
    assert refused.exit_code == 2
    assert "exists" in refused.stderr


@pytest.mark.slow
def test_core_ml_says_what_it_is(run: Path, command_line: Callable[..., Result]) -> None:
    result = command_line(f"run {ARTIFACTS}/coreml/model.mlpackage")
    assert result.exit_code == 0, result.output
    assert "not the Neural Engine" in result.stdout


@pytest.mark.slow
def test_bench_compares_files(run: Path, command_line: Callable[..., Result]) -> None:
    result = command_line(f"bench {ARTIFACTS}/onnx-float32/model.onnx {ARTIFACTS}/onnx/model.onnx --seconds 0.05 --profile")
    assert result.exit_code == 0, result.output
    for words in (
        "onnx-float32/model.onnx",
        "median",
        "peak memory",
        "times the first file's",
        "where the time goes",
        "QLinearConv",
    ):
        assert words in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "code", "complaint"),
    [
        ("run gone.tflite", 2, "gone.tflite does not exist"),
        ("run notes.txt", 5, "is of no known kind"),
        ("run damaged.tflite", 5, "damaged.tflite"),
        ("run {tflite} --runtime litter", 2, "Did you mean 'litert'"),
        ("run {tflite} -O providr=cpu", 2, "Did you mean 'provider'"),
        ("run {tflite} -O provider", 2, "write NAME=VALUE"),
        ("run {tflite} -O provider=/nowhere/delegate.so", 2, "no delegate library"),
        ("run {onnx} -O provider=tensorrt", 2, "no execution provider 'tensorrt'"),
        ("run {tflite} --input gone.npz", 2, "gone.npz does not exist"),
        ("run {tflite} --input wrong.npz", 2, "no input 'wrong'"),
        ("run {tflite} --input shape.npz", 2, "expects"),
        ("run {tflite} --input nan.npz", 2, "NaN"),
        ("bench {tflite} --seconds 0", 2, "seconds"),
        ("bench", 2, "FILES"),
    ],
)
def test_mistakes(run: Path, command_line: Callable[..., Result], tmp_path: Path, line: str, code: int, complaint: str) -> None:
    files = {"tflite": f"{ARTIFACTS}/tflite-float32/model.tflite", "onnx": f"{ARTIFACTS}/onnx/model.onnx"}
    (tmp_path / "notes.txt").write_text("no model")
    whole = (tmp_path / files["tflite"]).read_bytes()
    (tmp_path / "damaged.tflite").write_bytes(whole[: len(whole) // 2])
    shown = command_line(f"run {files['tflite']} --json --no-progress") if "npz" in line else None
    if shown is not None and "gone" not in line:
        spec = json.loads(shown.stdout)["run"]["inputs"][0]
        good = np.zeros(spec["shape"], spec["dtype"])
        np.savez(tmp_path / "wrong.npz", wrong=good)
        np.savez(tmp_path / "shape.npz", **{spec["name"]: np.zeros((*spec["shape"], 2, 2), spec["dtype"])})
        np.savez(tmp_path / "nan.npz", **{spec["name"]: np.full_like(good, np.nan)})
    result = command_line(line.format(**files))
    assert result.exit_code == code, result.output
    assert complaint in " ".join(result.stderr.split()), result.stderr
