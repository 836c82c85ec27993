"""A training that was interrupted anywhere ends as one that was not, with batch norm, dropout, averages and adapters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.compression.training.callbacks import Callback, EpochReport
from edgekit.compression.training.checkpoint import digest_of
from edgekit.compression.training.loop import Trained, train
from edgekit.compression.training.objective import TrainingBatch, call_model
from edgekit.core.errors import DataError, RecipeError
from edgekit.core.task import Task
from edgekit.core.training import Training

RANDOM = np.random.default_rng(0)
SIGNALS = RANDOM.standard_normal((80, 2, 12)).astype(np.float32)
CLASSES = (SIGNALS[:, 0].sum(1) > 0).astype(np.int64)
BATCHES = 5
TRAINING = Training(epochs=3, learning_rate=1e-2, ema=0.9, keep="best", warmup=0.2)


def augmented() -> Iterator[tuple[Any, Any]]:
    """Draws from torch's generator while the net, with its dropout, is being trained."""
    for chosen in torch.randperm(80).split(16):
        noise = 0.1 * torch.randn(len(chosen), 2, 12)
        yield torch.from_numpy(SIGNALS[chosen]) + noise, CLASSES[chosen]


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(40, 2)
    ).eval()  # fmt: skip


def make_task(**changes: Any) -> Task:
    fields: dict[str, Any] = {
        "name": "signs", "model": make_net, "example_inputs": SIGNALS[:1], "training": augmented,
        "validation": [(SIGNALS[:40], CLASSES[:40])],
    }  # fmt: skip
    return Task(**(fields | changes))


class Stretched:
    """An objective with a trainable part of its own."""

    def __init__(self, task: Task) -> None:
        torch.manual_seed(1)
        self.task, self.adapter = task, nn.Linear(2, 2)

    def __call__(self, model: nn.Module, batch: TrainingBatch) -> dict[str, torch.Tensor]:
        answers = call_model(model, self.task, batch.inputs)
        task = nn.functional.cross_entropy(answers, batch.targets)
        stretched = nn.functional.cross_entropy(self.adapter(answers), batch.targets)
        return {"loss": task + 0.5 * stretched, "task": task, "stretched": stretched}

    def parameters(self) -> list[nn.Parameter]:
        return list(self.adapter.parameters())

    def digest(self) -> str:
        return "stretched"

    def state_dict(self) -> dict[str, Any]:
        return self.adapter.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.adapter.load_state_dict(state)

    def to(self, device: torch.device) -> None:
        self.adapter.to(device)


def fit(
    training: Training = TRAINING, *, work: Path | None = None, stop_after: int | None = None, data: Any = augmented
) -> tuple[str, Trained]:
    """Digest of the net and the adapter after training, interrupted after so many batches as by Ctrl-C."""

    def progress(what: str, done: int, total: int | None) -> None:
        if done == stop_after:
            raise KeyboardInterrupt

    task = make_task(training=data)
    net, objective = make_net(), Stretched(task)
    trained = train(net, task, training, objective=objective, work=work, progress=progress, checkpoint_seconds=0.0)
    return digest_of(*net.state_dict().values(), *objective.adapter.state_dict().values()), trained


@pytest.mark.parametrize(
    "training",
    [TRAINING, Training(epochs=3, optimizer="sgd", learning_rate=0.05, schedule="linear", mixed_precision="bf16")],
    ids=["adamw, averaged, best", "sgd, bf16"],
)
def test_a_run_that_stops_anywhere_ends_with_the_same_weights(training: Training, tmp_path: Path) -> None:
    expected, whole = fit(training)
    for stops in ([BATCHES], [2, 7, 3 * BATCHES - 1]):
        work = tmp_path / "-".join(map(str, stops))
        for stop in stops:
            with pytest.raises(KeyboardInterrupt):
                fit(training, work=work, stop_after=stop)
        found, resumed = fit(training, work=work)
        assert found == expected
        assert resumed.losses == whole.losses and resumed.best_epoch == whole.best_epoch
        assert [row["epoch"] for row in map(json.loads, (work / "metrics.jsonl").read_text().splitlines())] == [1, 2, 3]
    assert fit(training.replace(seed=1))[0] != expected


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first, _ = fit(work=tmp_path)
    again, trained = fit(work=tmp_path)
    assert again == first and trained.resumed_at == 3 * BATCHES


def test_a_run_that_was_stopped_early_stays_stopped(tmp_path: Path) -> None:
    class Enough(Callback):
        def on_epoch(self, report: EpochReport) -> bool:
            return report.epoch < 2

    task = make_task()
    for callbacks in ([Enough()], []):
        trained = train(make_net(), task, TRAINING, work=tmp_path, callbacks=callbacks)
        assert len(trained.losses) == 2 and trained.stopped_early


def test_a_checkpoint_of_another_job_is_refused_and_kept(tmp_path: Path) -> None:
    fit(work=tmp_path)
    before = (tmp_path / "training.pt").read_bytes()
    with pytest.raises(RecipeError, match=r"learning_rate was 0\.01, now it is 0\.02; ema was 0\.9, now it is None"):
        fit(TRAINING.replace(learning_rate=0.02, ema=None), work=tmp_path)
    with pytest.raises(RecipeError, match=r"the objective was 'stretched', now it is 'task:default_loss'"):
        train(make_net(), make_task(), TRAINING, work=tmp_path)
    other = make_net()
    nn.init.zeros_(other[0].bias)  # type: ignore[index]
    with pytest.raises(RecipeError, match=r"the model \(or its first weights\) is another"):
        train(other, make_task(), TRAINING, objective=Stretched(make_task()), work=tmp_path)
    assert (tmp_path / "training.pt").read_bytes() == before


def test_training_data_that_became_shorter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(work=tmp_path, stop_after=4)
    with pytest.raises(DataError, match="batch 3 of the training data is not what it was"):
        fit(work=tmp_path, data=lambda: list(augmented())[:2])
