"""Several targets at once: failures are gathered, what was made stays, what was made before is not made again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit import pipeline
from edgekit.core.artifact import Artifact
from edgekit.core.errors import ConversionError, OutputError, UnsupportedOpError
from edgekit.core.files import sha256

Convert = Callable[..., str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from edgekit.core.task import Task

    place = tmp_path_factory.mktemp("runs") / "run"
    task = Task(name="t", model=torch.nn.Linear(3, 2), example_inputs=torch.zeros(1, 3).numpy())
    pipeline.compress(task, recipe="none", output=place)
    return place


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Target -> an error to raise; whatever else is written down under ``"made"``."""
    told: dict[str, Any] = {"made": []}

    def convert(compressed: Path, output: Path, *, target: str, options: Any, stop: threading.Event, **_: Any) -> str:
        if target in told:
            raise told[target]
        file = output / "model.bin"
        file.write_text(target)
        made_from = sha256(compressed / "compressed.json")
        Artifact(
            target=target, path=file, sha256=sha256(file), size_bytes=4, precision="float32", options=options, is_baseline=True,
            inputs=(), outputs=(), source_sha256=made_from,
        ).save(output)  # fmt: skip
        told["made"].append(target)
        return sha256(file)

    monkeypatch.setattr("edgekit.exports.convert_apart", convert)
    return told


def test_refusals_are_gathered_and_the_rest_is_made(run: Path, conversions: dict[str, Any]) -> None:
    conversions.update(onnx=UnsupportedOpError("no fft"), coreml=ConversionError("too deep"))
    with pytest.raises(ConversionError, match=r"2 conversions failed") as caught:
        pipeline.export(run, targets=["onnx", "tflite", "coreml"], force=True)
    for words in ("onnx-float32: no fft", "coreml-float32: too deep", "Made and kept: tflite-float32"):
        assert words in str(caught.value)
    assert [path.name for path in (run / "artifacts").iterdir()] == ["tflite-float32"]
    del conversions["onnx"], conversions["coreml"]
    assert [one.target for one in pipeline.export(run, targets=["onnx", "tflite", "coreml"])] == ["onnx", "tflite", "coreml"]
    assert sorted(conversions["made"]) == ["coreml", "onnx", "tflite"]  # tflite once


def test_a_single_refusal_keeps_its_kind(run: Path, conversions: dict[str, Any]) -> None:
    conversions["onnx"] = UnsupportedOpError("no fft")
    with pytest.raises(UnsupportedOpError, match="no fft\nMade and kept: tflite-float32"):
        pipeline.export(run, targets=["onnx", "tflite"], force=True)


def test_a_full_disk_ends_all(run: Path, conversions: dict[str, Any]) -> None:
    conversions["onnx"] = OutputError("the disk is full")
    with pytest.raises(OutputError, match="full"):
        pipeline.export(run, targets=["onnx", "tflite"], force=True)


def test_the_cache_answers_for_the_same_program_and_options_alone(
    run: Path, conversions: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from edgekit.core.artifact import ExportOptions

    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    for wanted, options in ((1, {}), (1, {}), (2, {"integer_io": True}), (2, {"integer_io": True})):
        [made] = pipeline.export(run, targets=["onnx"], options=ExportOptions(**options), force=True)  # type: ignore[arg-type]
        assert len(conversions["made"]) == wanted
        assert made.path.read_text() == "onnx"
    pipeline.export(run, targets=["onnx"], options=ExportOptions(integer_io=True), force=True, cached=False)
    assert len(conversions["made"]) == 3
    assert sorted(path.name for path in run.iterdir() if path.name.endswith(".log")) == []
