"""What a distillation loss is: plain data that builds a module, which compares what two nets make of the same inputs.

A plug-in subclasses :class:`DistillationLoss`, returns an ``nn.Module`` from :meth:`~DistillationLoss.build` and names the
class in the entry-point group ``edgekit.losses``. The module is called with a :class:`Comparison` and returns a scalar; its
parameters (adapters between unequal widths) are trained along with the student.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pydantic
import torch

from edgekit.core import entry_points
from edgekit.core.distillation import LossTerm
from edgekit.core.errors import RecipeError, TaskError, nearest

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Answers", "Comparison", "DistillationLoss", "LayerLoss", "named_outputs", "pick_output", "read_losses"]


@dataclasses.dataclass(frozen=True)
class Answers:
    """What one net makes of a batch.

    Args:
        outputs: Its outputs by name, ``[N, ...]`` each, in order.
        features: What the layers that were asked for returned, ``[N, ...]`` by module path.
    """

    outputs: Mapping[str, torch.Tensor]
    features: Mapping[str, torch.Tensor] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A student's and a teacher's answers to the same batch.

    Args:
        student: The student's answers, with gradients.
        teacher: The teacher's, without.
        targets: The batch's targets as the task gives them.
        epoch: Epoch of the batch, from 0.
    """

    student: Answers
    teacher: Answers
    targets: Any = None
    epoch: int = 0


class DistillationLoss(LossTerm):
    """Base of all distillation losses: their options, and how their module is built.

    Args:
        output: Name or position of the output that is compared, for nets with several; None: the first.
    """

    model_config = pydantic.ConfigDict(extra="forbid")

    output: str | int | None = None

    @property
    def layer_names(self) -> tuple[tuple[str, str], ...]:
        """Pairs of module paths, the student's and the teacher's, whose features :meth:`build`'s module compares."""
        return ()

    def build(self, student: Answers, teacher: Answers) -> nn.Module:
        """The module that compares; ``module(comparison) -> scalar tensor``.

        Args:
            student: The student's answers to the task's example inputs.
            teacher: The teacher's.

        Raises:
            TaskError: Student and teacher cannot be compared so.
        """
        raise NotImplementedError

    def outputs_of(self, comparison: Comparison) -> tuple[torch.Tensor, torch.Tensor]:
        """The student's and the teacher's compared output, in float32."""
        return (
            pick_output(comparison.student, self.output, loss=self.kind).float(),
            pick_output(comparison.teacher, self.output, loss=self.kind).float(),
        )

    def check_outputs(self, student: Answers, teacher: Answers) -> None:
        """Refuse outputs of different shapes.

        Raises:
            TaskError: Gives both shapes.
        """
        ours, theirs = pick_output(student, self.output, loss=self.kind), pick_output(teacher, self.output, loss=self.kind)
        if ours.shape != theirs.shape:
            raise TaskError(
                f"Distillation loss '{self.kind}': the student answers {list(ours.shape)}, the teacher {list(theirs.shape)}."
                " It compares outputs one by one, so both must have the same shape: give a teacher of the same task, or use a"
                " loss on features (feature-match, rkd)."
            )


class LayerLoss(DistillationLoss):
    """Base of losses that compare features.

    Args:
        layers: Student's layer -> teacher's layer, by module path (the names of ``model.named_modules()``).
    """

    layers: dict[str, str] = pydantic.Field(min_length=1)

    def __init__(self, layers: Mapping[str, str] | None = None, **fields: Any) -> None:
        super().__init__(**(fields if layers is None else {"layers": layers, **fields}))

    @property
    def layer_names(self) -> tuple[tuple[str, str], ...]:
        """The pairs of :attr:`layers`."""
        return tuple(self.layers.items())


def named_outputs(result: Any) -> dict[str, torch.Tensor]:
    """A net's result as tensors by name: ``output``, or ``output_0``, ``output_1`` ..., or a dictionary's own names.

    Raises:
        TaskError: It is no tensor, tuple of tensors or dictionary of tensors.
    """
    if isinstance(result, torch.Tensor):
        return {"output": result}
    if isinstance(result, Mapping):
        named = {str(name): value for name, value in result.items()}
    elif isinstance(result, tuple | list):
        named = {f"output_{index}": value for index, value in enumerate(result)}
    else:
        named = {}
    if not named or not all(isinstance(value, torch.Tensor) for value in named.values()):
        raise TaskError(f"A net returned {type(result).__name__}; expected a tensor, a tuple of tensors or a dict of tensors.")
    return named


def pick_output(answers: Answers, output: str | int | None, *, loss: str) -> torch.Tensor:
    """The output with this name or position; the first for None.

    Raises:
        RecipeError: There is none.
    """
    names = list(answers.outputs)
    if output is None:
        return answers.outputs[names[0]]
    if isinstance(output, int) and -len(names) <= output < len(names):
        return answers.outputs[names[output]]
    if isinstance(output, str) and output in answers.outputs:
        return answers.outputs[output]
    hint = nearest(str(output), names)
    raise RecipeError(f"Distillation loss '{loss}': there is no output {output!r}; the net returns {', '.join(names)}.{hint}")


def read_losses(terms: Iterable[LossTerm], *, source: str = "Step 'distill'") -> tuple[DistillationLoss, ...]:
    """Losses from the terms of a recipe; those that are losses already stay what they are.

    Raises:
        RecipeError: There is no loss of that name, or it has no such option; gives the nearest name.
    """
    return tuple(_read(term, source) for term in terms)


def _read(term: LossTerm, source: str) -> DistillationLoss:
    if isinstance(term, DistillationLoss):
        return term
    known: Sequence[str] = entry_points.names("losses")
    if term.kind not in known:
        raise RecipeError(f"{source}: unknown loss '{term.kind}'; known: {', '.join(known)}.{nearest(term.kind, known)}")
    loss_type: type[DistillationLoss] = entry_points.load("losses", term.kind)
    return loss_type.parse({"kind": term.kind, "weight": term.weight, **term.options}, source=f"{source}: loss '{term.kind}'")
