"""Equalization and bias correction: they help where they should, and change nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.compression.capture import capture
from edgekit.compression.quantize import RUNNER
from edgekit.compression.quantize.calibrate.observe import calibrate
from edgekit.compression.quantize.canonical.form import canonicalize
from edgekit.compression.quantize.equalize import equalize, find_streams
from edgekit.compression.quantize.plan import make_plan
from edgekit.compression.quantize.repair.sequential import affordable_sample_count
from edgekit.core.compressed import Compressed
from edgekit.core.plugins import silent
from edgekit.core.program import answer_samples
from edgekit.core.recipe import Quantize, Recipe
from edgekit.core.task import Task


class Uneven(nn.Module):
    """A depthwise separable net whose channels differ in range by two orders of magnitude, as trained ones do."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, 24, 1)
        self.depthwise = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.project = nn.Conv2d(24, 8, 1)
        with torch.no_grad():
            gains = torch.logspace(-2, 0, 24).reshape(-1, 1, 1, 1)
            self.expand.weight.mul_(gains)
            self.expand.bias.mul_(gains.flatten())
            self.depthwise.weight.div_(gains)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.project(torch.relu(self.depthwise(torch.relu(self.expand(image)))))


@pytest.fixture
def uneven(make_task: Callable[..., Task]) -> Task:
    torch.manual_seed(0)
    return make_task(Uneven(), (1, 3, 12, 12), samples=24)


def quantize(task: Task, **fields: Any) -> Compressed:
    """Quantize with nothing but what ``fields`` ask for."""
    step = Quantize(**({"equalization": False, "bias_correction": False, "rounding": "nearest"} | fields))
    return RUNNER(capture(task, recipe=Recipe.parse_text("int8")), step=step, task=task, progress=silent)[0]


def snr_db(state: Compressed) -> float:
    signal = answer_samples(state.float_program, state.golden.inputs, ["output"])["output"]
    noise = signal - state.golden.outputs["output"]
    return float(10 * np.log10((signal**2).sum() / (noise**2).sum()))


def prepared(task: Task) -> tuple[Any, Any, Any, Any]:
    state = capture(task, recipe=Recipe.parse_text("int8"))
    example = task.named_inputs(task.example_inputs)
    module = canonicalize(state.program, tuple(torch.from_numpy(array) for array in example.values()))
    plan = make_plan(module)
    streams = find_streams(module, plan)
    hidden = {node for stream in streams for node in stream.tensors}
    found = calibrate(module, plan, watched_channels=hidden, task=task, example=example, sample_count=24, progress=silent)
    return module, streams, found, state


def test_streams_are_found_where_scaling_is_free_or_fair(uneven: Task) -> None:
    _, streams, _, _ = prepared(uneven)
    ends = [([node.name for node in stream.producers], [node.name for node in stream.readers]) for stream in streams]
    assert ends == [(["conv2d"], ["conv2d_1"]), (["conv2d_1"], ["conv2d_2"])]


def test_equalization_keeps_the_function_and_levels_the_channels(uneven: Task) -> None:
    module, streams, found, state = prepared(uneven)
    images = [torch.from_numpy(image) for image in state.golden.inputs["image"]]
    before = [module(image) for image in images]
    scaled = equalize(module, streams, found)
    for image, expected in zip(images, before, strict=True):
        torch.testing.assert_close(module(image), expected, rtol=1e-4, atol=1e-5)
    old, new = (statistics.channels[streams[0].tensors[0]].high for statistics in (found, scaled))
    assert float(old.max() / old.min()) > 20
    assert float(new.max() / new.min()) < 2  # a factor is at most 64
    assert scaled.ranges[streams[0].tensors[0]].high == pytest.approx(found.ranges[streams[0].tensors[0]].high)


def test_equalization_helps_uneven_channels(uneven: Task) -> None:
    assert snr_db(quantize(uneven, equalization=True)) > snr_db(quantize(uneven)) + 3


def test_the_captured_program_is_left_as_it_was(uneven: Task) -> None:
    weights = {name: value.clone() for name, value in uneven.build_model().state_dict().items()}
    state = quantize(uneven, equalization=True, bias_correction=True)
    for name, value in uneven.build_model().state_dict().items():
        assert torch.equal(value, weights[name])
    for name, value in state.float_program.state_dict.items():
        assert torch.equal(value, weights[name])


class Shared(nn.Module):
    """A layer called twice and a tensor read twice: neither may be scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.fork = nn.Conv2d(3, 3, 1)
        self.out = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.fork(torch.relu(self.conv(torch.relu(self.conv(x))))))
        return self.out(y) + y


def test_shared_weights_and_forks_are_left_alone(make_task: Callable[..., Task]) -> None:
    torch.manual_seed(0)
    _, streams, _, _ = prepared(make_task(Shared(), (1, 3, 8, 8)))
    assert streams == []


def mean_errors(state: Compressed) -> np.ndarray:
    signal = answer_samples(state.float_program, state.golden.inputs, ["output"])["output"]
    return np.abs((state.golden.outputs["output"] - signal).mean(axis=(0, 1, 3, 4)))


def test_bias_correction_takes_out_the_mean_error(make_task: Callable[..., Task]) -> None:
    torch.manual_seed(0)
    task = make_task(Uneven(), (1, 3, 12, 12), samples=8)  # as many as golden inputs, so that both see the same samples
    plain, corrected = quantize(task), quantize(task, bias_correction=True)
    assert mean_errors(corrected).mean() < 0.5 * mean_errors(plain).mean()
    assert snr_db(corrected) > snr_db(plain)


def test_corrected_biases_stay_on_their_grid_and_the_contract_knows_them(uneven: Task) -> None:
    state, plain = quantize(uneven, bias_correction=True), quantize(uneven)
    buffers = dict(state.program.named_buffers())
    nodes = state.program.graph_signature.inputs_to_buffers
    changed = 0
    for entry in state.contract.parameters:
        if entry.role != "bias":
            continue
        stored = buffers[nodes[entry.node]].double().numpy()
        integers = np.rint(stored / np.array(entry.scale)).astype(np.int32)
        assert hashlib.sha256(integers.tobytes()).hexdigest() == entry.sha256
        assert entry.scale == plain.contract[entry.name].scale
        changed += entry.sha256 != plain.contract[entry.name].sha256
    assert changed == 3


def test_samples_for_repair_fit_the_memory_allowed(uneven: Task) -> None:
    module, _, _, _ = prepared(uneven)
    assert affordable_sample_count(module, wanted=24) == 24
    assert affordable_sample_count(module, wanted=10**9) < 10**6


class Residuals(nn.Module):
    """Two residual blocks over one stream whose channels differ a hundredfold, pooled, then a dense head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(12, 24, 1), nn.ReLU(), nn.Conv2d(24, 12, 1)) for _ in range(2))
        self.head = nn.Linear(12, 4)
        gains = torch.logspace(-1, 1, 12)
        with torch.no_grad():
            for layer in (self.stem, *(block[2] for block in self.blocks)):
                layer.weight.mul_(gains.reshape(-1, 1, 1, 1))
                layer.bias.mul_(gains)
            for layer in (block[0] for block in self.blocks):
                layer.weight.div_(gains.reshape(1, -1, 1, 1))
            self.head.weight.div_(gains)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.stem(image)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.mean([2, 3]))


def test_a_whole_residual_stream_is_equalized(make_task: Callable[..., Task]) -> None:
    torch.manual_seed(0)
    task = make_task(Residuals(), (1, 3, 12, 12), samples=24)
    _, streams, _, _ = prepared(task)
    assert sorted(len(stream.tensors) for stream in streams) == [1, 1, 6]  # stem, two branches, two sums, the mean
    assert snr_db(quantize(task, equalization=True)) > snr_db(quantize(task)) + 3


@pytest.mark.parametrize("model", [Uneven, Residuals])
def test_compensated_rounding_recovers_four_bits(make_task: Callable[..., Task], model: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    task = make_task(model(), (1, 3, 12, 12), samples=24)
    nearest = quantize(task, weights="int4", equalization=True, bias_correction=True)
    better = quantize(task, weights="int4", equalization=True, bias_correction=True, rounding="compensated")
    assert snr_db(better) > snr_db(nearest) + 1


def test_history_says_what_was_done(uneven: Task) -> None:
    recipe = Recipe.parse_text("int8")
    step = Quantize(equalization=True, bias_correction=True)
    _, record = RUNNER(capture(uneven, recipe=recipe), step=step, task=uneven, progress=silent)
    assert (record.details["equalized_stream_count"], record.details["repaired_layer_count"]) == (2, 3)
