"""How a net is trained: one table for fine-tuning after pruning, for distillation and for quantization-aware training."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import pydantic

from edgekit.core.errors import EdgekitError, RecipeError
from edgekit.core.model import Record

__all__ = ["MixedPrecision", "Schedule", "Training"]

Schedule = Literal["cosine", "linear", "constant"]
MixedPrecision = Literal["no", "bf16", "fp16"]


class Training(Record):
    """How a net is trained.

    Args:
        epochs: Passes over the training data.
        learning_rate: Peak rate.
        optimizer: ``adamw``, or ``sgd`` with Nesterov momentum 0.9.
        schedule: How the rate falls from its peak, ``cosine`` (arXiv:1608.03983) and ``linear`` to zero.
        warmup: Share of all steps in which the rate rises from zero to its peak.
        weight_decay: On weights only, not on biases and norms.
        clip_norm: Largest norm of the gradient; 0: not clipped.
        ema: Decay of an exponential average of the weights, which is kept in their place (e.g. 0.999); None: the last weights.
        keep: Which weights are kept: the ``last``, or those of the epoch that was ``best`` on the task's validation data.
        patience: Stop after so many epochs without a better validation result; None: never.
        mixed_precision: ``bf16`` or ``fp16`` arithmetic where the device has it.
        seed: Seed of everything the trainer draws.
    """

    error: ClassVar[type[EdgekitError]] = RecipeError

    epochs: int = pydantic.Field(default=10, ge=1)
    learning_rate: float = pydantic.Field(default=1e-3, gt=0)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    schedule: Schedule = "cosine"
    warmup: float = pydantic.Field(default=0.0, ge=0, lt=1)
    weight_decay: float = pydantic.Field(default=1e-2, ge=0)
    clip_norm: float = pydantic.Field(default=1.0, ge=0)
    ema: float | None = pydantic.Field(default=None, gt=0, lt=1)
    keep: Literal["last", "best"] = "last"
    patience: int | None = pydantic.Field(default=None, ge=1)
    mixed_precision: MixedPrecision = "no"
    seed: int = 0

    @property
    def needs_validation(self) -> bool:
        """Whether validation data decides anything."""
        return self.keep == "best" or self.patience is not None

    def with_seed(self, seed: int) -> Self:
        """The same training with another seed."""
        return self.replace(seed=seed)
