"""SmoothQuant: the function stays, the outliers move, and int8 gets better where there are outliers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.compression.capture import capture
from edgekit.compression.quantize import RUNNER
from edgekit.compression.quantize.calibrate.observe import calibrate
from edgekit.compression.quantize.canonical.form import canonicalize
from edgekit.compression.quantize.plan import make_plan
from edgekit.compression.quantize.smooth import find_chains, smooth
from edgekit.core.plugins import silent
from edgekit.core.program import answer_samples
from edgekit.core.recipe import Estimator, Quantize, Recipe
from edgekit.core.task import Task

WIDTH, LENGTH = 32, 12


class Block(nn.Module):
    """A pre-norm transformer block, one head: three readers of one norm, a feed-forward net, residuals."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.feed = nn.Sequential(nn.Linear(WIDTH, 64), nn.ReLU(), nn.Linear(64, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.before(x)
        weights = torch.softmax(self.query(y) @ self.key(y).transpose(1, 2) / WIDTH**0.5, -1)
        x = x + self.out(weights @ self.value(y))
        return x + self.feed(self.between(x))


@pytest.fixture
def outlier_task(make_task: Callable[..., Task]) -> Task:
    """Norms with a few channels fifty times as strong as the others, as large transformers grow them; weights that offset it."""
    torch.manual_seed(0)
    task = make_task(Block(), (1, LENGTH, WIDTH), samples=24)
    net = task.build_model()
    with torch.no_grad():
        for norm, readers in ((net.before, [net.query, net.key, net.value]), (net.between, [net.feed[0]])):
            norm.weight[[3, 17]] *= 50
            for reader in readers:
                reader.weight[:, [3, 17]] /= 50
    return task


def snr_db(task: Task, **fields: object) -> float:
    state = capture(task, recipe=Recipe.parse_text("int8"))
    state = RUNNER(state, step=Quantize.model_validate(fields), task=task, progress=silent)[0]
    signal = answer_samples(state.float_program, state.golden.inputs, ["output"])["output"]
    noise = signal - state.golden.outputs["output"]
    return float(10 * np.log10((signal**2).sum() / (noise**2).sum()))


def prepared(task: Task) -> tuple[torch.fx.GraphModule, torch.Tensor]:
    sample = next(iter(task.calibration_batches()))[task.input_names[0]][:1]
    arguments = (torch.from_numpy(sample),)
    return canonicalize(capture(task, recipe=Recipe.parse_text("int8")).program, arguments), arguments[0]


def test_outliers_cost_less_when_smoothed(outlier_task: Task) -> None:
    assert snr_db(outlier_task, smoothing=0.5) > snr_db(outlier_task) + 4


@pytest.mark.parametrize("estimator", ["percentile", "mse"])
def test_with_an_estimator_that_clips(outlier_task: Task, estimator: Estimator) -> None:
    assert snr_db(outlier_task, smoothing=0.5, estimator=estimator) > snr_db(outlier_task, estimator=estimator) + 2


def test_the_function_stays_and_the_channels_become_alike(outlier_task: Task) -> None:
    module, sample = prepared(outlier_task)
    plan = make_plan(module)
    chains = find_chains(module, plan)
    assert [len(chain.readers) for chain in chains] == [3, 1, 1]  # before, between, feed.0 -> relu -> feed.2
    example = outlier_task.named_inputs(outlier_task.example_inputs)
    statistics = calibrate(
        module,
        plan,
        watched_channels=[chain.hidden for chain in chains],
        task=outlier_task,
        example=example,
        sample_count=24,
        progress=silent,
    )
    before = module(sample)[0].clone()
    smoothed = smooth(module, chains, statistics, alpha=0.5)
    torch.testing.assert_close(module(sample)[0], before, rtol=1e-4, atol=1e-5)
    for chain in chains[:2]:
        spreads = [
            float((peaks.high - peaks.low).max() / (peaks.high - peaks.low).median())
            for peaks in (statistics.channels[chain.hidden], smoothed.channels[chain.hidden])
        ]
        assert spreads[0] > 30
        assert spreads[1] < 10


def test_predicted_ranges_are_those_of_the_smoothed_graph(outlier_task: Task) -> None:
    module, _ = prepared(outlier_task)
    plan = make_plan(module)
    chains = find_chains(module, plan)
    example = outlier_task.named_inputs(outlier_task.example_inputs)
    hidden = [chain.hidden for chain in chains]
    first = calibrate(module, plan, watched_channels=hidden, task=outlier_task, example=example, sample_count=24, progress=silent)
    predicted = smooth(module, chains, first, alpha=0.5).ranges
    again = calibrate(module, plan, task=outlier_task, example=example, sample_count=24, progress=silent).ranges
    for node, found in again.items():
        assert predicted[node].low == pytest.approx(found.low, rel=1e-3, abs=1e-4)
        assert predicted[node].high == pytest.approx(found.high, rel=1e-3, abs=1e-4)


class PostNorm(nn.Module):
    """The norm's output is also a residual: nothing may be moved."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        return y + self.fc(y)


class Tied(nn.Module):
    """One linear layer after two norms: scaling it for one would break the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.fc = nn.LayerNorm(8), nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.second(self.fc(self.first(x))))


class Moved(nn.Module):
    """The norm's output is transposed and flattened before it is read: its channels stay the last axis."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.norm(x).transpose(0, 1).reshape(-1, 8))


class Turned(nn.Module):
    """The channels become another axis before they are read."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.norm(x).transpose(1, 2))


@pytest.mark.parametrize(("net", "count"), [(PostNorm, 0), (Tied, 0), (Moved, 1), (Turned, 0)])
def test_only_what_is_read_by_linear_layers_alone_is_smoothed(
    make_task: Callable[..., Task], net: type[nn.Module], count: int
) -> None:
    module, _ = prepared(make_task(net(), (1, 8, 8)))
    assert len(find_chains(module, make_plan(module))) == count
