"""The task's metric on its validation data: what chooses the best epoch, and when to stop."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from edgekit.compression.training.objective import call_model
from edgekit.core.errors import DataError
from edgekit.core.evaluation import guarded

if TYPE_CHECKING:
    from edgekit.core.task import Task
    from edgekit.core.tensors import Array

__all__ = ["check_validation", "score_batches", "score_model"]


def check_validation(task: Task) -> None:
    """Make sure that there is data to choose by.

    Raises:
        DataError: There is none.
    """
    if task.validation is None:
        raise DataError(
            f"Task '{task.name}' has no validation data, but keep='best' and patience choose by it. Give"
            " Task(..., validation=...) (inputs, targets) batches that are neither training nor evaluation data."
        )


def score_model(model: nn.Module, task: Task) -> float:
    """Mean score of the task's metric over its validation data, the net in eval mode; its mode is restored.

    Raises:
        DataError: No validation data, bad data, or the metric fails.
    """
    total, count = score_batches(model, task, task.validation_batches())
    return total / max(1, count)


def score_batches(model: nn.Module, task: Task, batches: Iterable[tuple[dict[str, Array], Array | None]]) -> tuple[float, int]:
    """Sum of the scores and number of the samples of some ``(inputs, targets)`` batches."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    modes = {module: module.training for module in model.modules()}
    model.eval()
    total, count = 0.0, 0
    dense = copy.deepcopy(task.build_model()).to(device).eval() if task.metric.against_float else None
    try:
        with torch.no_grad():
            for arrays, targets in batches:
                inputs = {name: torch.tensor(array, device=device) for name, array in arrays.items()}
                scores = _scores(model, task, inputs, targets, dense)
                total, count = total + float(scores.sum()), count + len(scores)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return total, count


def _scores(
    model: nn.Module, task: Task, inputs: dict[str, torch.Tensor], targets: Array | None, dense: nn.Module | None
) -> Array:
    metric = task.metric
    outputs = _as_arrays(call_model(model, task, inputs))
    if dense is not None:
        if metric.predict is None:
            raise DataError(f"Metric '{metric.name}' compares with the float model's decisions, but has no predict function.")
        predict, float_outputs = metric.predict, _as_arrays(call_model(dense, task, inputs))
        targets = guarded(metric, lambda: predict(float_outputs))
    return guarded(metric, lambda: metric.scores(outputs, targets))


def _as_arrays(outputs: Any) -> dict[str, Array]:
    """Output name -> array, named as the captured program's outputs are."""
    if isinstance(outputs, torch.Tensor):
        return {"output": outputs.float().cpu().numpy() if outputs.is_floating_point() else outputs.cpu().numpy()}
    named = outputs.items() if isinstance(outputs, Mapping) else ((f"output_{at}", part) for at, part in enumerate(outputs))
    return {str(name): np.asarray(part.cpu()) for name, part in named}
