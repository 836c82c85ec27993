from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.core.artifact import Artifact
from edgekit.core.errors import DataError
from edgekit.core.tensors import TensorSpec
from edgekit.device_tests.agent import evaluate, evaluate_stacked, run
from edgekit.device_tests.arrays import read_arrays, write_arrays
from edgekit.device_tests.jobs import Answers, Job, Timing
from edgekit.device_tests.testing import FakeModel, FakeRuntime

RNG = np.random.default_rng(0)
MODEL = FakeModel(weight=((1.0, -1.0, 0.0), (0.0, 1.0, -1.0)), bias=(0.0, 0.1, 0.0))


def load(model: FakeModel, folder: Path) -> tuple[Any, Artifact]:
    artifact = model.export(folder)
    return FakeRuntime().load(artifact.path), artifact


@pytest.mark.parametrize(("batch", "count"), [(1, 5), (4, 8), (4, 10), (4, 3)])
def test_any_number_of_samples_fits_a_static_batch(tmp_path: Path, batch: int, count: int) -> None:
    session, artifact = load(MODEL.replace(batch=batch), tmp_path)
    samples = RNG.normal(size=(count, 2)).astype(np.float32)
    outputs = evaluate(session, {"x": samples}, edges=artifact)
    np.testing.assert_allclose(outputs["output"], MODEL.answer(samples), rtol=1e-6)


def test_golden_samples_keep_their_full_shape(tmp_path: Path) -> None:
    session, artifact = load(MODEL.replace(batch=2), tmp_path)
    samples = RNG.normal(size=(3, 2, 2)).astype(np.float32)
    outputs = evaluate_stacked(session, {"x": samples}, edges=artifact)
    assert outputs["output"].shape == (3, 2, 3)


class Integers:
    """A session with integer edges: real value = 0.5 * (integer - 10) in, 0.25 * (integer + 3) out; the model doubles."""

    inputs = (TensorSpec(name="x", shape=(1, 2), dtype="uint8", scale=0.5, zero_point=10),)
    outputs = (TensorSpec(name="y", shape=(1, 2), dtype="int8", scale=0.25, zero_point=-3),)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        assert inputs["x"].dtype == np.uint8
        real = 0.5 * (inputs["x"].astype(np.float32) - 10)
        return {"y": (real * 2 / 0.25 - 3).astype(np.int8)}

    def close(self) -> None: ...


def test_integer_edges_are_translated_to_real_values(tmp_path: Path) -> None:
    session = Integers()
    edges = MODEL.export(tmp_path).replace(inputs=session.inputs, outputs=session.outputs)
    outputs = evaluate(session, {"x": np.array([[1.0, 2.5], [-5.0, 0.0]], np.float32)}, edges=edges)
    np.testing.assert_array_equal(outputs["y"], [[2.0, 5.0], [-10.0, 0.0]])
    assert outputs["y"].dtype == np.float32


class Vector:
    """Answers one vector whatever the batch."""

    inputs = (TensorSpec(name="x", shape=(2, 2), dtype="float32"),)
    outputs = (TensorSpec(name="y", shape=(3,), dtype="float32"),)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {"y": np.zeros(3, np.float32)}

    def close(self) -> None: ...


def test_an_output_without_a_batch_axis_is_refused(tmp_path: Path) -> None:
    edges = MODEL.export(tmp_path).replace(inputs=Vector.inputs, outputs=Vector.outputs)
    with pytest.raises(DataError, match=r"Output 'y' has shape \[3\] for a batch of 2"):
        evaluate(Vector(), {"x": np.zeros((4, 2), np.float32)}, edges=edges)


def test_an_output_without_a_batch_axis_is_one_row_where_the_batch_is_one(tmp_path: Path) -> None:
    edges = MODEL.export(tmp_path).replace(outputs=Vector.outputs)
    assert evaluate(Vector(), {"x": np.zeros((4, 2), np.float32)}, edges=edges)["y"].shape == (4, 3)


def make_job(bench: Any, folder: Path, *models: tuple[FakeModel, str], **fields: Any) -> Job:
    artifacts = []
    for model, precision in models:
        (folder / precision).mkdir()
        artifact = model.export(folder / precision, precision=precision, report=bench.report)
        artifacts.append(artifact.replace(path=artifact.path.relative_to(folder)))
    write_arrays(folder / "golden.npz", {"x": RNG.normal(size=(3, 1, 2)).astype(np.float32)})
    write_arrays(folder / "evaluation.npz", {"x": RNG.normal(size=(7, 2)).astype(np.float32)})
    write_arrays(folder / "recorded.npz", {"x": np.zeros((3, 1, 2), np.int8), "fc": np.full((3, 1, 3), 5, np.int8)})
    bench.contract.write_json(folder / "contract.json")
    job = Job(what="testing", runtime=bench.runtime, threads=1, artifacts=tuple(artifacts), **fields)
    job.write_json(folder / "job.json")
    return job


def test_an_answers_job_leaves_answers_arrays_and_layers(bench: Any, tmp_path: Path) -> None:
    make_job(bench, tmp_path, (MODEL.replace(step_error=1), "int8"), kind="answers", replay=True)
    run(str(tmp_path))
    found = Answers.read_json(tmp_path / "result.json")
    arrays = read_arrays(tmp_path / "outputs.npz")
    assert {name: array.shape for name, array in arrays.items()} == {"golden/output": (3, 1, 3), "evaluation/output": (7, 3)}
    assert found.runtime_version == "test double"
    assert found.load_ms > 0
    assert found.first_load_ms > 0
    assert 0 < found.base_bytes <= found.peak_bytes
    (layer,) = found.layers
    assert (layer.entry, layer.largest_steps, layer.exact_share) == ("fc", 1, 0.0)


def test_a_failed_replay_keeps_the_answers(bench: Any, tmp_path: Path) -> None:
    make_job(bench, tmp_path, (MODEL.replace(fails="replay"), "int8"), kind="answers", replay=True)
    run(str(tmp_path))
    found = Answers.read_json(tmp_path / "result.json")
    assert found.layers == ()
    assert found.layers_failure.startswith("ConversionError: The fake model cannot be cut")
    assert (tmp_path / "outputs.npz").exists()


def test_a_timing_job_leaves_samples_of_both_models(bench: Any, tmp_path: Path) -> None:
    models = [(MODEL, "int8"), (MODEL, "float32")]
    make_job(bench, tmp_path, *models, kind="timing", budget_s=0.0, fewest_rounds=2)
    run(str(tmp_path))
    counts = Timing.read_json(tmp_path / "result.json").preemption_counts
    arrays = read_arrays(tmp_path / "outputs.npz")
    assert list(counts) == ["fake", "fake-float32"]
    for label in counts:
        assert arrays[f"{label}/wall_ns"].shape == arrays[f"{label}/cpu_ns"].shape == arrays[f"{label}/rounds"].shape
        assert set(arrays[f"{label}/rounds"]) == {0, 1}


def test_a_job_file_is_versioned_and_strict(bench: Any, tmp_path: Path) -> None:
    job = make_job(bench, tmp_path, (MODEL, "int8"), kind="answers")
    assert Job.read_json(tmp_path / "job.json") == job
    data = json.loads((tmp_path / "job.json").read_text()) | {"schema_version": 2}
    (tmp_path / "job.json").write_text(json.dumps(data))
    with pytest.raises(Exception, match="schema_version"):
        run(str(tmp_path))
