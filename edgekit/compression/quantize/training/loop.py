"""The trainer: AdamW along a cosine, on the task's own data and loss; what it has done survives a kill.

Two runs of the same job end with the same weights, bit for bit, and so does a run that was killed and begun again: the
generators are seeded before each epoch, and a checkpoint restores them, the optimizer and the place in the data. The net
that is kept is the last one; nothing is chosen by evaluation data.
"""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from edgekit.compression.quantize.training.checkpoint import Checkpoint, Generators, digest_of, read_checkpoint, write_checkpoint
from edgekit.core.errors import DataError, TaskError

if TYPE_CHECKING:
    from edgekit.core.plugins import Progress
    from edgekit.core.recipe import Training
    from edgekit.core.task import Task

__all__ = ["CHECKPOINT_SECONDS", "Trained", "default_loss", "parameter_groups", "train"]

CHECKPOINT_SECONDS = 15.0  # what a kill may cost; a checkpoint of a few million parameters takes a tenth of a second
_LARGEST_NORM = 1.0  # of the gradient: one odd batch shall not throw the scales off
_WEIGHT_DECAY = 1e-2  # torch's default for AdamW; on weights only
_SCALE_RATE = 10.0  # scales learn by their logarithm: 1 % a step where weights move by 1e-3 (1e-2 in arXiv:1903.08066)


@dataclasses.dataclass(frozen=True)
class Trained:
    """What training did.

    Args:
        losses: Mean loss of each epoch.
        batch_count: Batches an epoch.
        resumed_at: Batches that an earlier run had done; 0 if there was none.
    """

    losses: tuple[float, ...]
    batch_count: int
    resumed_at: int


def default_loss(outputs: Any, targets: Any) -> torch.Tensor:
    """Cross-entropy between logits ``[N, C]`` (or ``[N, C, ...]``) and class numbers ``[N]`` (``[N, ...]``).

    Raises:
        TaskError: Outputs and targets are something else.
    """
    fits = isinstance(outputs, torch.Tensor) and isinstance(targets, torch.Tensor) and not targets.is_floating_point()
    if not fits or outputs.ndim < 2 or targets.shape != (outputs.shape[0], *outputs.shape[2:]):
        raise TaskError(
            f"Without a loss of its own, a task is trained by cross-entropy between logits [N, C] and class numbers [N];"
            f" found outputs {_describe(outputs)} and targets {_describe(targets)}. Give Task(..., loss=...)."
        )
    return nn.functional.cross_entropy(outputs, targets.long())


def parameter_groups(model: nn.Module, *, learning_rate: float) -> list[dict[str, Any]]:
    """AdamW's groups: weights (decayed), biases and other vectors, and scales at a higher rate."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    scales = [parameter for name, parameter in named if name.endswith("log2_gain")]
    others = [parameter for name, parameter in named if not name.endswith("log2_gain")]
    groups = [
        {"params": [p for p in others if p.ndim > 1], "lr": learning_rate, "weight_decay": _WEIGHT_DECAY},
        {"params": [p for p in others if p.ndim <= 1], "lr": learning_rate, "weight_decay": 0.0},
        {"params": scales, "lr": learning_rate * _SCALE_RATE, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def train(
    model: nn.Module,
    task: Task,
    training: Training,
    *,
    work: Path | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    progress: Progress,
) -> Trained:
    """Train ``model`` in place.

    Args:
        model: Takes the task's inputs by position, as tensors ``[N, ...]``; returns what the task's model returns.
        task: Brings training data and loss.
        training: Epochs, rate, seed.
        work: Folder for checkpoints; training goes on from one that is there and fits. None: none are kept.
        checkpoint_seconds: Write a checkpoint when this long has passed since the last, and after every epoch.
        progress: Called after each batch with the batches of all epochs.

    Raises:
        DataError: No training data, bad data, or data that changed since the checkpoint.
        TaskError: The loss fails, is no scalar, or became NaN.
    """
    return _Run(model, task, training, work, checkpoint_seconds, progress).run()


class _Run:
    """One training run: its place, and what a checkpoint must hold."""

    def __init__(
        self, model: nn.Module, task: Task, training: Training, work: Path | None, checkpoint_seconds: float, progress: Progress
    ) -> None:
        self.model, self.task, self.training, self.work = model, task, training, work
        self.checkpoint_seconds, self.progress = checkpoint_seconds, progress
        self.loss: Callable[[Any, Any], torch.Tensor] = task.loss or default_loss
        self.optimizer = torch.optim.AdamW(parameter_groups(model, learning_rate=training.learning_rate))
        self.rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.job = digest_of(training.model_dump(), *model.state_dict().values())
        self.epoch, self.batch = 0, 0
        self.losses: list[float] = []
        self.loss_sum = 0.0
        self.last_batch = ""
        self.saved_at = time.monotonic()

    def run(self) -> Trained:
        threads = torch.get_num_threads()
        before = Generators.now()
        try:
            resumed = self._resume()
            self.batch_count = _count_batches(self.task)
            done = self.epoch * self.batch_count + self.batch
            self.model.train()
            while self.epoch < self.training.epochs:
                self._train_epoch(resumed)
                resumed = None
        finally:
            self.model.eval()
            before.restore()
            torch.set_num_threads(threads)
        return Trained(tuple(self.losses), self.batch_count, done)

    def _resume(self) -> Checkpoint | None:
        found = read_checkpoint(self.work, job=self.job) if self.work is not None else None
        if found is not None:
            self.model.load_state_dict(found.parameters)
            self.optimizer.load_state_dict(found.optimizer)
            self.epoch, self.batch, self.last_batch = found.epoch, found.batch, found.last_batch
            self.losses, self.loss_sum = list(found.losses), found.loss_sum
            torch.set_num_threads(found.threads)
        return found

    def _train_epoch(self, resumed: Checkpoint | None) -> None:
        label = f"train, epoch {self.epoch + 1} of {self.training.epochs}"
        label += f", loss {self.losses[-1]:.4f}" if self.losses else ""
        total = self.training.epochs * self.batch_count
        for inputs, targets in self._batches(resumed):
            self._step(inputs, targets)
            self.batch += 1
            self.progress(label, self.epoch * self.batch_count + self.batch, total)
            if time.monotonic() - self.saved_at >= self.checkpoint_seconds:
                self.last_batch = digest_of(*inputs)
                self._save()
        self.losses.append(self.loss_sum / max(1, self.batch))
        self.epoch, self.batch, self.loss_sum, self.last_batch = self.epoch + 1, 0, 0.0, ""
        self._save()

    def _batches(self, resumed: Checkpoint | None) -> Iterator[tuple[list[torch.Tensor], Any]]:
        """Batches of this epoch; those that an earlier run has used are drawn again, so that the loader is where it was."""
        _seed(self.training.seed, self.epoch)
        start = self.batch
        for at, (arrays, targets) in enumerate(self.task.training_batches()):
            inputs = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays.values()]
            if at >= start:
                yield inputs, torch.from_numpy(targets) if isinstance(targets, np.ndarray) else targets
            elif at == start - 1 and resumed is not None:
                self._check_unchanged(inputs)
                resumed.generators.restore()

    def _check_unchanged(self, inputs: list[torch.Tensor]) -> None:
        if digest_of(*inputs) != self.last_batch:
            raise DataError(
                f"Task '{self.task.name}': batch {self.batch} of the training data is not what it was before the interruption,"
                f" so training cannot go on where it stopped. Let the loader draw from the global generators, which are seeded"
                f" for it, or from one with a fixed seed; to train anew, remove {self.work}."
            )

    def _step(self, inputs: list[torch.Tensor], targets: Any) -> None:
        done = self.epoch * self.batch_count + self.batch
        share = min(1.0, done / max(1, self.training.epochs * self.batch_count))
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * share))
        loss = self._checked_loss(self.model(*inputs), targets)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), _LARGEST_NORM)
        self.optimizer.step()
        self.loss_sum += float(loss.detach())

    def _checked_loss(self, outputs: Any, targets: Any) -> torch.Tensor:
        try:
            loss: Any = self.loss(outputs, targets)
        except TaskError:
            raise
        except Exception as reason:
            raise TaskError(f"Task '{self.task.name}': the loss failed. {type(reason).__name__}: {reason}") from reason
        where = f"Task '{self.task.name}': epoch {self.epoch + 1}, batch {self.batch + 1}"
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
            raise TaskError(f"{where}: the loss is {_describe(loss)}; return a tensor of one number that depends on the outputs.")
        if not bool(torch.isfinite(loss)):
            raise TaskError(
                f"{where}: the loss is {float(loss.detach()):.6g}. Try a smaller learning_rate, and check loss and targets."
            )
        return loss

    def _save(self) -> None:
        self.saved_at = time.monotonic()
        if self.work is None:
            return
        fields = {name: getattr(self, name) for name in ("job", "epoch", "batch", "last_batch", "losses", "loss_sum")}
        write_checkpoint(
            self.work,
            Checkpoint(
                parameters=self.model.state_dict(),
                optimizer=self.optimizer.state_dict(),
                generators=Generators.now(),
                threads=torch.get_num_threads(),
                **fields,
            ),
        )


def _seed(seed: int, epoch: int) -> None:
    words = np.random.SeedSequence([seed, epoch]).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002  the user's loader may draw from the global generator
    torch.manual_seed(int(words[2]))


def _count_batches(task: Task) -> int:
    """Batches an epoch: from the loader's length, or counted once; twice, to find out whether it can be read again."""
    data: Any = task.training() if callable(task.training) else task.training
    try:
        return max(1, len(data))
    except TypeError:
        pass
    before = Generators.now()
    count = sum(1 for _ in task.training_batches())
    before.restore()
    if not callable(task.training) and iter(data) is data:
        raise DataError(
            f"Task '{task.name}': the training data can be read only once ({type(data).__name__}); give a list, a DataLoader, or"
            " a function that returns the batches of one epoch."
        )
    return count


def _describe(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
