"""Optimizers, their parameter groups, and how the rate moves."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from edgekit.core.errors import TaskError

if TYPE_CHECKING:
    from edgekit.core.training import Training

__all__ = ["Optimization", "rate_share"]

_MOMENTUM = 0.9  # Nesterov's, as usual for convolutional nets since arXiv:1512.03385


class Optimization:
    """An optimizer on a net's parameters and an objective's, its gradients clipped, its rate on a schedule.

    Args:
        model: Its parameters that require gradients are trained.
        extra: Parameters beside the net's.
        training: Optimizer, rate, decay, schedule.
        rates: Shell pattern of parameter names -> factor on the rate; what matches is not decayed.
        step_count: Steps of the whole training.

    Raises:
        TaskError: The net has nothing to train.
    """

    def __init__(
        self,
        model: nn.Module,
        extra: Iterable[nn.Parameter],
        training: Training,
        *,
        rates: Mapping[str, float],
        step_count: int,
    ) -> None:
        self.training, self.step_count = training, max(1, step_count)
        groups = parameter_groups(model, extra, training, rates=rates)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise TaskError("The net has no parameter that requires a gradient: there is nothing to train.")
        self.parameters: list[nn.Parameter] = [parameter for group in groups for parameter in group["params"]]
        self.optimizer = _make_optimizer(groups, training)
        self.rates = [float(group["lr"]) for group in self.optimizer.param_groups]

    def step(self, at: int, scaler: Any = None) -> None:
        """Clip the gradients, change the parameters, forget the gradients.

        Args:
            at: Steps done before.
            scaler: A ``GradScaler``, in fp16.
        """
        share = rate_share(self.training, at, self.step_count)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * share
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        if self.training.clip_norm:
            _clip(self.parameters, self.training.clip_norm)
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()
        self.optimizer.zero_grad()

    @property
    def rate(self) -> float:
        """Present rate of the first group."""
        return float(self.optimizer.param_groups[0]["lr"])


def _clip(parameters: Iterable[nn.Parameter], largest: float) -> None:
    """As ``clip_grad_norm_``, for tensors of one type on one device: a third of its time, which counts for a small net."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, (largest / (norm + 1e-6)).clamp_(max=1.0))


def rate_share(training: Training, step: int, step_count: int) -> float:
    """Share of the peak rate at a step (from 0).

    >>> from edgekit.core.training import Training
    >>> [round(rate_share(Training(warmup=0.2, schedule="linear"), step, 10), 2) for step in range(10)]
    [0.5, 1.0, 1.0, 0.88, 0.75, 0.62, 0.5, 0.38, 0.25, 0.12]
    """
    rising = round(training.warmup * step_count)
    if step < rising:
        return (step + 1) / rising
    done = min(1.0, (step - rising) / max(1, step_count - rising))
    if training.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1 - done if training.schedule == "linear" else 1.0


def parameter_groups(
    model: nn.Module, extra: Iterable[nn.Parameter], training: Training, *, rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Weights (decayed), biases and other vectors, and what has a rate of its own."""
    rate, decay = training.learning_rate, training.weight_decay
    special: dict[float, list[nn.Parameter]] = {}
    others = [parameter for parameter in extra if parameter.requires_grad]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factor = next((factor for pattern, factor in rates.items() if fnmatch.fnmatchcase(name, pattern)), None)
            (others if factor is None else special.setdefault(factor, [])).append(parameter)
    groups = [
        {"params": [p for p in others if p.ndim > 1], "lr": rate, "weight_decay": decay},
        {"params": [p for p in others if p.ndim <= 1], "lr": rate, "weight_decay": 0.0},
        *({"params": found, "lr": rate * factor, "weight_decay": 0.0} for factor, found in special.items()),
    ]
    return [group for group in groups if group["params"]]


def _make_optimizer(groups: list[dict[str, Any]], training: Training) -> torch.optim.Optimizer:
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    fused = True if devices <= {"cpu", "cuda"} else None  # one kernel for all parameters
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=_MOMENTUM, nesterov=True, fused=fused)
    return torch.optim.AdamW(groups, fused=fused)
