"""The trainer: it goes on after a kill as if nothing had happened, and says what is wrong with data and loss."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import edgekit as ek
from edgekit.compression.training.checkpoint import digest_of
from edgekit.compression.training.loop import train
from edgekit.core.compressed import Compressed
from edgekit.core.errors import DataError, EdgekitError, IntegrityError, RecipeError, TaskError, UsageError
from edgekit.core.plugins import silent
from edgekit.core.recipe import AwareTraining, Quantize, Recipe
from edgekit.core.task import Task

RANDOM = np.random.default_rng(0)
SIGNALS = RANDOM.standard_normal((96, 2, 12)).astype(np.float32)
CLASSES = (SIGNALS[:, 0].sum(1) > 0).astype(np.int64)
TRAINING = AwareTraining(epochs=3, learning_rate=1e-2)


def shuffled() -> Iterator[tuple[Any, Any]]:
    """Six batches in random order with random gains: everything drawn while they are read, from all three generators."""
    for chosen in torch.randperm(96).split(16):
        yield SIGNALS[chosen] * np.float32(np.random.uniform(0.9, 1.1)), CLASSES[chosen]  # noqa: NPY002


def noisy_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """A loss that draws random numbers, too."""
    return nn.functional.cross_entropy(nn.functional.dropout(outputs, 0.2), targets)


def make_task(**changes: Any) -> Task:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(40, 2))
    fields: dict[str, Any] = {
        "name": "signs",
        "model": model,
        "example_inputs": SIGNALS[:1],
        "calibration": [SIGNALS[:32]],
        "training": shuffled,
        "loss": noisy_loss,
    }
    return Task(**(fields | changes))


def weights_after(task: Task, *, work: Path | None = None, stop_after: int | None = None) -> str:
    """Train a freshly prepared net; ``stop_after`` so many batches it is interrupted as by Ctrl-C."""

    def progress(what: str, done: int, total: int | None) -> None:
        assert what.startswith("train") and total == 18
        if done == stop_after:
            raise KeyboardInterrupt

    prepared = ek.prepare_qat(task)
    train(prepared, task, TRAINING, work=work, checkpoint_seconds=0.0, progress=progress)
    return digest_of(*prepared.state_dict().values())


def test_a_run_that_stops_anywhere_ends_with_the_same_weights(tmp_path: Path) -> None:
    task = make_task()
    expected = weights_after(task)
    for stops in ([6], [2, 9, 17]):
        work = tmp_path / "-".join(map(str, stops))
        for stop in stops:
            with pytest.raises(KeyboardInterrupt):
                weights_after(task, work=work, stop_after=stop)
        assert weights_after(task, work=work) == expected
    assert weights_after(make_task(training=lambda: list(shuffled())[::-1])) != expected


def test_training_leaves_the_callers_random_numbers_alone() -> None:
    task = make_task()
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    expected = torch.rand(3), np.random.rand(3)  # noqa: NPY002
    prepared = ek.prepare_qat(task)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    train(prepared, task, TRAINING, progress=silent)
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])  # noqa: NPY002


def test_another_job_does_not_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    task = make_task()
    train(ek.prepare_qat(task), task, TRAINING, work=tmp_path, progress=silent)
    again = train(ek.prepare_qat(task), task, TRAINING, work=tmp_path, progress=silent)
    assert again.resumed_at == 18
    with pytest.raises(RecipeError, match=r"another training: seed was 0, now it is 1\. .* remove that folder to train anew"):
        train(ek.prepare_qat(task), task, TRAINING.replace(seed=1), work=tmp_path, progress=silent)


def test_data_that_changed_since_the_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        weights_after(make_task(), work=tmp_path, stop_after=4)
    with pytest.raises(DataError, match=r"batch 3 of the training data is not what it was .* generators"):
        weights_after(make_task(training=lambda: [(-a, b) for a, b in shuffled()]), work=tmp_path)


def test_a_damaged_checkpoint_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    task = make_task()
    with pytest.raises(KeyboardInterrupt):
        weights_after(task, work=tmp_path, stop_after=4)
    path = tmp_path / "training.pt"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(IntegrityError, match=r"training\.pt is not a checkpoint .* Remove it"):
        weights_after(task, work=tmp_path)


TASK_FILE = """
import numpy as np
import torch
from torch import nn

import edgekit

torch.set_num_threads(1)
SIGNALS = np.random.default_rng(0).standard_normal((256, 2, 12)).astype(np.float32)
CLASSES = (SIGNALS[:, 0].sum(1) > 0).astype(np.int64)


def model():
    return nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(40, 2))


def training():
    for chosen in torch.randperm(256).split(2):
        yield SIGNALS[chosen], CLASSES[chosen]


task = edgekit.Task(
    name="signs", model=model, example_inputs=SIGNALS[:1], calibration=[SIGNALS[:32]], training=training
)
"""


def test_after_kill_minus_9_the_same_command_ends_with_the_same_program(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(TASK_FILE, encoding="utf-8")
    recipe = Recipe(name="long", steps=(Quantize(training=AwareTraining(epochs=4, learning_rate=1e-3)),))
    (tmp_path / "long.toml").write_text(recipe.to_toml(), encoding="utf-8")
    command = [sys.executable, "-m", "edgekit.cli", "compress", "task.py", "--recipe", "long.toml", "-o"]
    checkpoint = tmp_path / "killed.partial" / "0-quantize" / "training.pt"
    process = subprocess.Popen([*command, "killed"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert checkpoint.is_file() and not (tmp_path / "killed").exists()

    subprocess.run([*command, "killed"], cwd=tmp_path, check=True, capture_output=True)
    assert not (tmp_path / "killed.partial").exists()
    killed = Compressed.load(tmp_path / "killed" / "compressed")
    threads = torch.get_num_threads()
    whole = ek.compress(ek.load_task(tmp_path / "task.py"), recipe=tmp_path / "long.toml")
    torch.set_num_threads(threads)
    done = [state.record.history[-1].details["resumed_at_batch"] for state in (killed, whole)]
    assert 128 <= done[0] < 4 * 128 and done[1] == 0
    assert killed.contract == whole.contract
    assert digest_of(*killed.program.state_dict.values()) == digest_of(*whole.program.state_dict.values())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"training": None}, DataError, r"has no training data\. Give Task\(\.\.\., training=\.\.\.\)"),
        ({"training": shuffled()}, DataError, r"can be read only once \(generator\)"),
        ({"training": []}, DataError, r"training data is empty"),
        ({"training": [(SIGNALS[:, :1], CLASSES)]}, DataError, r"training batch 0: input 'input' is float32 \[96, 1, 12\]"),
        ({"training": [(SIGNALS, CLASSES.astype(np.float32))], "loss": None}, TaskError, r"targets torch\.float32 \[96\].*loss="),
        ({"loss": lambda outputs, targets: outputs.sum() * torch.nan}, TaskError, r"epoch 1, batch 1: the loss is nan"),
        ({"loss": lambda outputs, targets: outputs}, TaskError, r"the loss is torch\.float32 \[16, 2\]; return a tensor of one"),
        ({"loss": lambda outputs, targets: outputs.missing}, TaskError, r"the loss failed\. AttributeError"),
    ],
)
def test_bad_data_and_losses_are_named(changes: dict[str, Any], error: type[EdgekitError], message: str) -> None:
    with pytest.raises(error, match=message):
        ek.compress(make_task(**changes), recipe="int8-qat")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ek.prepare_qat(nn.Linear(2, 2), torch.zeros(1, 2)), UsageError, r"needs calibration: prepare_qat\("),
        (lambda: ek.prepare_qat(make_task(), recipe="w8"), RecipeError, r"'w8': prepare_qat takes one quantize step"),
        (lambda: ek.finish_qat(nn.Linear(2, 2)), UsageError, r"takes what prepare_qat returned, found a Linear"),
        (
            lambda: ek.prepare_qat(make_task())(torch.zeros(2, 2, 12), torch.zeros(1)),
            DataError,
            r"takes the inputs input; found 2: by position",
        ),
    ],
)
def test_wrong_calls_are_explained(call: Callable[[], Any], error: type[EdgekitError], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_the_history_says_what_training_did() -> None:
    task = dataclasses.replace(make_task(), loss=None)
    record = ek.compress(task, recipe=Recipe(name="x", steps=(Quantize(training=TRAINING),))).record.history[-1]
    assert "trained 3 epochs (loss " in record.summary
    losses = record.details["losses"]
    assert len(losses) == 3 and losses[-1] < losses[0]
    assert record.details["training_batch_count"] == 6
