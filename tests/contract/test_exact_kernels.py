"""The exact kernels compute what every runtime computes, integer by integer, and splits of the error add up."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from edgekit.core.artifact import Artifact
from edgekit.core.compressed import Compressed
from edgekit.core.error_split import PARTS, ErrorSplit, LayerSplit
from edgekit.core.errors import UnsupportedOpError, UsageError
from edgekit.core.run import RunFolder
from edgekit.core.tensors import to_stored
from edgekit.device_tests.bisection.split_program import ProgramLayer, program_layers
from edgekit.device_tests.error_split import split_all, split_in_worker, split_layers
from edgekit.runtimes.exact.forcing import forced_answers
from edgekit.runtimes.exact.replay import replay
from edgekit.runtimes.exact.rules import RULES, SIMULATION
from edgekit.runtimes.exact.tflite_file import read_graph
from edgekit.runtimes.litert import RUNTIME as LITERT
from edgekit.runtimes.replays import EXECUTORS, Executor

MODELLED = [executor for executor in EXECUTORS if executor.rules]


@pytest.fixture(scope="module")
def layers(compressed: Compressed) -> dict[str, ProgramLayer]:
    return program_layers(compressed, dict(compressed.golden.inputs))


@pytest.fixture(scope="module")
def split(run: RunFolder) -> ErrorSplit:
    answer = split_in_worker(run=str(run.path), folder=str(run.artifacts / "tflite"), sample_count=3)
    return ErrorSplit.parse(answer, source="a test")


def artifact_of(run: RunFolder, executor: Executor) -> Artifact:
    return Artifact.load(run.artifacts / executor.target)


@pytest.mark.parametrize("executor", MODELLED, ids=lambda executor: executor.name)
def test_every_layer_is_reproduced_bit_for_bit(run: RunFolder, compressed: Compressed, executor: Executor) -> None:
    random = np.random.default_rng(1)
    recorded = {
        entry.name: random.integers(entry.minimum, entry.maximum + 1, (20, *entry.shape)).astype(entry.dtype)
        for entry in compressed.contract.activations
    }
    artifact = artifact_of(run, executor)
    found = executor.replay(artifact, compressed.contract, recorded)
    exact = replay(artifact, compressed.contract, recorded, RULES[executor.rules])
    assert not exact.missing
    assert exact.answers.keys() == found.keys()
    assert {operation.kernel for operation in exact.operations.values()} >= {"convolution", "add", "linear", "mean"}
    for entry, integers in found.items():
        assert np.array_equal(exact.answers[entry], integers), f"{entry}: {exact.operations[entry]}"


def test_rules_differ_where_runtimes_do(run: RunFolder, compressed: Compressed) -> None:
    random = np.random.default_rng(2)
    recorded = {
        entry.name: random.integers(entry.minimum, entry.maximum + 1, (20, *entry.shape)).astype(entry.dtype)
        for entry in compressed.contract.activations
    }
    artifact = Artifact.load(run.artifacts / "tflite")
    names = ("XNNPACK", "TFLite built-in kernels", "TFLite reference kernels")
    answers = [replay(artifact, compressed.contract, recorded, RULES[name]).answers for name in names]
    for at, one in enumerate(answers):
        for other in answers[at + 1 :]:
            assert any(not np.array_equal(one[entry], other[entry]) for entry in one)


@pytest.mark.parametrize(("name", "kernels"), [("XNNPACK", "shipped"), ("TFLite reference kernels", "reference")])
def test_every_operator_follows_from_the_runtimes_own_values(
    run: RunFolder, compressed: Compressed, name: str, kernels: str
) -> None:
    artifact = Artifact.load(run.artifacts / "tflite")
    spec = artifact.inputs[0]
    values = np.stack([to_stored(one, spec).astype(spec.dtype) for one in compressed.golden.inputs[spec.name]])
    file = LITERT.trace(artifact.path, {spec.name: values}, kernels=kernels)  # type: ignore[arg-type]
    graph = read_graph(artifact.path.read_bytes())
    found = forced_answers(graph, file, RULES[name])
    integers = {name for operation in graph.operations for name in operation.writes if graph.tensors[name].is_integer}
    assert integers <= found.keys()
    for tensor in integers:
        assert np.array_equal(found[tensor], file.values[tensor]), tensor


def test_exact_kernels_say_what_they_read(run: RunFolder, compressed: Compressed) -> None:
    with pytest.raises(UnsupportedOpError, match="coreml file; exact integer kernels read tflite and onnx"):
        replay(Artifact.load(run.artifacts / "coreml"), compressed.contract, {}, SIMULATION)


def parts_of(row: LayerSplit) -> float:
    return sum(row.power(part) or 0.0 for part in PARTS) + (row.unsplit or 0.0)


def test_parts_add_up_and_rounding_is_what_theory_says(split: ErrorSplit, compressed: Compressed) -> None:
    assert (split.executor, split.rules, split.explained_share) == ("LiteRT XNNPACK", "XNNPACK", 1.0)
    assert len(split.layers) >= 5
    for row in split.layers:
        assert row.total == pytest.approx(parts_of(row) + row.cross, abs=1e-9)
        assert 0.0 <= row.rounding <= 0.25  # half a step at most
        assert row.unsplit is None
        assert row.rule
    rows = {row.entry: row for row in split.layers}
    assert rows["pointwise"].rounding == pytest.approx(1 / 12, rel=0.1)  # evenly spread between two integers
    weighted = {entry.layer for entry in compressed.contract.parameters}
    for entry in compressed.contract.activations:
        if entry.name in rows:
            assert bool(rows[entry.name].weights) == (entry.layer in weighted), entry.name


def test_every_pair_of_executors_is_compared(split: ErrorSplit) -> None:
    count = len(EXECUTORS)
    assert len(split.spreads) == count * (count - 1) // 2
    assert not split.notes
    for spread in split.spreads:
        assert all(row.differing_share > 0 for row in spread.layers)
        shares = [row.differing_share for row in spread.layers]
        assert shares == sorted(shares, reverse=True)
        assert (spread.identical_share == 1) == (not spread.layers)


def test_what_a_converter_rewrote_is_told_from_what_kernels_do(
    run: RunFolder, compressed: Compressed, layers: dict[str, ProgramLayer], tmp_path_factory: pytest.TempPathFactory
) -> None:
    artifact = Artifact.load(run.artifacts / "onnx")
    executor = EXECUTORS[0]
    model = onnx.load(artifact.path)
    bias = next(
        one for one in model.graph.initializer if "depthwise_bias" in one.name and one.data_type == onnx.TensorProto.INT32
    )
    moved = onnx.numpy_helper.to_array(bias) + 4000
    bias.CopyFrom(onnx.numpy_helper.from_array(moved, bias.name))
    altered = artifact.replace(path=tmp_path_factory.mktemp("altered") / "model.onnx")
    onnx.save(model, altered.path)
    recorded = {name: layer.integers for name, layer in layers.items()}
    answers = executor.replay(altered, compressed.contract, recorded)
    rows, operations = split_layers(altered, compressed.contract, layers, answers, executor)
    found = {row.entry: row for row in rows}
    assert operations["depthwise"].type == "Conv"
    assert found["depthwise"].largest == "rewrite"
    assert found["depthwise"].kernel == 0
    assert all(not row.rewrite for entry, row in found.items() if entry != "depthwise")


def test_what_kernels_do_is_told_from_what_a_converter_rewrote(
    run: RunFolder, compressed: Compressed, layers: dict[str, ProgramLayer]
) -> None:
    executor = next(one for one in EXECUTORS if one.name == "LiteRT XNNPACK")
    recorded = {name: layer.integers for name, layer in layers.items()}
    artifact = artifact_of(run, executor)
    answers = executor.replay(artifact, compressed.contract, recorded)
    wrong = {**answers, "pointwise": np.clip(answers["pointwise"].astype(int) + 2, -128, 127).astype(np.int8)}
    rows, _ = split_layers(artifact, compressed.contract, layers, wrong, executor)
    found = {row.entry: row for row in rows}
    assert found["pointwise"].largest == "kernel"
    assert found["pointwise"].kernel == pytest.approx(4.0, rel=0.1)
    assert not found["pointwise"].rewrite
    assert found["pointwise"].explained_share is not None
    assert found["pointwise"].explained_share < 0.1


def test_clipping_is_what_lies_outside_the_grid(compressed: Compressed, run: RunFolder) -> None:
    loud = {name: values * 20 for name, values in compressed.golden.inputs.items()}
    layers = program_layers(compressed, loud)
    executor = EXECUTORS[0]
    recorded = {name: layer.integers for name, layer in layers.items()}
    answers = executor.replay(artifact_of(run, executor), compressed.contract, recorded)
    quiet = program_layers(compressed, dict(compressed.golden.inputs))
    rows = [
        {row.entry: row for row in split_layers(artifact_of(run, executor), compressed.contract, one, answers, executor)[0]}
        for one in (layers, quiet)
    ]
    assert rows[0]["head"].clipping > 100 * max(rows[1]["head"].clipping, 1e-6)


def test_there_is_nothing_to_split_in_a_float_file(run: RunFolder) -> None:
    with pytest.raises(UsageError, match="nothing to split"):
        split_in_worker(run=str(run.path), folder=str(run.artifacts / "tflite-float32"), sample_count=1)


def test_all_int8_artifacts_of_a_run_are_split(run: RunFolder) -> None:
    artifacts = run.load_artifacts()
    [found] = split_all(run, [one for one in artifacts if one.target == "onnx"])
    assert (found.label, found.executor, found.explained_share) == ("onnx", "ONNX Runtime", 1.0)
    assert found.spreads
