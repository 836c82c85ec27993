"""What a student is trained for: the task's own loss, and terms that compare it with its teachers."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from edgekit.compression.capture import user_line
from edgekit.compression.distill.loss import Answers, Comparison, DistillationLoss, named_outputs
from edgekit.compression.distill.taps import check_tapped, find_layers, tapping
from edgekit.compression.distill.teacher_cache import TeacherCache
from edgekit.compression.training.objective import TaskObjective, call_model
from edgekit.core.errors import EdgekitError, RecipeError, TaskError

if TYPE_CHECKING:
    from edgekit.compression.training.objective import TrainingBatch
    from edgekit.core.task import Task

__all__ = ["DistillationObjective"]


@dataclasses.dataclass(frozen=True)
class _Term:
    """One loss against every teacher.

    Args:
        name: Its kind; numbered from the second of a kind on.
        loss: Its options.
        modules: What compares, one for each teacher.
    """

    name: str
    loss: DistillationLoss
    modules: nn.ModuleList


class _Tapped:
    """A net and the layers of it whose features losses compare."""

    def __init__(self, net: nn.Module, names: Iterable[str], *, whose: str) -> None:
        self.net, self.whose = net, whose
        self.layers = find_layers(net, names, whose=whose)

    def answer(self, task: Task, inputs: Mapping[str, torch.Tensor], *, net: nn.Module | None = None) -> tuple[Any, Answers]:
        """What the net returned, and the same by name with the layers' features."""
        with tapping(self.layers) as features:
            result = call_model(net or self.net, task, inputs)
        return result, Answers(named_outputs(result), features)

    def try_on_example(self, task: Task) -> Answers:
        """The net's answers to the task's example inputs, in eval mode.

        Raises:
            TaskError: It fails on them.
            RecipeError: A layer is never called.
        """
        example = {name: torch.from_numpy(np.array(value)) for name, value in task.named_inputs(task.example_inputs).items()}
        mode = self.net.training
        self.net.eval()
        try:
            with torch.no_grad():
                _, answers = self.answer(task, example)
        except EdgekitError:
            raise
        except Exception as reason:
            raise TaskError(f"Task '{task.name}': the {self.whose} fails on example_inputs. {user_line(reason)}") from reason
        finally:
            self.net.train(mode)
        check_tapped(answers.features, self.layers, whose=self.whose)
        return answers


class DistillationObjective:
    """``task_weight * task's loss + sum of weight * loss``, each loss averaged over the teachers.

    Everything that can be wrong with losses, layers and shapes is found here, before training.

    Args:
        student: The net that will be trained.
        teachers: Nets that are asked, in eval mode and without gradients; this object owns them.
        task: Says how nets are called; its loss.
        losses: What compares student and teachers.
        task_weight: Weight of the task's loss; 0: targets are not looked at.
        teacher_weights: Share of each teacher; None: equal.
        cached: Keep the teachers' outputs; None: where that is found to be possible.
        epochs: How long is trained: one epoch needs no cache.
        seed: Of the adapters' first weights.
        work: Folder for kept answers.

    Raises:
        RecipeError: A layer or output that is named is not there.
        TaskError: Student and teacher cannot be compared.
    """

    def __init__(
        self,
        student: nn.Module,
        teachers: Sequence[nn.Module],
        task: Task,
        losses: Sequence[DistillationLoss],
        *,
        task_weight: float = 0.5,
        teacher_weights: Sequence[float] | None = None,
        cached: bool | None = None,
        epochs: int = 1,
        seed: int = 0,
        work: Path | None = None,
    ) -> None:
        self.task, self.task_weight, self.task_objective = task, task_weight, TaskObjective(task)
        self.shares = _shares(teacher_weights, len(teachers))
        pairs = [pair for loss in losses for pair in loss.layer_names]
        self.student = _Tapped(student, (ours for ours, _ in pairs), whose="student")
        self.teachers = [
            _Tapped(teacher.eval(), (theirs for _, theirs in pairs), whose=_whose(at, len(teachers)))
            for at, teacher in enumerate(teachers)
        ]
        self.terms = self._build(losses, seed)
        self.trained = nn.ModuleList(term.modules for term in self.terms)
        self.cache = self._make_cache(cached, epochs, work, has_features=bool(pairs))

    def _build(self, losses: Sequence[DistillationLoss], seed: int) -> list[_Term]:
        student = self.student.try_on_example(self.task)
        teachers = [teacher.try_on_example(self.task) for teacher in self.teachers]
        names = [loss.kind for loss in losses]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return [
                _Term(
                    name=loss.kind if loss.kind not in names[:at] else f"{loss.kind}-{names[:at].count(loss.kind) + 1}",
                    loss=loss,
                    modules=nn.ModuleList(loss.build(student, teacher) for teacher in teachers),
                )
                for at, loss in enumerate(losses)
            ]

    def _make_cache(self, cached: bool | None, epochs: int, work: Path | None, *, has_features: bool) -> TeacherCache | None:
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1  # set by accelerate launch and torchrun
        reason = (
            "losses on features need the teacher's layers, which are not kept" if has_features
            else "each of several processes sees other samples in each epoch" if several
            else ""
        )  # fmt: skip
        if cached and reason:
            raise RecipeError(f"Step 'distill': cached = true, but {reason}. Remove it, or set cached = false.")
        if cached is False or reason or epochs == 1:
            return None
        return TeacherCache(required=bool(cached), folder=None if work is None else work / "teacher")

    def __call__(self, model: nn.Module, batch: TrainingBatch) -> dict[str, torch.Tensor]:
        """The terms on one batch, each without its weight, and the weighted total as ``"loss"``."""
        teachers = self._ask(batch)  # before the student's activations take up the memory that the teacher's are freed to
        result, student = self.student.answer(self.task, batch.inputs, net=model)
        terms: dict[str, torch.Tensor] = {}
        if self.task_weight:
            terms["task"] = self.task_objective.of(result, batch.targets)
        for term in self.terms:
            found = [
                share * module(Comparison(student=student, teacher=teacher, targets=batch.targets, epoch=batch.epoch))
                for share, module, teacher in zip(self.shares, term.modules, teachers, strict=True)
            ]
            terms[term.name] = torch.stack(found).sum()
        weights = {term.name: term.loss.weight for term in self.terms} | {"task": self.task_weight}
        terms["loss"] = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        return terms

    def _ask(self, batch: TrainingBatch) -> list[Answers]:
        def ask(inputs: Mapping[str, torch.Tensor]) -> list[Answers]:
            with torch.no_grad():
                return [teacher.answer(self.task, inputs)[1] for teacher in self.teachers]

        if self.cache is None:
            return ask(batch.inputs)
        outputs = self.cache.answers(batch, lambda inputs: [found.outputs for found in ask(inputs)])
        return [Answers(found) for found in outputs]

    def parameters(self) -> list[nn.Parameter]:
        """Weights of adapters and embeddings, and of the task's loss where it has some."""
        return [*self.trained.parameters(), *self.task_objective.parameters()]

    def digest(self) -> str:
        """Of losses, weights and teachers."""
        digest = hashlib.sha256()
        settings = (self.task_weight, self.shares, self.task_objective.digest())
        digest.update(repr([*(term.loss.model_dump() for term in self.terms), *settings]).encode())
        for teacher in self.teachers:
            for name, tensor in teacher.net.state_dict().items():
                digest.update(name.encode() + tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return f"distill:{digest.hexdigest()}"

    def state_dict(self) -> dict[str, Any]:
        """Adapters, memories, and which of the teachers' answers are kept."""
        return {
            "losses": self.trained.state_dict(),
            "task": dict(self.task_objective.state_dict()),
            "cache": self.cache.state() if self.cache is not None else {},
        }

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Go back to a checkpoint's state."""
        self.trained.load_state_dict(state["losses"])
        self.task_objective.load_state_dict(state["task"])
        if self.cache is not None:
            self.cache.load(state["cache"])

    def to(self, device: torch.device, /) -> None:
        """Move teachers and adapters."""
        self.trained.to(device)
        self.task_objective.to(device)
        for teacher in self.teachers:
            teacher.net.to(device)


def _whose(at: int, count: int) -> str:
    return "teacher" if count == 1 else f"teacher {at + 1}"


def _shares(weights: Sequence[float] | None, count: int) -> list[float]:
    """Weights of the teachers that add up to one.

    Raises:
        RecipeError: Not one weight for each teacher, or they are not positive.
    """
    if not count:
        raise RecipeError("Distillation needs a teacher, found none. Give one net, or a list of nets.")
    given = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if len(given) != count or min(given) < 0 or not sum(given) > 0:
        raise RecipeError(f"teacher_weights needs one weight above zero for each of {count} teachers, found {given}.")
    return [weight / sum(given) for weight in given]
