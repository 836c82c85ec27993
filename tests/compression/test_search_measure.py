"""Sensitivity: the noise that is predicted is the noise that is there; and mixed precision spends on the right layers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from edgekit import pipeline
from edgekit.compression.capture import capture
from edgekit.compression.search.allocate import Problem, allocate, exceptions
from edgekit.compression.search.batched import BatchedProgram
from edgekit.compression.search.measure import OutputNoise, decibels, measure_noise
from edgekit.compression.search.sensitivity import begin_study, examine_sensitivity, total_noise
from edgekit.compression.search.simulate import as_outputs
from edgekit.core.errors import RecipeError
from edgekit.core.plugins import silent
from edgekit.core.recipe import Quantize, Recipe
from edgekit.core.task import Task

INT8 = Recipe.parse_text("int8")


class Spoiled(nn.Module):
    """Four linear layers, the third of which has one huge weight a row: its grid has hardly a step for the others."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))
        with torch.no_grad():
            self.layers[1].bias[0] = -30.0  # its unit is never on
            self.layers[2].weight[:, 0] = 40.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.layers[1](self.layers[0](x)))
        return self.layers[3](self.layers[2](hidden))


@pytest.fixture
def spoiled_task(make_task: Callable[..., Task]) -> Task:
    return make_task(Spoiled(), (1, 16))


def test_the_spoiled_layer_is_the_worst_and_the_prediction_is_what_running_it_gives(spoiled_task: Task) -> None:
    report = examine_sensitivity(spoiled_task, recipe=INT8, sample_count=16, progress=silent)
    worst, *others = report.layers
    assert worst.layer == "layers.2"
    assert worst.share is not None and worst.share > 0.5
    assert sum(row.share or 0.0 for row in report.layers) == pytest.approx(1.0)
    for row in (worst, *others[:3]):
        both = [10 ** (-db / 10) for db in (row.weights_output_snr_db, row.activations_output_snr_db) if db is not None]
        predicted = decibels(sum(both))
        assert row.checked_snr_db == pytest.approx(predicted, abs=3.0), row


def test_4_bit_weights_are_about_24_db_worse(image_task: Task) -> None:
    report = examine_sensitivity(image_task, recipe=INT8, sample_count=8, checked=0, progress=silent)
    rows = [row for row in report.layers if row.weights_snr_db is not None]
    assert {"stem.0", "head"} <= {row.layer for row in rows}
    for row in rows:
        assert row.narrow_weights_snr_db is not None
        assert 18 < row.weights_snr_db - row.narrow_weights_snr_db < 32  # 127 / 7 is 25.2 dB
        assert row.weight_count and row.macs
        assert row.checked_snr_db is None


def test_what_all_layers_contribute_adds_up_to_what_rounding_all_does(image_task: Task) -> None:
    study = begin_study(capture(image_task, recipe=INT8), step=Quantize(), task=image_task, sample_count=16, progress=silent)
    predicted = total_noise(study.plan, measure_noise(study.simulation, study.samples, progress=lambda _: None))
    found = OutputNoise()
    for arguments in study.samples:
        with torch.no_grad():
            found.add(study.simulation.run_all(arguments), as_outputs(study.module(*arguments)))
    assert decibels(found.mean()) == pytest.approx(decibels(predicted), abs=2.5)


def test_a_net_without_derivatives_still_says_what_each_layer_does(make_task: Callable[..., Task]) -> None:
    class Votes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x).argmax(1)

    report = pipeline.sensitivity(make_task(Votes(), (1, 8)), checked=0)
    assert report.predicted_snr_db is None
    assert {row.layer: row.share for row in report.layers}["fc"] is None
    assert next(row for row in report.layers if row.layer == "fc").weights_snr_db is not None


def test_a_recipe_without_integers_is_refused(image_task: Task) -> None:
    with pytest.raises(RecipeError, match="no quantize step"):
        examine_sensitivity(image_task, recipe=Recipe.parse_text("none"), sample_count=4, progress=silent)


@pytest.fixture
def problem(spoiled_task: Task) -> Problem:
    study = begin_study(capture(spoiled_task, recipe=INT8), step=Quantize(), task=spoiled_task, sample_count=16, progress=silent)
    return Problem(study.plan, measure_noise(study.simulation, study.samples, progress=lambda _: None))


def test_allocation_frees_the_spoiled_layer_first_and_no_more_than_needed(problem: Problem) -> None:
    none = allocate(problem, noise_share=1.0, relief=("w8", "fp16"))
    half = allocate(problem, noise_share=0.5, relief=("w8", "fp16"))
    little = allocate(problem, noise_share=1e-3, relief=("w8", "fp16"))
    assert none.words == {} and none.work == pytest.approx(1.0)
    assert half.words == {"layers.2": "fp16"}, half
    assert half.is_enough and half.noise <= 0.5
    assert set(half.words) < set(little.words)
    assert half.work < little.work <= 4.0


def test_wide_activations_do_not_help_where_weights_are_to_blame(problem: Problem) -> None:
    assert not allocate(problem, noise_share=1e-4, relief=("w8a16",)).is_enough
    assert problem.noise(dict.fromkeys(problem.layers, "fp16")) < 1e-6 * problem.noise({})


def test_size_bound_takes_4_bits_where_they_cost_least(problem: Problem) -> None:
    whole = problem.weight_bytes({})
    found = allocate(problem, noise_share=1e9, relief=("w8", "fp16"), size_bytes=round(0.8 * whole))
    assert set(found.words.values()) == {"w4a8"}
    assert found.weight_bytes <= 0.8 * whole
    assert found.is_enough
    assert not allocate(problem, noise_share=1e9, relief=("fp16",), size_bytes=round(0.3 * whole)).is_enough


def test_patterns_reach_the_layers_meant_and_no_others(image_task: Task) -> None:
    rules = exceptions({"block": "fp16"}, ["block", "block.conv.0", "block.conv.3", "head"])  # not block.conv.6
    made = pipeline.compress(image_task, recipe=Recipe(name="mixed", steps=(Quantize(layers=rules),)))
    words = {entry.layer: entry.precision for entry in made.contract.parameters if entry.role == "weight"}
    assert {layer: words[layer] for layer in ("block.conv.0", "block.conv.3", "head")} == dict.fromkeys(
        ("block.conv.0", "block.conv.3", "head"), "int8"
    )
    whole = pipeline.compress(image_task, recipe="int8").record.history[-1].details
    assert made.record.history[-1].details["kernel_count"] == whole["kernel_count"] - 2  # the addition, and the third convolution
    assert words["block.conv.6"] == "fp16"


@pytest.mark.parametrize("recipe", ["none", "int8", "w4-g32", "w8a16"])
def test_a_batch_is_answered_as_one_by_one(recipe: str, make_task: Callable[..., Task]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(32, 32), nn.LayerNorm(32), nn.GELU(), nn.Flatten(0), nn.Unflatten(0, (1, 32)), nn.Linear(32, 5))
    made = pipeline.compress(make_task(net, (1, 32)), recipe=recipe)  # Flatten(0) would mix samples in a plain batch
    program = BatchedProgram(made.program, ["y"])
    inputs = {"x": np.random.default_rng(1).normal(size=(50, 32)).astype(np.float32)}
    together = program.answer(inputs)["y"]
    assert program.is_mapped
    program.is_mapped = False
    np.testing.assert_allclose(together, program.answer(inputs)["y"], atol=1e-5 if recipe != "w8a16" else 1e-4)
    assert together.shape == (50, 5)


def test_what_cannot_be_mapped_runs_one_by_one(make_task: Callable[..., Task]) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(4, 4, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.rnn(x)[0][:, -1]

    made = pipeline.compress(make_task(Recurrent(), (1, 6, 4)), recipe="none")
    program = BatchedProgram(made.program, ["y"])
    inputs = np.random.default_rng(1).normal(size=(5, 6, 4)).astype(np.float32)
    assert program.answer({"x": inputs})["y"].shape == (5, 4)
    assert program.is_mapped is False
