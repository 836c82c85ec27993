"""The trainer: the task's own data, any objective, one process or many; what it has done survives a kill.

Two runs of the same job end with the same weights, bit for bit, and so does a run that was killed and begun again: the
generators are seeded before each epoch, and a checkpoint restores them, the optimizer and the place in the data.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from edgekit.compression.capture import user_line
from edgekit.compression.training.averaging import Average
from edgekit.compression.training.batches import Loader, count_batches
from edgekit.compression.training.callbacks import Callback, EpochReport, StepReport
from edgekit.compression.training.checkpoint import Checkpoint, Course, Generators, digest_of, read_checkpoint, write_checkpoint
from edgekit.compression.training.metrics import Metrics, asked_trackers
from edgekit.compression.training.objective import Objective, TaskObjective, TrainingBatch, describe_tensor
from edgekit.compression.training.optimization import Optimization
from edgekit.compression.training.processes import Processes, join_processes
from edgekit.compression.training.validation import check_validation, score_batches
from edgekit.core.errors import EdgekitError, TaskError
from edgekit.core.plugins import silent

if TYPE_CHECKING:
    from edgekit.core.plugins import Progress
    from edgekit.core.task import Task
    from edgekit.core.training import Training

__all__ = ["CHECKPOINT_SECONDS", "Trained", "train"]

CHECKPOINT_SECONDS = 15.0  # what a kill may cost; a checkpoint of a few million parameters takes a tenth of a second
State = dict[str, torch.Tensor]
_UNREAD_STEPS = 50  # losses are read together where reading one makes a GPU, or other processes, wait


class _NotFiniteError(Exception):
    """The loss or the weights are no numbers any more."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """What training did.

    Args:
        losses: Mean loss of each epoch.
        batch_count: Batches an epoch.
        resumed_at: Batches that an earlier run had done; 0 if there was none.
        terms: Mean of each term of the loss in the last epoch.
        epochs: What is known of each epoch.
        best_epoch: Epoch (from 1) with the best validation result; None without validation data.
        best_score: That result.
        stopped_early: Before the last epoch, by patience or a callback.
    """

    losses: tuple[float, ...]
    batch_count: int
    resumed_at: int
    terms: Mapping[str, float]
    epochs: tuple[EpochReport, ...]
    best_epoch: int | None
    best_score: float | None
    stopped_early: bool


def train(
    model: nn.Module,
    task: Task,
    training: Training,
    *,
    objective: Objective | None = None,
    work: Path | None = None,
    progress: Progress = silent,
    callbacks: Sequence[Callback] = (),
    after_step: Callable[[], None] | None = None,
    rates: Mapping[str, float] | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Trained:
    """Train ``model`` in place, in train mode; its modules' modes and its device are restored afterwards.

    Args:
        model: Called like the task's model with inputs ``[N, ...]``; returns what that returns.
        task: Brings training data, and validation data where something is chosen by it.
        training: How.
        objective: What is minimised; None: the task's own loss.
        work: Folder for checkpoints and metrics; training goes on from a checkpoint that is there. None: none are kept.
        progress: Called after each batch with the batches of all epochs.
        callbacks: Look on, and may stop it.
        after_step: Called after each change of the weights (to hold zeros in place).
        rates: Shell pattern of parameter names -> factor on their learning rate.
        checkpoint_seconds: Write a checkpoint when this long has passed since the last, and after every epoch.

    Raises:
        DataError: No training or validation data, bad data, or data that changed since the checkpoint.
        TaskError: The net or its loss fails, the loss is no scalar, or it became NaN (the weights of the last good checkpoint
            are then the model's).
        RecipeError: ``work`` holds a checkpoint of another job; the device lacks the precision.
        IntegrityError: The checkpoint is damaged.
    """
    if training.needs_validation:
        check_validation(task)
    trackers, aim = asked_trackers(), objective or TaskObjective(task)
    with _kept(model, aim), join_processes(training.mixed_precision, trackers=trackers, folder=work) as processes:
        batch_count = count_batches(task)
        job: dict[str, Any] = {
            "training": training.model_dump(mode="json"),
            "the model (or its first weights)": digest_of(*(part for pair in model.state_dict().items() for part in pair)),
            "the objective": aim.digest(),
            "the number of processes": processes.count,
        }
        model.to(processes.device)
        aim.to(processes.device)
        processes.equalize(model)
        optimization = Optimization(
            model, aim.parameters(), training, rates=rates or {}, step_count=training.epochs * batch_count
        )
        metrics = Metrics(work, processes, settings=job["training"], trackers=trackers)
        return _Run(
            model, task, training, aim, processes, optimization, metrics, batch_count, job, work,
            progress, callbacks, after_step, checkpoint_seconds,
        ).run()  # fmt: skip


@contextmanager
def _kept(model: nn.Module, objective: Objective) -> Iterator[None]:
    """Leave device, modes, threads, random numbers and settings as they were found; on a GPU, kernels are deterministic."""
    place = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    threads, before, cudnn = torch.get_num_threads(), Generators.now(), torch.backends.cudnn.deterministic
    modes = {module: module.training for module in model.modules()}
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        model.to(place)
        objective.to(place)
        before.restore()
        torch.set_num_threads(threads)
        torch.backends.cudnn.deterministic = cudnn


@dataclasses.dataclass
class _Run:
    """One training run: its place, and what a checkpoint must hold."""

    model: nn.Module
    task: Task
    training: Training
    objective: Objective
    processes: Processes
    optimization: Optimization
    metrics: Metrics
    batch_count: int
    job: dict[str, Any]
    work: Path | None
    progress: Progress
    callbacks: Sequence[Callback]
    after_step: Callable[[], None] | None
    checkpoint_seconds: float

    def __post_init__(self) -> None:
        self.loader = Loader(self.task, seed=self.training.seed, processes=self.processes, folder=self.work)
        self.average = None if self.training.ema is None else Average(self.model, self.training.ema)
        self.course = Course()
        self.best: State | None = None
        self.unread: list[State] = []
        waits = self.processes.device.type != "cpu" or self.processes.count > 1
        self.read_every = _UNREAD_STEPS if waits else 1
        self.watched = any(type(callback).on_step is not Callback.on_step for callback in self.callbacks)
        self.saved_at = self.timed_at = time.monotonic()

    def run(self) -> Trained:
        resumed = None if self.work is None else read_checkpoint(self.work, job=self.job)
        if resumed is not None:
            self._restore(resumed)
        done = self.course.epoch * self.batch_count + self.course.batch
        self.good = self._chosen()
        self.optimization.optimizer.zero_grad()
        self.model.train()
        try:
            while self.course.epoch < self.training.epochs and not self.course.is_over:
                self._train_epoch(resumed)
                resumed = None
            self._load(self._chosen())
        except _NotFiniteError as reason:
            self._load(self.good)
            raise TaskError(str(reason)) from None
        finally:
            self.metrics.close()
        return self._trained(done)

    def _trained(self, resumed_at: int) -> Trained:
        reports = tuple(EpochReport(**row) for row in self.course.epochs)
        score, epoch = self.course.best or (None, None)
        return Trained(
            losses=tuple(report.loss for report in reports),
            batch_count=self.batch_count,
            resumed_at=resumed_at,
            terms=reports[-1].terms if reports else {},
            epochs=reports,
            best_epoch=epoch,
            best_score=score,
            stopped_early=self.course.epoch < self.training.epochs,
        )

    def _train_epoch(self, resumed: Checkpoint | None) -> None:
        course, done = self.course, self.course.epoch * self.batch_count
        label = f"train, epoch {course.epoch + 1} of {self.training.epochs}"
        label += f", loss {course.epochs[-1]['loss']:.4f}" if course.epochs else ""
        total = self.training.epochs * self.batch_count
        for batch in self.loader.epoch(course.epoch, start=course.batch, resumed=resumed):
            self._step(batch, done + course.batch)
            if self.processes.is_main:
                self.progress(label, done + course.batch, total)
            if self.processes.count == 1 and time.monotonic() - self.saved_at >= self.checkpoint_seconds:
                self._save()
        self._end_epoch()

    def _step(self, batch: TrainingBatch, at: int) -> None:
        """One batch: terms of the loss, gradients, new weights."""
        with self.processes.precision():
            terms = self._terms(batch)
        loss, weight, scaler = terms["loss"], self.loader.weight, self.processes.scaler
        self.unread.append({name: term.detach() * weight if weight != 1 else term.detach() for name, term in terms.items()})
        self.course.batch += 1
        if len(self.unread) >= self.read_every:
            self._read()
        loss = loss * weight if weight != 1 else loss
        (loss if scaler is None else scaler.scale(loss)).backward()
        self.processes.sum_gradients(self.optimization.parameters)
        self.optimization.step(at, scaler)
        if self.after_step is not None:
            self.after_step()
        if self.average is not None:
            self.average.update()
        if self.watched:
            self._show_step({name: float(term.detach()) for name, term in terms.items()}, at + 1)

    def _terms(self, batch: TrainingBatch) -> Mapping[str, torch.Tensor]:
        where = f"Task '{self.task.name}': epoch {batch.epoch + 1}, batch {batch.index + 1}"
        try:
            terms = self.objective(self.model, batch)
        except EdgekitError:
            raise
        except Exception as reason:
            hint = " Drop the short last batch of the training data." if "more than 1 value per channel" in str(reason) else ""
            raise TaskError(f"{where}: the net cannot be trained on it. {user_line(reason)}{hint}") from reason
        loss: Any = terms.get("loss")
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
            raise TaskError(
                f"{where}: the loss is {describe_tensor(loss)}; return a tensor of one number that depends on the outputs."
            )
        return terms

    def _read(self) -> None:
        """Add the losses of the last steps to the epoch's, in their order, and make sure that they are numbers."""
        if not self.unread:
            return
        names = list(self.unread[0])
        first, rows = self.course.batch - len(self.unread) + 1, self.unread
        if self.read_every == 1:
            table = [[float(row[name]) for name in names] for row in rows]
        else:
            stacked = torch.stack([torch.stack([row[name].reshape(()).float() for name in names]) for row in rows])
            table = self.processes.sum(stacked).tolist()
        self.unread = []
        for at, values in enumerate(table):
            for name, value in zip(names, values, strict=True):
                if name == "loss" and not math.isfinite(value):
                    raise self._not_finite(f"batch {first + at}: the loss is {value:.6g}")
                self.course.sums[name] = self.course.sums.get(name, 0.0) + value

    def _not_finite(self, what: str) -> _NotFiniteError:
        where = f"Task '{self.task.name}': epoch {self.course.epoch + 1}, {what}"
        kept = "The model has the weights of the last good checkpoint."
        anew = f" and begin anew (remove {self.work})" if self.work is not None else ""
        return _NotFiniteError(f"{where}. {kept} Try a smaller learning_rate{anew}, and check loss and targets.")

    def _show_step(self, terms: dict[str, float], done: int) -> None:
        total = self.training.epochs * self.batch_count
        if self.processes.is_main:
            for callback in self.callbacks:
                callback.on_step(StepReport(self.course.epoch + 1, self.course.batch, done, total, terms))

    def _end_epoch(self) -> None:
        course = self.course
        self._read()
        self._check_weights()
        averaged = [] if self.average is None else self.average.state().values()
        self.processes.average([*self.model.buffers(), *averaged])
        steps = max(1, course.batch)
        terms = {name: total / steps for name, total in course.sums.items()}
        score = self._score()
        course.epoch += 1
        if score is not None and (course.best is None or score > course.best[0]):
            course.best = (score, course.epoch)
            self.best = _clone(self._present()) if self.training.keep == "best" else None
        report = EpochReport(course.epoch, terms["loss"], terms, self.optimization.rate, score, self._seconds())
        course.epochs.append(report.as_row())
        course.is_over = self._is_over(report)
        course.batch, course.sums, course.seconds = 0, {}, 0.0
        self.metrics.write(course.epochs, report)
        self._save()

    def _is_over(self, report: EpochReport) -> bool:
        answers = [callback.on_epoch(report) for callback in self.callbacks] if self.processes.is_main else []
        best, patience = self.course.best, self.training.patience
        is_over = any(answer is False for answer in answers)
        is_over |= best is not None and patience is not None and self.course.epoch - best[1] >= patience
        return bool(self.processes.agree(is_over))

    def _seconds(self) -> float:
        now = time.monotonic()
        self.course.seconds, self.timed_at = self.course.seconds + now - self.timed_at, now
        return self.course.seconds

    def _score(self) -> float | None:
        """The task's metric on its validation data, each process on its share of the batches."""
        if self.task.validation is None:
            return None
        batches = itertools.islice(self.task.validation_batches(), self.processes.index, None, self.processes.count)
        live = None if self.average is None else _clone(self.model.state_dict())
        if live is not None:
            self._load(self._present())
        found = score_batches(self.model, self.task, batches)
        if live is not None:
            self._load(live)
        total, count = self.processes.sum(torch.tensor(found, dtype=torch.float64)).tolist()
        return float(total / max(1.0, count))

    def _present(self) -> State:
        """The weights as they would be kept now: the last ones, or their average."""
        return {**self.model.state_dict(), **(self.average.state() if self.average is not None else {})}

    def _chosen(self) -> State:
        """The weights that are kept, in tensors of their own."""
        return self.best if self.best is not None else _clone(self._present())

    def _load(self, state: State) -> None:
        self.model.load_state_dict(state)

    def _check_weights(self) -> None:
        """Make sure that what is kept can be used."""
        parameters = [parameter.detach() for parameter in self.optimization.parameters]
        if not bool(torch.isfinite(torch.stack(torch._foreach_norm(parameters))).all()):
            raise self._not_finite(f"batch {self.course.batch}: weights became NaN or infinite")

    def _save(self) -> None:
        """Remember the present state as good, and write it."""
        self._read()
        self._check_weights()
        self._seconds()
        self.good = self._chosen()
        if self.work is not None and self.processes.is_main:
            data, last_batch = self.loader.state()
            write_checkpoint(
                self.work,
                Checkpoint(
                    job=self.job,
                    course=self.course,
                    model=self.model.state_dict(),
                    objective=dict(self.objective.state_dict()),
                    optimizer=self.optimization.optimizer.state_dict(),
                    scaler=None if self.processes.scaler is None else self.processes.scaler.state_dict(),
                    average=None if self.average is None else (self.average.state(), self.average.steps),
                    best=self.best,
                    data=data,
                    draws=torch.get_rng_state(),
                    last_batch=last_batch,
                    threads=torch.get_num_threads(),
                ),
            )
        self.saved_at = time.monotonic()

    def _restore(self, found: Checkpoint) -> None:
        self.course, self.best = found.course, found.best
        self.model.load_state_dict(found.model)
        self.objective.load_state_dict(found.objective)
        self.optimization.optimizer.load_state_dict(found.optimizer)
        if self.processes.scaler is not None and found.scaler is not None:
            self.processes.scaler.load_state_dict(found.scaler)
        if self.average is not None and found.average is not None:
            self.average.load(*found.average)
        torch.set_num_threads(found.threads)


def _clone(state: Mapping[str, torch.Tensor]) -> State:
    return {name: tensor.detach().clone() for name, tensor in state.items()}
