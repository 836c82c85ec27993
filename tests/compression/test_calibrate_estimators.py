"""Ranges from streamed statistics: right, bounded in memory, and the same however the samples are batched or ordered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import get_args

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from edgekit.compression.capture import capture
from edgekit.compression.quantize import RUNNER
from edgekit.compression.quantize.calibrate.clipping import least_squared_error, percentile
from edgekit.compression.quantize.calibrate.estimate import Histogram, MovingAverage, make_observer
from edgekit.compression.quantize.calibrate.observe import Range, calibrate, unclipped_values
from edgekit.compression.quantize.canonical.form import canonicalize
from edgekit.compression.quantize.grid import activation_grid
from edgekit.compression.quantize.plan import make_plan
from edgekit.core.compressed import Compressed
from edgekit.core.errors import ContractError, DataError
from edgekit.core.plugins import silent
from edgekit.core.recipe import Estimator, Quantize, Recipe
from edgekit.core.task import Task
from edgekit.core.tensors import dequantize, quantize

ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)
CLIPPING: tuple[Estimator, ...] = ("percentile", "mse", "entropy")


def compress(task: Task, **fields: object) -> Compressed:
    state = capture(task, recipe=Recipe.parse_text("int8"))
    return RUNNER(state, step=Quantize.model_validate(fields), task=task, progress=silent)[0]


def watch(estimator: Estimator, parts: Sequence[torch.Tensor]) -> Range:
    observer = make_observer(estimator)
    for part in parts:
        observer.update(part)
    return observer.range()


def int8_error(values: np.ndarray, found: Range) -> float:
    grid = activation_grid(found.low, found.high)
    integers = quantize(values, scale=grid.scale, zero_point=grid.zero_point)
    return float(((values - dequantize(integers, scale=grid.scale, zero_point=grid.zero_point)) ** 2).mean())


def heavy_tailed(count: int = 64, *, positive: bool = False) -> torch.Tensor:
    """``[S, K]``: Student's t with three degrees of freedom: few values are tens of times the usual."""
    values = torch.from_numpy(np.random.default_rng(0).standard_t(3, (count, 1000)).astype(np.float32))
    return values.clamp_min(0) if positive else values


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_batches_do_not_matter(estimator: Estimator) -> None:
    samples = heavy_tailed() * torch.logspace(-3, 3, 64).reshape(-1, 1)  # the histogram has to grow again and again
    one_by_one = watch(estimator, samples.split(1))
    assert watch(estimator, samples.split(7)) == watch(estimator, [samples]) == one_by_one


@pytest.mark.parametrize("estimator", ["min-max", *CLIPPING])
def test_order_does_not_matter(estimator: Estimator) -> None:
    samples = heavy_tailed() * torch.logspace(-3, 3, 64).reshape(-1, 1)
    order = torch.from_numpy(np.random.default_rng(1).permutation(64))
    assert watch(estimator, samples.split(1)) == watch(estimator, samples[order].split(5)) == watch(estimator, [samples.flip(0)])


def test_a_grown_histogram_is_the_one_made_at_once() -> None:
    samples = heavy_tailed() * torch.logspace(-12, 12, 64).reshape(-1, 1)
    grown, at_once = Histogram(percentile), Histogram(percentile)
    for sample in samples.split(1):
        grown.update(sample)
    at_once.update(samples)
    assert grown.exponent == at_once.exponent
    assert torch.equal(grown.counts, at_once.counts)
    assert int(grown.counts.sum()) == samples.numel()


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("values", [[-3.0, -1.0], [0.5, 6.0], [-1e-30, 1e-30], [2.0, 2.0], [0.0, 6.0], [-1e20, 1e30]])
def test_no_estimator_leaves_the_extremes(estimator: Estimator, values: list[float]) -> None:
    found = watch(estimator, [torch.tensor([values])])
    low, high = (float(np.float32(value)) for value in values)
    assert low <= found.low <= found.high <= high or (found.low <= 0.0 <= found.high and min(low, 0) <= found.low)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("estimator", ["percentile", "entropy"])
def test_clipping_is_kind_to_the_usual_where_a_few_values_are_far_off(estimator: Estimator, positive: bool) -> None:
    usual = torch.from_numpy(np.random.default_rng(0).standard_normal((64, 1000)).astype(np.float32))
    samples = usual.abs() if positive else usual.clone()
    samples[::16, 7] = 100.0  # 4 of 64,000
    kept = samples.numpy()[samples.numpy() < 50]
    assert int8_error(kept, watch(estimator, [samples])) < 0.02 * int8_error(kept, watch("min-max", [samples]))


@pytest.mark.parametrize("positive", [False, True])
def test_mse_is_near_the_best_clipping_there_is(positive: bool) -> None:
    samples = heavy_tailed(positive=positive)
    values = samples.numpy().ravel()
    low, high = float(values.min()), float(values.max())
    best = min(int8_error(values, Range(low * a, high * b)) for a in np.linspace(0.1, 1, 25) for b in np.linspace(0.1, 1, 25))
    found = int8_error(values, watch("mse", [samples]))
    assert found < 1.05 * best
    assert found < int8_error(values, watch("min-max", [samples]))


def test_mse_keeps_a_uniform_range() -> None:
    values = torch.linspace(-1, 1, 4001).reshape(1, -1)
    found = watch("mse", [values])
    assert found.high > 0.94
    assert found.low < -0.94


def test_percentile_drops_one_in_ten_thousand() -> None:
    values = torch.linspace(-1, 1, 100_000).reshape(10, -1)
    values[:, 0] = 50.0  # 10 of 100,000
    assert watch("percentile", [values]).high == pytest.approx(1.0, abs=0.02)
    values[0, 1] = 50.0
    assert watch("percentile", [values]).high == 50.0


def test_moving_average_is_the_mean_of_the_samples_extremes() -> None:
    samples = heavy_tailed()
    found = watch("moving-average", [samples])
    assert found.high == pytest.approx(float(samples.amax(1).mean()), rel=1e-5)
    assert found.low == pytest.approx(float(samples.amin(1).mean()), rel=1e-5)
    late = MovingAverage()
    for value in [0.0] * 1000 + [1.0] * 100:
        late.update(torch.tensor([[value]]))
    assert late.range().high == pytest.approx(1 - 0.99**100, rel=1e-6)


def test_every_channel_of_a_large_tensor_is_counted() -> None:
    sample = torch.zeros(1, 257 * 768)
    sample.reshape(257, 768)[:, 5] = 9.0  # one channel along the last axis
    observer = Histogram(least_squared_error)
    observer.update(sample)
    assert int(observer.counts.nonzero()[-1]) > 4096
    assert int(observer.counts.sum()) <= 2**14


class Head(nn.Module):
    """A classifier that ends in softmax: what leads to the output are the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.head(nn.functional.relu6(self.conv(x)).mean(-1)).reshape(-1, 4), -1)


@pytest.fixture
def spiky(make_task: Callable[..., Task]) -> Task:
    """60 samples of which one value is far off."""
    torch.manual_seed(0)
    data = np.random.default_rng(0).standard_normal((60, 3, 64)).astype(np.float32)
    data[7, 1, 5] = 60.0
    return make_task(Head(), (1, 3, 64), calibration=[data])


def ranges(task: Task, estimator: Estimator, *, sample_count: int = 512) -> dict[str, Range]:
    """Range of every planned value by name."""
    example = task.named_inputs(task.example_inputs)
    program = capture(task, recipe=Recipe.parse_text("int8")).program
    module = canonicalize(program, [torch.from_numpy(array) for array in example.values()])
    plan = make_plan(module, input_names=tuple(example))
    found = calibrate(
        module, plan, task=task, example=example, sample_count=sample_count, estimator=estimator, progress=silent
    ).ranges
    return {plan.values[node].name: range_ for node, range_ in found.items()}


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_logits_keep_their_extremes_and_clamps_their_bounds(spiky: Task, estimator: Estimator) -> None:
    extremes, found = ranges(spiky, "min-max"), ranges(spiky, estimator)
    assert found["head"] == extremes["head"]
    assert (found["conv"].low, extremes["conv"].high) == (0.0, 6.0)
    assert found["conv"].high <= 6.0
    assert (found["x"].high < 10) is (estimator not in {"min-max", "mse"})  # one in 12,000, but ten times as far: worth its steps


def test_a_recipe_chooses_the_estimator(spiky: Task) -> None:
    state = compress(spiky, estimator="percentile")
    assert state.contract["x"].scale[0] < 10 / 255
    assert state.contract["conv"].zero_point == (-128,)
    assert not [node for node in state.program.graph.nodes if "relu6" in str(node.target)]  # saturation is still the clamp


def test_what_leads_to_an_output_is_found(spiky: Task) -> None:
    program = capture(spiky, recipe=Recipe.parse_text("int8")).program
    module = canonicalize(program, (torch.zeros(1, 3, 64),))
    plan = make_plan(module)
    names = {plan.values[node].name for node in unclipped_values(module, plan)}
    assert "head" in names
    assert not {"x", "conv", "mean"} & names


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_ranges_do_not_depend_on_the_users_batches(spiky: Task, make_task: Callable[..., Task], estimator: Estimator) -> None:
    (batch,) = list(spiky.calibration_batches())

    def batched(size: int, *, program: int) -> dict[str, Range]:
        parts = [batch["x"][at : at + size] for at in range(0, 60, size)]
        task = make_task(Head(), (program, 3, 64), calibration=parts)
        task.build_model().load_state_dict(spiky.build_model().state_dict())
        return ranges(task, estimator)

    assert batched(7, program=1) == batched(60, program=1)
    assert batched(7, program=4) == batched(60, program=4)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_memory_does_not_grow_with_the_samples(make_task: Callable[..., Task], estimator: Estimator) -> None:
    """Kept activations would be 0.7 MB a sample here."""
    random = np.random.default_rng(0)
    task = make_task(Head(), (1, 3, 16384), calibration=lambda: (random.random((1, 3, 16384), np.float32) for _ in range(70)))
    program = capture(task, recipe=Recipe.parse_text("int8")).program
    module = canonicalize(program, (torch.zeros(1, 3, 16384),))
    resident: list[int] = []
    calibrate(
        module,
        make_plan(module),
        task=task,
        example={"x": np.zeros((1, 3, 16384), np.float32)},
        sample_count=70,
        estimator=estimator,
        progress=lambda *_: resident.append(psutil.Process().memory_info().rss),
    )
    assert len(resident) == 70
    assert resident[-1] - resident[9] < 8 * 2**20


class Root(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(torch.log(x))


@pytest.mark.parametrize(("bad", "estimator"), [(-1.0, "min-max"), (0.0, "min-max"), (-1.0, "mse"), (0.0, "moving-average")])
def test_not_finite_names_layer_and_sample(make_task: Callable[..., Task], bad: float, estimator: Estimator) -> None:
    data = np.ones((5, 2, 4), np.float32)
    data[1:] += 1
    data[3, 1, 2] = bad
    with pytest.raises(ContractError) as refusal:
        compress(make_task(Root(), (1, 2, 4), calibration=[data]), estimator=estimator)
    assert str(refusal.value).startswith(
        "Layer 'log' (log) gives NaN or infinite values on the calibration data (first in sample 3)"
    )
    assert "Traceback" not in str(refusal.value)


def test_input_that_is_always_zero_is_refused(make_task: Callable[..., Task]) -> None:
    task = make_task(nn.Conv1d(2, 2, 1), (1, 2, 4), calibration=[np.zeros((5, 2, 4), np.float32)])
    with pytest.raises(DataError, match="input 'input' is zero in every calibration sample"):
        compress(task)


def test_layer_that_is_always_zero_is_refused(make_task: Callable[..., Task]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(2, 2, 1), nn.ReLU(), nn.Conv1d(2, 2, 1))
    task = make_task(net, (1, 2, 4))
    with torch.no_grad():
        net[0].bias.fill_(-100.0)
    with pytest.raises(ContractError, match=r"Layer '0' \(conv1d\+relu\) gives nothing but zeros"):
        compress(task)
