"""What the training table says is what the trainer does, and nothing of the caller's is changed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import nn

from edgekit.compression.training.averaging import Average
from edgekit.compression.training.callbacks import Callback, EpochReport, StepReport
from edgekit.compression.training.loop import train
from edgekit.compression.training.optimization import rate_share
from edgekit.compression.training.validation import score_model
from edgekit.core.errors import DataError, EdgekitError, RecipeError, TaskError, UsageError
from edgekit.core.metric import agreement
from edgekit.core.task import Task
from edgekit.core.training import Training

RANDOM = np.random.default_rng(0)
SIGNALS = RANDOM.standard_normal((128, 6)).astype(np.float32)
CLASSES = (SIGNALS[:, 0] > 0).astype(np.int64)
VALIDATION = [(SIGNALS[64:96], CLASSES[64:96]), (SIGNALS[96:], CLASSES[96:])]


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)).eval()


def batches() -> list[Any]:
    return [(SIGNALS[chosen], CLASSES[chosen]) for chosen in torch.randperm(64).split(16)]


def make_task(**changes: Any) -> Task:
    fields: dict[str, Any] = {
        "name": "signs", "model": make_net(), "example_inputs": SIGNALS[:1], "training": batches, "validation": VALIDATION,
    }  # fmt: skip
    return Task(**(fields | changes))


def test_a_net_learns_and_the_file_says_how(tmp_path: Path) -> None:
    net, task = make_net(), make_task()
    before = score_model(net, task)
    trained = train(net, task, Training(epochs=16, learning_rate=3e-2), work=tmp_path)
    assert score_model(net, task) > max(before, 0.85)
    assert trained.losses[-1] < trained.losses[0] / 2 and trained.batch_count == 4
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["loss"] for row in rows] == list(trained.losses) == [row["terms"]["loss"] for row in rows]
    assert rows[-1]["validation"] == score_model(net, task) and rows[-1]["seconds"] > 0
    assert rows[0]["learning_rate"] > rows[-1]["learning_rate"] > 0


def test_models_with_named_inputs_and_outputs_are_called_by_name() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = make_net()

        def forward(self, *, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"kind": self.net(left - right), "left": left}

    net = Named().eval()
    task = make_task(
        model=net,
        example_inputs={"left": SIGNALS[:1], "right": SIGNALS[:1]},
        training=[({"right": 0 * x, "left": x}, y) for x, y in batches()],
        validation=[({"left": x, "right": 0 * x}, y) for x, y in VALIDATION],
        loss=lambda outputs, targets: nn.functional.cross_entropy(outputs["kind"], targets),
    )
    trained = train(net, task, Training(epochs=16, learning_rate=3e-2))
    assert trained.losses[-1] < trained.losses[0] / 2 and trained.best_score > 0.8  # type: ignore[operator]


def test_modes_generators_and_threads_are_left_as_they_were() -> None:
    net, task = make_net().train(), make_task(validation=None)
    net[1].eval()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    seen = []
    hook = net[1].register_forward_hook(lambda *_: seen.append((net.training, net[1].training)))
    train(net, task, Training(epochs=1))
    hook.remove()
    assert torch.equal(torch.rand(3), expected)
    assert set(seen) == {(True, True)}
    assert (net.training, net[0].training, net[1].training) == (True, True, False)
    assert int(net[1].num_batches_tracked) == 4


def test_frozen_layers_stay_and_what_is_done_after_a_step_holds() -> None:
    net = make_net()
    net[3].requires_grad_(False)
    head, zeros = net[3].weight.clone(), net[0].weight > 0.1

    def hold_zeros() -> None:
        with torch.no_grad():
            net[0].weight *= ~zeros

    hold_zeros()
    train(net, make_task(), Training(epochs=2, learning_rate=1e-2, ema=0.5), after_step=hold_zeros)
    assert torch.equal(net[3].weight, head)
    assert not net[0].weight[zeros].any() and net[0].weight[~zeros].all()


class Watcher(Callback):
    """Keeps every report; the net's weights after each epoch."""

    def __init__(self, net: nn.Module) -> None:
        self.net, self.steps, self.epochs, self.weights = net, list[StepReport](), list[EpochReport](), list[Any]()

    def on_step(self, report: StepReport) -> None:
        self.steps.append(report)

    def on_epoch(self, report: EpochReport) -> None:
        self.epochs.append(report)
        self.weights.append(copy.deepcopy(self.net.state_dict()))


def test_the_best_epoch_is_kept_and_patience_ends_training() -> None:
    scores = iter([0.4, 0.9, 0.9, 0.5, 0.3, 1.0])
    metric = Task.metric.__class__(name="told", score=lambda outputs, targets: np.full(len(targets), held["score"]))
    held = {"score": 0.0}
    net = make_net()
    watcher = Watcher(net)

    class Tell(Callback):
        def on_step(self, report: StepReport) -> None:
            if report.step == 4:
                held["score"] = next(scores)

    task = make_task(metric=metric)
    trained = train(net, task, Training(epochs=6, keep="best", patience=2), callbacks=[Tell(), watcher])
    assert (trained.best_epoch, trained.best_score, trained.stopped_early) == (2, 0.9, True)
    assert [report.validation for report in watcher.epochs] == [0.4, 0.9, 0.9, 0.5]
    assert all(torch.equal(value, watcher.weights[1][name]) for name, value in net.state_dict().items())
    assert [(report.epoch, report.step, report.done, report.total) for report in watcher.steps[:5]] == [
        (1, 1, 1, 24), (1, 2, 2, 24), (1, 3, 3, 24), (1, 4, 4, 24), (2, 1, 5, 24),
    ]  # fmt: skip
    assert watcher.epochs[0].loss == pytest.approx(np.mean([report.terms["loss"] for report in watcher.steps[:4]]))


def test_an_average_of_the_weights_is_kept_where_one_is_asked_for() -> None:
    net, seen = make_net(), list[torch.Tensor]()
    average = net[0].weight.detach().clone()
    train(net, make_task(), Training(epochs=2, ema=0.5), after_step=lambda: seen.append(net[0].weight.detach().clone()))
    for count, weight in enumerate(seen[:8], start=1):
        decay = min(0.5, count / (9 + count))
        average = decay * average + (1 - decay) * weight
    assert torch.allclose(net[0].weight, average, atol=1e-6)
    assert not torch.equal(net[0].weight, seen[7])


def test_an_average_goes_on_where_it_stopped() -> None:
    net = make_net()
    first, second = Average(net, 0.9), Average(make_net(), 0.9)
    for _ in range(3):
        nn.init.normal_(net[0].weight)
        first.update()
    second.load({name: tensor.clone() for name, tensor in first.state().items()}, first.steps)
    assert second.steps == 3
    assert all(torch.equal(second.state()[name], tensor) for name, tensor in first.state().items())


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [0.5, 1, 1, 1, 1]), ("linear", [0.5, 1, 1, 2 / 3, 1 / 3]), ("cosine", [0.5, 1, 1, 0.75, 0.25])],
)
def test_the_rate_rises_and_falls(schedule: Any, expected: list[float]) -> None:
    training = Training(schedule=schedule, warmup=0.4)
    assert [rate_share(training, step, 5) for step in range(5)] == pytest.approx(expected)


def test_gradients_are_clipped_and_rates_can_differ() -> None:
    def change(**options: Any) -> tuple[float, float]:
        net = make_net()
        before = copy.deepcopy(net.state_dict())
        rates = options.pop("rates", {})
        loss = lambda outputs, targets: 1e3 * nn.functional.cross_entropy(outputs, targets)  # noqa: E731
        training = Training(epochs=1, optimizer="sgd", schedule="constant", weight_decay=0, learning_rate=1e-3, **options)
        train(net, make_task(loss=loss, training=batches()[:1]), training, rates=rates)
        return tuple(float((net.state_dict()[name] - before[name]).norm()) for name in ("0.weight", "3.weight"))  # type: ignore[return-value]

    clipped, free = change(clip_norm=0.5), change(clip_norm=0)
    assert np.hypot(*clipped) <= 1.9 * 0.5e-3 + 1e-6 < np.hypot(*free) / 10  # Nesterov's first step is 1.9 gradients
    faster = change(clip_norm=0, rates={"3.*": 10.0})
    assert faster[0] == pytest.approx(free[0]) and faster[1] == pytest.approx(10 * free[1])


def test_trainings_of_different_precision_follow_each_other_and_leave_accelerate_alone() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        own = Accelerator(cpu=True)
        before = [dict(kind._shared_state) for kind in (PartialState, AcceleratorState, GradientState)]
        dtypes = []
        for precision in ("bf16", "no"):
            net = make_net()
            net[0].register_forward_hook(lambda _, __, output: dtypes.append(output.dtype))
            trained = train(net, make_task(validation=None), Training(epochs=4, learning_rate=1e-2, mixed_precision=precision))
            assert trained.losses[-1] < trained.losses[0]
            assert net[0].weight.dtype == torch.float32
        assert set(dtypes[:16]) == {torch.bfloat16} and set(dtypes[16:]) == {torch.float32}
        assert [dict(kind._shared_state) for kind in (PartialState, AcceleratorState, GradientState)] == before
        assert own.mixed_precision == "no"
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()


@pytest.mark.parametrize("with_folder", [True, False])
def test_after_a_loss_that_is_nan_the_last_good_weights_are_kept(tmp_path: Path, with_folder: bool) -> None:
    calls = iter(range(100))

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, targets) * (torch.nan if next(calls) == 9 else 1)

    net = make_net()
    watcher = Watcher(net)
    work = tmp_path if with_folder else None
    with pytest.raises(TaskError, match=r"epoch 3, batch 2: the loss is nan\. .* last good checkpoint.* smaller learning_rate"):
        train(net, make_task(loss=loss), Training(epochs=4), work=work, callbacks=[watcher])
    assert len(watcher.weights) == 2
    assert all(torch.equal(value, watcher.weights[1][name]) for name, value in net.state_dict().items())
    assert not net.training
    assert not with_folder or len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_weights_that_become_nan_are_never_kept() -> None:
    net, before = make_net(), make_net().state_dict()

    def ruin() -> None:
        with torch.no_grad():
            net[3].weight.fill_(torch.nan)

    with pytest.raises(TaskError, match=r"epoch 1, batch 1: weights became NaN"):
        train(net, make_task(training=batches()[:1]), Training(epochs=1), after_step=ruin)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def frozen() -> nn.Module:
    return make_net().requires_grad_(False)


@pytest.mark.parametrize(
    ("net", "changes", "training", "error", "message"),
    [
        (make_net, {"training": []}, {}, DataError, r"training data is empty: it yielded no batch"),
        (make_net, {"training": lambda: iter(())}, {}, DataError, r"training data is empty"),
        (make_net, {"validation": None}, {"keep": "best"}, DataError, r"no validation data, but keep='best'.*validation=\.\.\."),
        (make_net, {"validation": None}, {"patience": 3}, DataError, r"no validation data"),
        (make_net, {"training": [(SIGNALS[:1], CLASSES[:1])]}, {}, TaskError, r"epoch 1, batch 1: .* Drop the short last batch"),
        (make_net, {}, {"mixed_precision": "fp16"}, RecipeError, r"'fp16' needs a GPU, and this trains on cpu\. Use 'bf16'"),
        (frozen, {}, {}, TaskError, r"no parameter that requires a gradient"),
        (make_net, {"loss": lambda outputs, targets: 1.0}, {}, TaskError, r"the loss is float; return a tensor of one number"),
    ],
)
def test_what_cannot_be_trained_is_explained(
    net: Callable[[], nn.Module], changes: dict[str, Any], training: dict[str, Any], error: type[EdgekitError], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(net(), make_task(**changes), Training(epochs=1, **training))


def test_a_metric_against_the_float_model_needs_no_labels() -> None:
    task = make_task(metric=agreement, validation=[(SIGNALS[:32], None)])
    assert score_model(make_net(), task) == 1.0
    torch.manual_seed(3)
    other = make_net()
    nn.init.normal_(other[3].weight)
    assert score_model(other, task) < 1.0


@pytest.mark.parametrize(("names", "message"), [("mlfow", r"known: mlflow, tensorboard\. Did you mean 'mlflow'"), ("mlflow", "")])
def test_trackers_that_are_not_there_are_named(names: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_TRACKERS", names)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=message or "not installed. Install it with: pip install mlflow"):
        train(make_net(), make_task(), Training(epochs=1))
