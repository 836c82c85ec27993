"""Formats of general serving: torch.export, TorchScript, SavedModel. They agree with the program and say what they keep."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekit import golden, pipeline, registry
from edgekit.core.artifact import Artifact
from edgekit.core.compressed import Compressed
from edgekit.core.errors import ConversionError, DataError, IntegrityError, UnsupportedOpError, UsageError
from edgekit.core.run import RunFolder
from edgekit.core.task import Task
from edgekit.snippets import render

WITHOUT_TENSORFLOW = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed: pip install 'edgekit[tensorflow]'"
)
TARGETS = ["torch-export", "torchscript", pytest.param("saved-model", marks=WITHOUT_TENSORFLOW)]
RUNTIMES = {"torch-export": "torch-export", "torchscript": "torchscript", "saved-model": "tensorflow"}


def quietly(name: str, *arguments: Any) -> Any:
    """A function of ``torch.jit``, which is deprecated and says so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(torch.jit, name)(*arguments)


class TwoHeads(nn.Module):
    """Two inputs, one of them integer; two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.embed = nn.Embedding(10, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, image: torch.Tensor, kind: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = torch.relu(self.conv(image)).mean([2, 3]) + self.embed(kind)
        return self.head(found), found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    inputs = {"image": draw.normal(size=(8, 3, 12, 10)).astype(np.float32), "kind": draw.integers(0, 10, 8)}
    task = Task(
        name="heads",
        model=TwoHeads(),
        example_inputs={name: values[:1] for name, values in inputs.items()},
        calibration=[inputs],
        labels=list("abcde"),
    )
    folder = tmp_path_factory.mktemp("serving") / "run"
    pipeline.compress(task, recipe="int8", output=folder)
    installed = [name for name in RUNTIMES if not registry.missing_module(registry.converter(name))]
    pipeline.export(folder, targets=installed)
    return RunFolder(folder)


def test_they_are_no_targets_of_the_edge() -> None:
    assert not set(RUNTIMES) & set(registry.targets())
    assert set(RUNTIMES) <= set(registry.names("converters"))
    assert set(registry.targets()) == {"coreml", "onnx", "tflite"}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_artifact_answers_like_the_program(run: RunFolder, target: str, precision: str) -> None:
    artifact = Artifact.load(run.artifacts / (target if precision == "int8" else f"{target}-float32"))
    state = Compressed.load(run.compressed)
    state = state if precision == "int8" else state.as_float()
    assert [spec.name for spec in artifact.inputs] == ["image", "kind"]
    assert artifact.selftest is not None
    session = registry.runtime(RUNTIMES[target]).load(artifact.path)
    assert (session.inputs, session.outputs) == (artifact.inputs, artifact.outputs)
    names = [spec.name for spec in artifact.outputs]
    for at in range(2):
        answers = session.run({name: values[at] for name, values in state.golden.inputs.items()})
        assert list(answers) == names
        for name in names:
            np.testing.assert_allclose(answers[name], state.golden.outputs[name][at], atol=2e-6)
    with pytest.raises(DataError, match="is missing"):
        session.run({})
    session.close()
    with pytest.raises(DataError, match="closed"):
        session.run({name: values[0] for name, values in state.golden.inputs.items()})


@pytest.mark.parametrize("target", TARGETS)
def test_the_contract_is_read_back(run: RunFolder, target: str) -> None:
    contract = Compressed.load(run.compressed).contract
    artifact = Artifact.load(run.artifacts / target)
    outcomes = {outcome.name: outcome for outcome in artifact.contract_report.outcomes}
    assert set(outcomes) == {entry.name for entry in contract.entries}
    for entry in contract.entries:
        outcome = outcomes[entry.name]
        if entry.role == "weight":
            assert (outcome.outcome, outcome.bits) == ("honoured", 8)
            assert outcome.tensor
        elif entry.role == "bias" or target != "torch-export":
            assert (outcome.outcome, outcome.dtype) == ("re-typed", "float32")
            assert outcome.reason
        else:
            assert outcome.outcome == "honoured"
    assert Artifact.load(run.artifacts / f"{target}-float32").contract_report.outcomes == ()
    assert bool(artifact.notes) == (target != "torch-export")


@pytest.mark.parametrize("target", TARGETS)
def test_a_lost_weight_is_dropped(run: RunFolder, target: str) -> None:
    """What is read back is the file: weights of the float program hold none of the contract's integers."""
    from edgekit.converters.serving_report import read_back

    state = Compressed.load(run.compressed)
    constants = {name: value.detach().numpy() for name, value in state.float_program.state_dict.items()}
    report = read_back(state.contract, constants=constants, scales=[0.5])
    assert set(report.counts) == {"dropped"}
    assert target in RUNTIMES


@pytest.mark.parametrize("target", TARGETS)
def test_the_python_snippet_runs(run: RunFolder, target: str, tmp_path: Path) -> None:
    file = tmp_path / "snippet.py"
    file.write_text(render(Artifact.load(run.artifacts / target), "python"), encoding="utf-8")
    done = subprocess.run([sys.executable, file, run.artifacts / target], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("self-test passed\n")


def test_a_script_needs_no_operators_of_python(run: RunFolder) -> None:
    script = quietly("load", io.BytesIO((run.artifacts / "torchscript" / "model.ts").read_bytes()))
    kinds = {node.kind() for node in script.inlined_graph.nodes()}
    assert not [kind for kind in kinds if not kind.startswith(("aten::", "prim::"))]
    assert {str(value.dtype) for value in script.state_dict().values()} >= {"torch.int8"}


@pytest.mark.parametrize("target", ["torch-export", "torchscript"])
def test_foreign_files_are_refused(run: RunFolder, target: str, tmp_path: Path) -> None:
    runtime = registry.runtime(target)
    file = tmp_path / "model.bin"
    file.write_bytes(b"this is no model" * 64)
    with pytest.raises(IntegrityError, match=r"model\.bin"):
        runtime.load(file)
    if target == "torchscript":
        quietly("save", quietly("trace", nn.ReLU(), torch.zeros(2)), str(file))
        with pytest.raises(IntegrityError, match="was not exported by edgekit"):
            runtime.load(file)
    with pytest.raises(UsageError, match="has no option"):
        runtime.load(file, options={"speed": 1})


def test_layers_of_a_script_cannot_be_replayed(run: RunFolder) -> None:
    contract = Compressed.load(run.compressed).contract
    with pytest.raises(UnsupportedOpError, match="cannot be run alone"):
        registry.runtime("torchscript").replay_layers(Artifact.load(run.artifacts / "torchscript"), contract, {})


@WITHOUT_TENSORFLOW
def test_names_tensorflow_would_change_are_refused(run: RunFolder, tmp_path: Path) -> None:
    import dataclasses

    from edgekit.converters.saved_model import CONVERTER
    from edgekit.core.artifact import ExportOptions

    state = Compressed.load(run.compressed)
    inputs = (state.record.inputs[0].replace(name="image.1"), *state.record.inputs[1:])
    renamed = dataclasses.replace(state, record=state.record.replace(inputs=inputs))
    with pytest.raises(ConversionError, match=r"Input 'image\.1' cannot be the name"):
        CONVERTER.convert(renamed, output=tmp_path, options=ExportOptions())


def test_layers_that_quantize_at_run_time_are_refused(tmp_path: Path) -> None:
    from edgekit.converters.plain_arithmetic import plain_arithmetic

    task = Task(name="dynamic", model=nn.Linear(8, 4), example_inputs=np.zeros((1, 8), np.float32),
                calibration=[np.ones((4, 8), np.float32)])  # fmt: skip
    state = pipeline.compress(task, recipe="dynamic-int8")
    with pytest.raises(UnsupportedOpError, match="quantize their inputs at run time"):
        plain_arithmetic(state.program, target="torchscript")


@pytest.mark.parametrize("recipe", ["w4-g32", "w8", "w8a16", "fp16"])
def test_plain_arithmetic_gives_the_same_numbers(recipe: str) -> None:
    from edgekit.converters.plain_arithmetic import plain_arithmetic
    from edgekit.core.program import answer_samples

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
    samples = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    state = pipeline.compress(Task(name="plain", model=net, example_inputs=samples[:1], calibration=[samples]), recipe=recipe)
    made = plain_arithmetic(state.program, target="torchscript")
    assert not [node for node in made.graph.nodes if "quantized_decomposed" in str(node.target)]
    names = [spec.name for spec in state.record.outputs]
    found = answer_samples(made, state.golden.inputs, names)
    for name in names:
        np.testing.assert_allclose(found[name], state.golden.outputs[name], atol=1e-6)


def test_self_tests_run(run: RunFolder) -> None:
    results = [golden.selftest(run.artifacts / name) for name in ("torch-export", "torchscript")]
    assert all(result.passed for result in results)
    record = json.loads((run.artifacts / "torchscript" / "artifact.json").read_text())
    assert record["selftest"] == "selftest"
