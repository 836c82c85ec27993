"""The trainable twin computes what the program will compute: to the bit, for every precision and pattern."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import edgekit as ek
from edgekit.compression.quantize.grid import Grid
from edgekit.compression.quantize.training.fake_quantize import FakeActivation
from edgekit.core.program import answer_samples
from edgekit.core.recipe import AwareTraining, LayerPrecision, Quantize, Recipe
from edgekit.core.task import Task
from tests.compression.conftest import ImageNet


class Gates(nn.Module):
    """Fixed ranges beside learned ones, shared grids, constant operands, a transposed and a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(4, 8, 3, padding=1), nn.Conv1d(4, 8, 1)
        self.norm, self.group = nn.BatchNorm1d(16), nn.GroupNorm(2, 16)
        self.c = nn.Conv1d(16, 8, 3, stride=2, groups=2, padding=1)
        self.up = nn.ConvTranspose1d(8, 4, 2, 2)
        self.gain = nn.Parameter(torch.rand(4, 1) + 0.5)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.cat([torch.sigmoid(self.a(x)), torch.relu(self.b(x))], 1)
        y = torch.tanh(self.c(self.group(F.silu(self.norm(y)))))
        y = F.hardswish(self.up(y) * self.gain + 0.5) + x
        return self.head(F.max_pool1d(y, 2).reshape(1, -1))


class Sentence(nn.Module):
    """A transformer layer: embedding, attention, layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.1)
        self.head = nn.Linear(16, 3)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.words(words)).mean(1))


class Twice(nn.Module):
    """One convolution called twice, two inputs, named outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 2)

    def forward(self, image: torch.Tensor, other: torch.Tensor) -> dict[str, torch.Tensor]:
        y = F.relu6(self.conv(F.relu(self.conv(image))) + other)
        return {"class": self.head(y.mean((2, 3))), "peak": y.amax((2, 3))}


def noise(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


NETS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "image": (ImageNet, (noise(16, 3, 16, 16),)),
    "gates": (Gates, (noise(16, 4, 8),)),
    "sentence": (Sentence, (np.random.default_rng(0).integers(0, 20, (16, 7)),)),
    "twice": (Twice, (noise(16, 3, 8, 8), noise(16, 3, 8, 8) + 1)),
}
MIXED = Quantize(
    layers=(LayerPrecision(layers="head", precision="w8"), LayerPrecision(layers="block", precision="w8a16")),
    training=AwareTraining(),
)


def prepared_and_data(name: str, step: Quantize) -> tuple[Any, list[torch.Tensor]]:
    torch.manual_seed(0)
    build, arrays = NETS[name]
    example = tuple(array[:1] for array in arrays)
    task = Task(name=name, model=build(), example_inputs=example, calibration=[arrays])
    return ek.prepare_qat(task, recipe=Recipe(name="test", steps=(step,))), [torch.from_numpy(array) for array in arrays]


def train_a_little(prepared: Any, inputs: list[torch.Tensor]) -> None:
    optimizer = torch.optim.Adam(prepared.parameters(), lr=2e-2)
    prepared.train()
    for _ in range(4):
        outputs = prepared(*inputs)
        logits = outputs["class"] if isinstance(outputs, dict) else outputs
        optimizer.zero_grad()
        F.cross_entropy(logits, torch.arange(len(logits)) % 2).backward()
        optimizer.step()
    prepared.eval()


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("image", Quantize(training=AwareTraining())),
        ("image", Quantize(weights="int4", training=AwareTraining(), equalization=True)),
        ("image", MIXED),
        ("gates", Quantize(training=AwareTraining())),
        ("gates", Quantize(activations="int16", training=AwareTraining())),
        ("sentence", Quantize(weights="int4", training=AwareTraining())),
        ("twice", Quantize(training=AwareTraining())),
    ],
    ids=lambda value: value if isinstance(value, str) else value.word() + ("-mixed" if value.layers else ""),
)
def test_after_training_the_twin_and_the_program_give_the_same_bits(name: str, step: Quantize) -> None:
    prepared, inputs = prepared_and_data(name, step)
    before = [parameter.detach().clone() for parameter in prepared.parameters()]
    train_a_little(prepared, inputs)
    assert sum(not torch.equal(a, b) for a, b in zip(before, prepared.parameters(), strict=True)) > len(before) // 2
    compressed = ek.finish_qat(prepared)
    specs = compressed.record.inputs
    samples = {spec.name: value.numpy()[:, None] for spec, value in zip(specs, inputs, strict=True)}
    names = [spec.name for spec in compressed.record.outputs]
    program = answer_samples(compressed.program, samples, names)
    with torch.no_grad():
        rows = [prepared(*(value[at : at + 1] for value in inputs)) for at in range(16)]
    for place, output in enumerate(names):
        twin = torch.stack([list(row.values())[place] if isinstance(row, dict) else row for row in rows])
        assert np.array_equal(program[output], twin.numpy())
        assert program[output].std() > 0


@pytest.mark.parametrize(
    ("name", "way"), [("image", "directly"), ("gates", "directly"), ("sentence", "mapped"), ("twice", "directly")]
)
def test_a_net_traced_for_one_sample_takes_many(name: str, way: str) -> None:
    prepared, inputs = prepared_and_data(name, Quantize(training=AwareTraining()))
    assert prepared.call.way == way
    with torch.no_grad():
        together, alone = prepared(*inputs), [prepared(*(value[at : at + 1] for value in inputs)) for at in range(16)]
    if not isinstance(together, dict):
        together, alone = {"output": together}, [{"output": row} for row in alone]
    for key, value in together.items():
        torch.testing.assert_close(value, torch.cat([row[key] for row in alone]))


@pytest.fixture
def unaligned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Post-training quantization with the scales that calibration asks for: a trained plan's are left where training put them."""
    monkeypatch.setattr("edgekit.compression.quantize.lower.align_grids", lambda plan, grids, exact: grids)
    monkeypatch.setattr("edgekit.compression.quantize.lower.exact_weight_scales", lambda scales, **_: scales)


@pytest.mark.usefixtures("unaligned")
def test_untrained_it_is_post_training_quantization() -> None:
    prepared, _ = prepared_and_data("image", Quantize(training=AwareTraining()))
    origin = prepared.origin
    plain = Quantize(rounding="nearest", bias_correction=False)
    ptq = ek.compress(origin.task, recipe=Recipe(name="plain", steps=(plain,))).contract
    qat = ek.finish_qat(prepared).contract
    assert [(entry.name, entry.scale, entry.sha256) for entry in qat.entries] == [
        (entry.name, entry.scale, entry.sha256) for entry in ptq.entries
    ]


@pytest.mark.usefixtures("unaligned")
def test_scales_that_are_not_learned_stay_where_calibration_put_them() -> None:
    prepared, inputs = prepared_and_data("image", Quantize(training=AwareTraining(learned_scales=False)))
    train_a_little(prepared, inputs)
    before = ek.compress(prepared.origin.task, recipe="int8").contract
    after = ek.finish_qat(prepared).contract
    assert [entry.scale for entry in after.activations] == [entry.scale for entry in before.activations]
    assert [entry.sha256 for entry in after.parameters] != [entry.sha256 for entry in before.parameters]


def test_a_layer_that_is_called_twice_keeps_one_weight() -> None:
    prepared, inputs = prepared_and_data("twice", Quantize(training=AwareTraining()))
    train_a_little(prepared, inputs)
    contract = ek.finish_qat(prepared).contract
    assert contract["conv.weight"].sha256 == contract["conv.weight:2"].sha256
    assert contract["conv.bias"].scale != contract["conv.bias:2"].scale  # each call's input has its own scale


def test_gradients_are_those_of_learned_step_size_quantization() -> None:
    """Equations 2 and 3 of arXiv:1902.08153, times ``scale * ln 2`` for the logarithm."""
    fake = FakeActivation(Grid(scale=0.5, zero_point=-128), low=0.0, high=127.5, learned=True)
    value = torch.tensor([[-1.0, 0.3, 40.1, 200.0]], requires_grad=True)
    result = fake(value)
    assert result.tolist() == [[0.0, 0.5, 40.0, 127.5]]
    result.sum().backward()
    assert value.grad is not None and value.grad.tolist() == [[0.0, 1.0, 1.0, 0.0]]
    slopes = [0.0, 1 - 0.6, 80 - 80.2, 255.0]
    expected = sum(slopes) / math.sqrt(4 * 127) * 0.5 * math.log(2)
    assert fake.log2_gain.grad is not None
    assert float(fake.log2_gain.grad) == pytest.approx(expected, rel=1e-5)


def test_what_was_trained_can_be_exact() -> None:
    prepared, inputs = prepared_and_data("image", Quantize(exact=True, training=AwareTraining()))
    train_a_little(prepared, inputs)
    assert ek.check_exactness(ek.finish_qat(prepared)).is_exact
