"""Losses between answers: soft targets, decoupled soft targets, and the squared distance of logits."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
import torch
from torch import nn
from torch.nn import functional

from edgekit.compression.distill.loss import Answers, Comparison, DistillationLoss, pick_output
from edgekit.core.errors import TaskError

__all__ = ["DKD", "KD", "LogitsMSE"]


class _ClassLoss(DistillationLoss):
    """Base of losses between distributions over classes.

    Args:
        temperature: What logits are divided by: above 1 the small probabilities count more.
        class_axis: Axis of the classes; the others are samples and positions, over which the loss is averaged.
    """

    temperature: float = pydantic.Field(default=4.0, gt=0)
    class_axis: int = 1

    def check_outputs(self, student: Answers, teacher: Answers) -> None:
        """Refuse outputs of different shapes, and those that are no distribution over classes."""
        super().check_outputs(student, teacher)
        found = pick_output(student, self.output, loss=self.kind)
        if not -found.ndim <= self.class_axis < found.ndim or found.shape[self.class_axis] < 2:
            raise TaskError(
                f"Distillation loss '{self.kind}' compares probabilities of classes along axis {self.class_axis}; the output"
                f" {list(found.shape)} has fewer than two there. Set class_axis, or use logits-mse for a regression."
            )

    def logits_of(self, comparison: Comparison) -> tuple[torch.Tensor, torch.Tensor]:
        """Student's and teacher's logits ``[P, C]``, one row for each sample and position."""
        ours, theirs = (output.movedim(self.class_axis, -1) for output in self.outputs_of(comparison))
        return ours.flatten(0, -2), theirs.flatten(0, -2)


class KD(_ClassLoss):
    """Soft targets (Hinton, Vinyals & Dean, "Distilling the knowledge in a neural network", arXiv:1503.02531).

    ``T^2 * KL(softmax(teacher / T) || softmax(student / T))``, averaged over samples; ``T^2`` keeps the gradient's size the
    same for every temperature (section 2.1).

    >>> KD(temperature=2).weight
    1.0
    """

    kind: Literal["kd"] = "kd"  # pyright: ignore[reportIncompatibleVariableOverride]  # fields are frozen

    def build(self, student: Answers, teacher: Answers) -> nn.Module:
        """The module that compares two outputs of the same shape."""
        self.check_outputs(student, teacher)
        return _KD(self)


class _KD(nn.Module):
    def __init__(self, loss: KD) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, comparison: Comparison) -> torch.Tensor:
        """Scalar."""
        ours, theirs = self.loss.logits_of(comparison)
        return _divergence(ours, theirs, temperature=self.loss.temperature)


class DKD(_ClassLoss):
    """Decoupled soft targets (Zhao et al., "Decoupled knowledge distillation", arXiv:2203.08679).

    ``alpha * TCKD + beta * NCKD``: the divergence of (target class, all others), and that among the other classes, which in
    plain soft targets is held down the more the surer the teacher is. Needs class numbers as targets.

    Args:
        alpha: Weight of the target class's part.
        beta: Weight of the other classes' part; the paper uses 1 to 10.
        warmup: The loss rises linearly over so many epochs (the authors take 20 of 240).

    >>> DKD(beta=2).alpha
    1.0
    """

    kind: Literal["dkd"] = "dkd"  # pyright: ignore[reportIncompatibleVariableOverride]  # fields are frozen
    alpha: float = pydantic.Field(default=1.0, ge=0)
    beta: float = pydantic.Field(default=8.0, ge=0)
    warmup: int = pydantic.Field(default=0, ge=0)

    def build(self, student: Answers, teacher: Answers) -> nn.Module:
        """The module that compares two outputs of the same shape."""
        self.check_outputs(student, teacher)
        return _DKD(self)


class _DKD(nn.Module):
    def __init__(self, loss: DKD) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, comparison: Comparison) -> torch.Tensor:
        """Scalar."""
        ours, theirs = self.loss.logits_of(comparison)
        is_target = functional.one_hot(_class_numbers(comparison.targets, ours, loss="dkd"), ours.shape[1]).bool()
        temperature = self.loss.temperature
        target_part = _divergence(
            _target_and_rest(ours / temperature, is_target), _target_and_rest(theirs / temperature, is_target)
        )
        # Without the target class: its columns are taken out, so that softmax spreads over the others alone.
        shape = (ours.shape[0], ours.shape[1] - 1)
        other_part = _divergence(ours[~is_target].view(shape), theirs[~is_target].view(shape), temperature=temperature)
        total = self.loss.alpha * target_part * temperature**2 + self.loss.beta * other_part
        return total * min(1.0, (comparison.epoch + 1) / max(1, self.loss.warmup))


class LogitsMSE(DistillationLoss):
    """Squared distance of logits (Kim et al., "Comparing Kullback-Leibler divergence and mean squared error loss in knowledge
    distillation", arXiv:2105.08919), also right for regressions.

    ``mean((student - teacher)^2)`` over samples and classes (the paper sums over classes: its loss is ours times their number).

    >>> LogitsMSE(weight=0.1).kind
    'logits-mse'
    """  # noqa: D205  the title is long

    kind: Literal["logits-mse"] = "logits-mse"  # pyright: ignore[reportIncompatibleVariableOverride]  # fields are frozen

    def build(self, student: Answers, teacher: Answers) -> nn.Module:
        """The module that compares two outputs of the same shape."""
        self.check_outputs(student, teacher)
        return _LogitsMSE(self)


class _LogitsMSE(nn.Module):
    def __init__(self, loss: LogitsMSE) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, comparison: Comparison) -> torch.Tensor:
        """Scalar."""
        return functional.mse_loss(*self.loss.outputs_of(comparison))


def _divergence(ours: torch.Tensor, theirs: torch.Tensor, *, temperature: float = 1.0) -> torch.Tensor:
    """``T^2 * KL(softmax(theirs / T) || softmax(ours / T))`` of logits ``[P, C]``, mean over rows."""
    ours, theirs = functional.log_softmax(ours / temperature, 1), functional.log_softmax(theirs / temperature, 1)
    return functional.kl_div(ours, theirs, reduction="batchmean", log_target=True) * temperature**2


def _target_and_rest(logits: torch.Tensor, is_target: torch.Tensor) -> torch.Tensor:
    """Logits ``[P, 2]`` of the target class and of all others together."""
    rest = logits.masked_fill(is_target, -torch.inf).logsumexp(1)
    return torch.stack([logits[is_target], rest], 1)


def _class_numbers(targets: Any, logits: torch.Tensor, *, loss: str) -> torch.Tensor:
    """Targets as class numbers ``[P]`` for logits ``[P, C]``."""
    if isinstance(targets, torch.Tensor) and not targets.is_floating_point() and targets.numel() == logits.shape[0]:
        return targets.flatten().long()
    found = f"{targets.dtype} {list(targets.shape)}" if isinstance(targets, torch.Tensor) else type(targets).__name__
    raise TaskError(
        f"Distillation loss '{loss}' needs class numbers as targets, one for each of {logits.shape[0]} rows of logits; found"
        f" {found}. Use kd, which needs no targets."
    )
