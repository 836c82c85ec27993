"""The step of a recipe that trains a student with teachers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from edgekit.compression.capture import recapture
from edgekit.compression.distill.loss import read_losses
from edgekit.compression.distill.objective import DistillationObjective
from edgekit.compression.distill.students import make_student, make_teachers
from edgekit.compression.training.loop import Trained, train
from edgekit.core.compressed import Compressed, StepRecord
from edgekit.core.errors import RecipeError

if TYPE_CHECKING:
    from edgekit.core.distillation import Distill
    from edgekit.core.plugins import Progress
    from edgekit.core.task import Task

__all__ = ["distill_step"]


def distill_step(
    state: Compressed, *, step: Distill, task: Task, progress: Progress, work: Path | None = None
) -> tuple[Compressed, StepRecord]:
    """Train the step's student, and trace it.

    Everything the recipe and the nets do not allow is found before training: also whether the student can be exported, and
    whether it returns what the task's model returns.

    Args:
        state: What the steps before made; holds the student where the step names none.
        step: Student, teachers, losses, training.
        task: Brings data, loss and the dense model.
        progress: Called as training advances.
        work: Folder for checkpoints.

    Raises:
        RecipeError: The step stands after quantization, or names a loss, layer or student there is not.
        TaskError: Student and teacher cannot be compared, a file of theirs fails, or the loss became NaN.
        DataError: No training data, or bad data.
    """
    clock, cpu = time.perf_counter(), time.process_time()
    if state.module is None or state.contract.entries:
        raise RecipeError("Step 'distill' stands after quantization, which ends training. Put it before: distill+int8.")
    losses = read_losses(step.losses)
    teachers = make_teachers(step.teachers, task)
    student = make_student(step.student, state.module, task, seed=step.training.seed)
    if step.student is not None:
        recapture(state, student, task)
    objective = DistillationObjective(
        student,
        teachers,
        task,
        losses,
        task_weight=step.task_weight,
        cached=step.cached,
        epochs=step.training.epochs,
        seed=step.training.seed,
        work=work,
    )
    trained = train(student, task, step.training, objective=objective, work=work, progress=progress)
    is_same = step.student is None and state.program is state.float_program
    record = StepRecord(
        kind=step.kind,
        summary=_summarize(step, trained, is_same=is_same),
        seconds=time.perf_counter() - clock,
        cpu_seconds=time.process_time() - cpu,
        details={
            "epochs": len(trained.losses),
            "losses": list(trained.losses),
            "terms": dict(trained.terms),
            "batch_count": trained.batch_count,
            "resumed_at": trained.resumed_at,
            "best_epoch": trained.best_epoch,
            "student_parameters": _count(student),
            "teacher_parameters": [_count(teacher) for teacher in teachers],
            "samples_from_cache": 0 if objective.cache is None else objective.cache.hits,
        },
    )
    return recapture(state, student, task), record


def _summarize(step: Distill, trained: Trained, *, is_same: bool) -> str:
    student = step.student or "the net as it was"
    teachers = " and ".join(step.teachers) or "the task's dense model"
    losses = ", ".join(term.kind for term in step.losses)
    course = f"loss {trained.losses[0]:.4g} -> {trained.losses[-1]:.4g}"
    text = f"{student} learned from {teachers} ({losses}) for {len(trained.losses)} epochs, {course}"
    if is_same and not step.teachers:
        text += "; no step before had changed it, so it learned from itself"
    return text


def _count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())
