"""One net with every family of operators, on every target: what becomes integers, and that all agree layer by layer."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgekit import pipeline, registry
from edgekit.core.artifact import Artifact, ExportOptions
from edgekit.core.compressed import Compressed
from edgekit.core.program import answer_samples
from edgekit.core.run import RunFolder
from edgekit.core.task import Task
from edgekit.runtimes.torch import record_layers

pytestmark = pytest.mark.slow

RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert", "coreml": "coreml-reference"}
FLOATS = {"adaptive_avg_pool2d", "add", "elu", "gelu", "gru", "group_norm", "layer_norm", "lstm", "prelu", "softmax"}


class Constants(nn.Module):
    """Constant operands that cannot be folded into a layer: after a ReLU, on both sides, in a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(1, 8, 1, 1) + 0.5)
        self.shift = nn.Parameter(torch.randn(1, 8, 8, 8))
        self.extra = nn.Parameter(torch.randn(1, 2, 8, 8))
        self.conv = nn.Conv2d(10, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (torch.relu(x) * self.gain + self.shift) / 3.0
        return self.conv(torch.cat([1.0 - x, self.extra], 1)) * 0.5


class Moves(nn.Module):
    """Splits, stacks, pads, pools and a convolution with an even kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.even = nn.Conv2d(8, 8, 2, padding="same")
        self.reflect = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
        self.own = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.even(x).chunk(2, 1)
        x = torch.stack([left, self.own(right)], 2).flatten(1, 2)
        x = self.reflect(functional.pad(x, (1, 0, 0, 1)))
        return functional.adaptive_avg_pool2d(x, (3, 3)) + functional.max_pool2d(x, 3)


class Gates(nn.Module):
    """Activations: some run on integers, some are written as others, some are float between grids."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in range(8))
        self.prelu = nn.PReLU(8)
        self.norm = nn.GroupNorm(2, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gates = (
            functional.silu,
            functional.hardsigmoid,
            functional.hardswish,
            functional.gelu,
            functional.elu,
            self.prelu,
            functional.leaky_relu,
            self.norm,
        )
        for conv, gate in zip(self.convs, gates, strict=True):
            x = gate(conv(x))
        return x


class Attention(nn.Module):
    """The module, and the function with a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x + self.module(x, x, x, need_weights=False)[0])
        heads = [layer(x).reshape(1, 4, 2, 8).transpose(1, 2) for layer in (self.query, self.key, self.value)]
        return functional.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).reshape(1, 4, 16)


class Everything(nn.Module):
    """All of them side by side, and embeddings, recurrence, one and three dimensions, transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.constants, self.moves, self.gates, self.attention = Constants(), Moves(), Gates(), Attention()
        self.embedding = nn.Embedding(20, 16)
        self.lstm, self.gru = nn.LSTM(16, 8, batch_first=True), nn.GRU(8, 8, batch_first=True)
        self.line = nn.Sequential(nn.Conv1d(8, 8, 3, padding=1), nn.ReLU(), nn.ConvTranspose1d(8, 4, 2, stride=2))
        self.volume = nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2))

    def forward(self, image: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.stem(image)
        words = self.attention(self.embedding(tokens))
        steps, _ = self.gru(self.lstm(words)[0])
        uneven = functional.adaptive_avg_pool2d(x, (3, 3))
        return (
            self.constants(x),
            self.moves(x),
            self.gates(x),
            steps[:, -1],
            self.line(x.flatten(2)[:, :, :16]),
            self.volume(x.reshape(1, 2, 4, 8, 8)),
            self.stem(uneven[:, :3]),
        )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    images, tokens = rng.normal(size=(16, 3, 8, 8)).astype(np.float32), rng.integers(0, 20, (16, 4))
    task = Task(name="everything", model=Everything(), example_inputs=(images[:1], tokens[:1]), calibration=[(images, tokens)])
    folder = tmp_path_factory.mktemp("coverage") / "run"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using padding='same' with even kernel lengths")
        pipeline.compress(task, recipe="int8", output=folder)
    options = ExportOptions(compute_precision="float32")
    pipeline.export(folder, targets=list(RUNTIMES), options=options, float_baseline=False)
    return RunFolder(folder)


@pytest.fixture(scope="module")
def compressed(run: RunFolder) -> Compressed:
    return Compressed.load(run.compressed)


def snr_db(signal: np.ndarray, other: np.ndarray) -> float:
    noise = float(((signal - other).astype(np.float64) ** 2).sum())
    return float(10 * np.log10((signal.astype(np.float64) ** 2).sum() / max(noise, 1e-30)))


def test_only_what_has_no_integer_kernel_stays_float(compressed: Compressed) -> None:
    floats = compressed.contract.float_layers
    assert {layer.op for layer in floats} == FLOATS
    assert all(layer.reason for layer in floats)
    assert any("mask" in layer.reason for layer in floats if layer.layer == "attention")
    names = {entry.name for entry in compressed.contract.parameters}
    assert {"constants.shift", "constants.extra", "embedding.weight", "moves.even.weight", "volume.0.weight"} <= names


def test_the_program_is_near_its_float_original(compressed: Compressed) -> None:
    names = [spec.name for spec in compressed.record.outputs]
    signal = answer_samples(compressed.float_program, compressed.golden.inputs, names)
    for name in names:
        assert snr_db(signal[name], compressed.golden.outputs[name]) > 25, name


def test_constant_operands_are_stored_as_integers(compressed: Compressed) -> None:
    shift = compressed.contract["constants.shift"]
    assert (shift.role, shift.op, shift.dtype, shift.zero_point, shift.channel_axis) == ("weight", "constant", "int8", (0,), None)
    assert shift.layer == "constants"
    extra = compressed.contract["constants.extra"]
    assert extra.group == compressed.contract["constants.cat"].group
    assert extra.scale == compressed.contract["constants.cat"].scale
    held = {**dict(compressed.program.named_buffers()), **dict(compressed.program.named_parameters())}
    assert sum(tensor.dtype == torch.int8 and tensor.shape == (1, 8, 8, 8) for tensor in held.values()) == 1
    assert not any(tensor.dtype == torch.float32 and tensor.shape == (1, 8, 8, 8) for tensor in held.values())


@pytest.mark.parametrize("target", RUNTIMES)
def test_every_target_answers_like_the_program(run: RunFolder, compressed: Compressed, target: str) -> None:
    artifact, runtime = Artifact.load(run.artifacts / target), registry.runtime(RUNTIMES[target])
    session = runtime.load(artifact.path, threads=1)
    types = {spec.name: spec.dtype for spec in session.inputs}
    for at in range(4):
        found = session.run({name: array[at].astype(types[name]) for name, array in compressed.golden.inputs.items()})
        for name, expected in compressed.golden.outputs.items():
            assert snr_db(expected[at], found[name]) > 20, (name, at)
    session.close()


@pytest.mark.parametrize("target", RUNTIMES)
def test_every_layer_is_within_one_step_of_the_program(run: RunFolder, compressed: Compressed, target: str) -> None:
    artifact, runtime = Artifact.load(run.artifacts / target), registry.runtime(RUNTIMES[target])
    inputs = {name: array[:4] for name, array in compressed.golden.inputs.items()}
    recorded = record_layers(run.compressed / "program.pt2", compressed.contract, inputs)
    replayed = runtime.replay_layers(artifact, compressed.contract, recorded)
    assert len(replayed) > 30
    for entry, integers in replayed.items():
        steps = np.abs(integers.astype(int) - recorded[entry].astype(int))
        assert steps.max() <= 1, f"{entry}: {steps.max()} steps"


EXPECTED_DROPS = {
    "onnx": "",
    "tflite": r"volume\.0\.(weight|bias)|embedding\.weight",
    "coreml": "",
}
"""Entries a target's file does not hold: TFLite's three-dimensional convolution is a float one."""


@pytest.mark.parametrize("target", RUNTIMES)
def test_what_a_file_does_not_hold_is_known_and_explained(run: RunFolder, target: str) -> None:
    report = Artifact.load(run.artifacts / target).contract_report
    dropped = [outcome for outcome in report.outcomes if outcome.outcome == "dropped"]
    assert all(outcome.reason for outcome in dropped)
    unknown = [(one.name, one.reason) for one in dropped if not re.match(f"(?:{EXPECTED_DROPS[target]})$", one.name)]
    assert unknown == []


def notes_of(run: RunFolder, target: str) -> str:
    return " ".join(Artifact.load(run.artifacts / target).notes)


def test_onnx_runtime_runs_the_kernels_the_table_names(run: RunFolder) -> None:
    notes = notes_of(run, "onnx")
    for kernel in (
        "QGemm", "QLinearAdd", "QLinearAveragePool", "QLinearConcat", "QLinearConv", "QLinearLeakyRelu", "QLinearMatMul",
        "QLinearMul", "QLinearSigmoid", "QLinearSoftmax",
    ):  # fmt: skip
        assert f"{kernel} ×" in notes, kernel


def kinds_of(path: Path) -> dict[str, int]:
    """Operators of a TFLite file with an int8 result, by kind."""
    from edgekit.converters.tflite_flatbuffer import Graph

    graph = Graph(path.read_bytes())
    found: dict[str, int] = {}
    for operator in graph.operators:
        if graph.dtype(int(operator.outputs[0])) == "int8":
            found[graph.kind(operator)] = found.get(graph.kind(operator), 0) + 1
    return found


def test_litert_gets_the_kernels_the_table_names(run: RunFolder) -> None:
    kinds = kinds_of(Artifact.load(run.artifacts / "tflite").path)
    expected = {
        "ADD", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CONCATENATION", "CONV_2D", "FULLY_CONNECTED", "HARD_SWISH", "LEAKY_RELU",
        "LOGISTIC", "MAX_POOL_2D", "MUL", "SOFTMAX", "SUB", "TRANSPOSE_CONV",
    }  # fmt: skip
    assert expected <= kinds.keys()
