"""The step that trains a student with a teacher, as data."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import pydantic

from edgekit.core.errors import EdgekitError, RecipeError
from edgekit.core.model import Record
from edgekit.core.step import Step
from edgekit.core.training import Training

__all__ = ["Distill", "LossTerm"]


class LossTerm(Record):
    """One term of a distillation loss; the fields beside these are the options of the loss it names.

    Args:
        kind: A name of the ``edgekit.losses`` group: ``kd``, ``dkd``, ``logits-mse``, ``feature-match``, ...
        weight: What the term is multiplied by.
    """

    model_config = pydantic.ConfigDict(extra="allow")
    error: ClassVar[type[EdgekitError]] = RecipeError

    kind: str
    weight: float = pydantic.Field(default=1.0, ge=0)

    @property
    def options(self) -> dict[str, object]:
        """The loss's own options."""
        return dict(self.model_extra or {})


class Distill(Step):
    """Knowledge distillation: a student learns from the task's labels and from what a teacher makes of the same inputs.

    Args:
        student: What is trained: None, the net as the steps before left it; ``models.py:small``, a function without arguments
            that returns an ``nn.Module``; ``width0.5`` or ``depth0.5``, the task's model factory called with less width or depth.
        teachers: ``models.py:big`` for each teacher; empty: the task's own dense model.
        losses: Terms that are added up.
        task_weight: What the task's own loss is multiplied by.
        cached: Compute the teacher's outputs once and keep them; only right where an epoch's inputs do not change (no random
            augmentation), which is checked. None: where that is found to be so and the outputs fit into a gigabyte.
        training: How the student is trained.

    >>> Distill.from_word("distill").losses[0].kind
    'kd'
    """

    words: ClassVar[tuple[str, ...]] = ("distill",)

    kind: Literal["distill"] = "distill"  # pyright: ignore[reportIncompatibleVariableOverride]  # fields are frozen
    student: str | None = None
    teachers: tuple[str, ...] = ()
    losses: tuple[LossTerm, ...] = pydantic.Field(default=(LossTerm(kind="kd"),), min_length=1)
    task_weight: float = pydantic.Field(default=0.5, ge=0)
    cached: bool | None = None
    training: Training = Training()

    @pydantic.field_validator("losses")
    @classmethod
    def _as_plain_terms(cls, terms: tuple[LossTerm, ...]) -> tuple[LossTerm, ...]:
        """Losses given as their own classes become terms, so that a recipe is the same whichever way it was written."""
        return tuple(term if type(term) is LossTerm else LossTerm(**term.model_dump(exclude_none=True)) for term in terms)

    @classmethod
    def from_word(cls, word: str) -> Self | None:
        """``distill``."""
        return cls() if word == "distill" else None
