"""What a pruned net is trained for: the task's own loss, and to answer as the net did before it was pruned."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from edgekit.compression.training.objective import TaskObjective, TrainingBatch, call_model

if TYPE_CHECKING:
    from edgekit.core.task import Task

__all__ = ["Recovery"]

TEMPERATURE = 2.0
"""Of the soft targets; 2 to 4 are what Hinton et al. (arXiv:1503.02531) use on nets of this kind."""


class Recovery(TaskObjective):
    """The task's loss and the distance to the dense net's answers.

    The distance is the divergence of soft targets (Hinton et al., arXiv:1503.02531) where the net is a classifier: one output
    ``[N, C]`` and class numbers ``[N]``; of other outputs it is the squared error over the dense answers' variance.

    Args:
        task: With its loss.
        dense: The net before it was pruned.
        weight: Of the distance, in [0, 1]; the task's loss has the rest.
    """

    def __init__(self, task: Task, dense: nn.Module, *, weight: float) -> None:
        super().__init__(task)
        self.dense = copy.deepcopy(dense).eval().requires_grad_(requires_grad=False)
        self.weight = weight

    def __call__(self, model: nn.Module, batch: TrainingBatch) -> dict[str, torch.Tensor]:
        """``{"loss": ..., "task": ..., "dense": ...}``."""
        outputs = call_model(model, self.task, batch.inputs)
        with torch.no_grad():
            expected = call_model(self.dense, self.task, batch.inputs)
        own = self.of(outputs, batch.targets)
        distance = _distance(outputs, expected, batch.targets)
        return {"loss": (1 - self.weight) * own + self.weight * distance, "task": own, "dense": distance}

    def digest(self) -> str:
        """The task's loss and the weight; the dense net is the same wherever the job is."""
        return f"{super().digest()}, dense {self.weight:g}"

    def to(self, device: torch.device, /) -> None:
        """Move the dense net too."""
        super().to(device)
        self.dense.to(device)


def _distance(outputs: Any, expected: Any, targets: Any) -> torch.Tensor:
    if isinstance(outputs, torch.Tensor) and _are_classes(outputs, targets):
        found, wanted = (outputs / TEMPERATURE).log_softmax(1), (expected / TEMPERATURE).log_softmax(1)
        return functional.kl_div(found, wanted, reduction="batchmean", log_target=True) * TEMPERATURE**2
    pairs = [(ours, theirs) for ours, theirs in zip(_flat(outputs), _flat(expected), strict=True) if ours.is_floating_point()]
    errors = [(ours - theirs).square().mean() / theirs.var(correction=0).clamp_min(1e-12) for ours, theirs in pairs]
    return torch.stack(errors).mean()


def _are_classes(outputs: torch.Tensor, targets: Any) -> bool:
    if outputs.dim() != 2 or outputs.shape[1] < 2 or not isinstance(targets, torch.Tensor):
        return False
    return not targets.is_floating_point() and targets.shape == outputs.shape[:1]


def _flat(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    parts: Iterable[Any] = value.values() if isinstance(value, Mapping) else value
    return [tensor for part in parts for tensor in _flat(part)]
