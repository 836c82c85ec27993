"""Distillation from Python: teachers and a student that are at hand, for notebooks and programs of one's own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from edgekit.compression.distill.logits import KD
from edgekit.compression.distill.loss import read_losses
from edgekit.compression.distill.objective import DistillationObjective
from edgekit.compression.training.loop import train
from edgekit.core.plugins import silent
from edgekit.core.training import Training

if TYPE_CHECKING:
    from edgekit.compression.training.callbacks import Callback
    from edgekit.core.distillation import LossTerm
    from edgekit.core.plugins import Progress
    from edgekit.core.task import Task

__all__ = ["dense_teacher", "distill"]


def distill(
    teacher: nn.Module | Sequence[nn.Module],
    student: nn.Module,
    task: Task,
    *,
    losses: Sequence[LossTerm] = (KD(),),
    task_weight: float = 0.5,
    teacher_weights: Sequence[float] | None = None,
    cached: bool | None = None,
    training: Training | None = None,
    work: Path | None = None,
    callbacks: Sequence[Callback] = (),
    progress: Progress = silent,
) -> nn.Module:
    """Train a copy of ``student`` on the task's training data, with a teacher.

    Args:
        teacher: A net, or several whose losses are averaged; called like the task's model. It is not changed.
        student: Any net that is called so. It is not changed.
        task: Brings training data, loss, and validation data where something is chosen by it.
        losses: What compares student and teacher; see ``docs/distillation.md``.
        task_weight: Weight of the task's own loss; 0: the teacher alone teaches.
        teacher_weights: Share of each teacher; None: equal.
        cached: Compute the teachers' outputs once and keep them, which needs inputs that do not change from epoch to epoch;
            None: where that is found to be so.
        training: Epochs, rate, seed ...; None: the defaults.
        work: Folder for checkpoints and metrics; training goes on from a checkpoint that is there. None: none are kept.
        callbacks: Look on, and may stop it.
        progress: Called after each batch.

    Returns:
        The trained student, in eval mode.

    Raises:
        RecipeError: A layer or output that a loss names is not there.
        TaskError: Student and teacher cannot be compared, or the loss became NaN.
        DataError: No training data, or bad data.
    """
    training = training or Training()
    teachers = [teacher] if isinstance(teacher, nn.Module) else list(teacher)
    trained = copy.deepcopy(student)
    objective = DistillationObjective(
        trained,
        [copy.deepcopy(net) for net in teachers],
        task,
        read_losses(losses, source="distill"),
        task_weight=task_weight,
        teacher_weights=teacher_weights,
        cached=cached,
        epochs=training.epochs,
        seed=training.seed,
        work=work,
    )
    train(trained, task, training, objective=objective, work=work, callbacks=callbacks, progress=progress)
    return trained.eval()


def dense_teacher(student: nn.Module, task: Task, training: Training, *, work: Path | None = None) -> DistillationObjective:
    """What a net is trained for that the task's dense model teaches with soft targets, at the defaults of a distill step.

    Args:
        student: The net that will be trained.
        task: Its model is the teacher, a copy of it.
        training: How long is trained.
        work: Folder for kept answers.

    Raises:
        TaskError: The student answers other than the model.
    """
    teachers = [copy.deepcopy(task.build_model())]
    return DistillationObjective(student, teachers, task, (KD(),), epochs=training.epochs, seed=training.seed, work=work)
