"""Losses between layers: the features themselves, and where they are large."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
import torch
from torch import nn
from torch.nn import functional

from edgekit.compression.distill.loss import Answers, Comparison, LayerLoss
from edgekit.core.errors import TaskError

__all__ = ["AttentionTransfer", "FeatureMatch"]

_POOLS: dict[int, Any] = {1: functional.adaptive_avg_pool1d, 2: functional.adaptive_avg_pool2d, 3: functional.adaptive_avg_pool3d}


class FeatureMatch(LayerLoss):
    """Hints (Romero et al., "FitNets: hints for thin deep nets", arXiv:1412.6550).

    ``mean((adapter(student) - teacher)^2) / 2`` for each pair of layers, added up. Where widths differ, the adapter is a
    1 x 1 convolution (a linear layer over the channels) that is trained along and thrown away; where sizes differ, the larger
    map is averaged down. Channels stand on axis 1, or on the last of three axes where the shapes differ only there (tokens
    ``[N, L, C]``).

    >>> FeatureMatch({"layer3": "layer3"}).layers
    {'layer3': 'layer3'}
    """

    kind: Literal["feature-match"] = "feature-match"  # pyright: ignore[reportIncompatibleVariableOverride]  # fields are frozen

    def build(self, student: Answers, teacher: Answers) -> nn.Module:
        """The module that compares, with adapters where widths differ."""
        return _FeatureMatch(self, student, teacher)


class _FeatureMatch(nn.Module):
    def __init__(self, loss: FeatureMatch, student: Answers, teacher: Answers) -> None:
        super().__init__()
        self.pairs = loss.layer_names
        self.adapters = nn.ModuleList(
            _Adapter(student.features[ours], teacher.features[theirs], pair=(ours, theirs)) for ours, theirs in self.pairs
        )

    def forward(self, comparison: Comparison) -> torch.Tensor:
        """Scalar."""
        total = torch.zeros((), device=next(iter(comparison.student.outputs.values())).device)
        for (ours, theirs), adapter in zip(self.pairs, self.adapters, strict=True):
            student, teacher = comparison.student.features[ours], comparison.teacher.features[theirs]
            if adapter.axis == 1:
                student, teacher = _to_same_size(student, teacher)
            total = total + 0.5 * functional.mse_loss(adapter(student).float(), teacher.float())
        return total


class _Adapter(nn.Module):
    """Student's channels -> teacher's channels; nothing where there are equally many."""

    def __init__(self, student: torch.Tensor, teacher: torch.Tensor, *, pair: tuple[str, str]) -> None:
        super().__init__()
        if student.ndim != teacher.ndim or student.ndim < 2:
            raise TaskError(
                f"Distillation loss 'feature-match': layer '{pair[0]}' of the student returns {list(student.shape)}, layer"
                f" '{pair[1]}' of the teacher {list(teacher.shape)}; both need the same number of axes, at least [N, C]."
            )
        tokens = student.ndim == 3 and student.shape[:-1] == teacher.shape[:-1]
        self.axis = -1 if tokens and student.shape != teacher.shape else 1
        widths = student.shape[self.axis], teacher.shape[self.axis]
        self.linear = nn.Linear(*widths) if widths[0] != widths[1] else None

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``[N, C, ...]`` -> ``[N, C', ...]``."""
        if self.linear is None:
            return features
        adapted: torch.Tensor = self.linear(features.movedim(self.axis, -1))
        return adapted.movedim(-1, self.axis)


class AttentionTransfer(LayerLoss):
    """Attention maps (Zagoruyko & Komodakis, "Paying more attention to attention", arXiv:1612.03928).

    The map of a layer is ``sum over channels of |features|^power``, flattened over positions and divided by its length; the
    loss is the squared distance between student's and teacher's, averaged over samples, added up over the pairs. Needs no
    adapter, whatever the widths. (The authors' code averages over positions, too, and multiplies by 1000 instead.)

    Args:
        power: Exponent of the features.

    >>> AttentionTransfer({"stage2": "layer2"}, power=2).power
    2.0
    """

    kind: Literal["attention-transfer"] = "attention-transfer"  # pyright: ignore[reportIncompatibleVariableOverride]
    power: float = pydantic.Field(default=2.0, gt=0)

    def build(self, student: Answers, teacher: Answers) -> nn.Module:
        """The module that compares.

        Raises:
            TaskError: Features have no positions, or not the same number of axes.
        """
        for ours, theirs in self.layer_names:
            shapes = list(student.features[ours].shape), list(teacher.features[theirs].shape)
            if len(shapes[0]) != len(shapes[1]) or not 3 <= len(shapes[0]) <= 5:
                raise TaskError(
                    f"Distillation loss 'attention-transfer' compares maps [N, C, positions ...]: layer '{ours}' of the student"
                    f" returns {shapes[0]}, layer '{theirs}' of the teacher {shapes[1]}. Name layers before the pooling."
                )
        return _AttentionTransfer(self)


class _AttentionTransfer(nn.Module):
    def __init__(self, loss: AttentionTransfer) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, comparison: Comparison) -> torch.Tensor:
        """Scalar."""
        total = torch.zeros((), device=next(iter(comparison.student.outputs.values())).device)
        for ours, theirs in self.loss.layer_names:
            student, teacher = _to_same_size(comparison.student.features[ours], comparison.teacher.features[theirs])
            total = total + (self._map(student) - self._map(teacher)).square().sum(1).mean()
        return total

    def _map(self, features: torch.Tensor) -> torch.Tensor:
        """``[N, C, ...]`` -> ``[N, positions]`` of length 1."""
        return functional.normalize(features.float().abs().pow(self.loss.power).sum(1).flatten(1), dim=1)


def _to_same_size(student: torch.Tensor, teacher: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Average the larger of two maps ``[N, C, ...]`` down to the smaller's positions."""
    if student.shape[2:] == teacher.shape[2:]:
        return student, teacher
    sizes = [min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True)]
    pool = _POOLS[len(sizes)]
    return pool(student, sizes), pool(teacher, sizes)
