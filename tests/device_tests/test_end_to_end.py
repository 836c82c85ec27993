"""A small net in a real runtime of this machine, worker processes and all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekit import pipeline
from edgekit.core.contract import QuantizationContract
from edgekit.core.run import RunFolder
from edgekit.core.task import Task, load_task
from edgekit.device_tests import reference, workbench
from edgekit.device_tests.profiles import load_profile
from edgekit.device_tests.reference import output_scales
from edgekit.device_tests.validate import validate_device

pytest.importorskip("onnxruntime", reason="pip install 'edgekit[onnx]' runs this")


@pytest.fixture
def road(write_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RunFolder, Task]:
    monkeypatch.setattr(workbench, "_TIMING_BUDGET_S", 0.2)
    task = load_task(write_task())
    compressed = pipeline.compress(task, recipe="int8", output=tmp_path / "run")
    pipeline.export(compressed, targets=["onnx"])
    return RunFolder(tmp_path / "run"), task


@pytest.mark.slow
def test_the_same_integers_in_onnx_runtime(road: tuple[RunFolder, Task], monkeypatch: pytest.MonkeyPatch) -> None:
    run, task = road
    artifacts = run.load_artifacts()
    arguments = {"compressed_folder": run.compressed, "task": task, "output": run.validation("host"), "log": run.log}
    result = validate_device(load_profile("host"), artifacts=artifacts, **arguments)  # type: ignore[arg-type]
    by_label = {one.artifact.label: one for one in result.results}
    assert set(by_label) == {"onnx", "onnx-float32"}
    for label, one in by_label.items():
        assert one.failure == ""
        assert one.metric is not None
        assert one.metric.sample_count == 32
        assert one.measurement("latency") is not None
        if "float32" in label:
            assert one.outputs[0].snr_db is None or one.outputs[0].snr_db > 100
        else:
            assert one.layers
            assert max(layer.largest_steps for layer in one.layers) <= 1
            assert one.outputs[0].largest_steps is not None
            assert one.measurement("slowdown_ratio") is not None
    assert [(spread.first, spread.second) for spread in result.spreads] == [("torch", "onnx")]
    assert not [gate for gate in result.verdict.gates if gate.name in {"contract", "layer parity"} and gate.outcome != "pass"]
    _validating_again_computes_no_reference(run, task, monkeypatch)


def _validating_again_computes_no_reference(run: RunFolder, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the reference was computed again")

    monkeypatch.setattr(reference, "call", refuse)
    artifact = run.load_artifacts()[0]
    host = load_profile("host")
    folders = {"compressed_folder": run.compressed, "output": run.validation("host"), "log": run.log}
    again = validate_device(host, artifacts=[artifact], task=task, **folders)
    assert again.results[0].failure == ""
    with pytest.raises(AssertionError, match="computed again"):  # other data, other answers
        validate_device(host, artifacts=[artifact], task=None, **folders)


def test_an_outputs_scale_is_that_of_the_entry_it_was_dequantized_from(bench: object) -> None:
    contract: QuantizationContract = bench.contract  # type: ignore[attr-defined]
    integers = {"x": np.zeros((2, 1, 3), np.int8), "fc": np.array([[[1, 2, 3]], [[4, 5, 6]]], np.int8)}
    outputs = {"logits": (integers["fc"] * np.float32(0.05)).astype(np.float32), "float": np.full((2, 1, 3), 0.123, np.float32)}
    assert output_scales(contract, outputs, integers) == {"logits": 0.05}
