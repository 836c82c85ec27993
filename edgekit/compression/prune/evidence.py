"""What criteria look at: the weights of each unit, and gradients on the task's training data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from edgekit.compression.prune.criteria import Criterion, UnitWeights
from edgekit.compression.prune.groups import Group, unit_places
from edgekit.compression.training.objective import TaskObjective, TrainingBatch
from edgekit.core.errors import DataError, PruningError

if TYPE_CHECKING:
    from edgekit.core.task import Task

__all__ = ["Gradients", "score", "training_gradients"]

Gradients = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
"""Parameter -> mean gradient and mean squared gradient over small batches."""

_SAMPLES, _PART = 512, 16  # gradients settle to a few percent; small parts make their squares say something


def training_gradients(net: nn.Module, task: Task, *, criterion: str) -> Gradients:
    """Gradients of the task's loss on the first of its training data, norms with their running statistics.

    Raises:
        DataError: The task has no training data.
    """
    if task.training is None:
        raise DataError(
            f"Criterion '{criterion}' needs gradients, and task '{task.name}' has no training data."
            " Give Task(..., training=...), or prune by weights alone (criterion = 'l2')."
        )
    task.seed_everything()
    objective = TaskObjective(task)
    sums: dict[str, tuple[torch.Tensor, torch.Tensor]] = {
        name: (torch.zeros_like(parameter), torch.zeros_like(parameter)) for name, parameter in net.named_parameters()
    }
    parts = 0
    net.eval()
    with torch.enable_grad():
        for batch in _parts(task):
            net.zero_grad(set_to_none=True)
            objective(net, batch)["loss"].backward()  # type: ignore[no-untyped-call]
            for name, parameter in net.named_parameters():
                if parameter.grad is not None:
                    sums[name][0].add_(parameter.grad)
                    sums[name][1].add_(parameter.grad.square())
            parts += 1
    net.zero_grad(set_to_none=True)
    return {name: (first / parts, second / parts) for name, (first, second) in sums.items()}


def _parts(task: Task) -> Iterable[TrainingBatch]:
    seen = 0
    for arrays, labels in task.training_batches():
        inputs = {name: torch.from_numpy(array) for name, array in arrays.items()}
        targets = torch.as_tensor(labels) if not isinstance(labels, Mapping | tuple | list | None) else labels
        count = next(iter(inputs.values())).shape[0]
        step = _PART if isinstance(targets, torch.Tensor) else count
        for start in range(0, count, step):
            some: Any = targets[start : start + step] if isinstance(targets, torch.Tensor) else targets
            yield TrainingBatch({name: part[start : start + step] for name, part in inputs.items()}, some, 0, 0)
            seen += step
            if seen >= _SAMPLES:
                return


def score(
    net: nn.Module, groups: Iterable[Group], criterion: Criterion, *, gradients: Gradients, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Group -> score of each unit ``[U]``, of all groups on one scale.

    Raises:
        PruningError: The criterion returned something else.
    """
    generator = torch.Generator().manual_seed(seed)
    scores = {}
    with torch.no_grad():
        for group in groups:
            found = criterion(_weights(net, group, gradients), generator=generator)
            if found.shape != (group.unit_count,) or not bool(torch.isfinite(found).all()):
                raise PruningError(
                    f"Criterion {type(criterion).__name__} returned {list(found.shape)} for the {group.unit_count} units of"
                    f" '{group.name}'; it must be one finite number a unit."
                )
            scores[group.name] = found if criterion.comparable else found / found.mean().clamp_min(1e-12)
    return scores


def _weights(net: nn.Module, group: Group, gradients: Gradients) -> list[UnitWeights]:
    found = []
    tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    for axis, every, units in unit_places(net, group):
        if axis.role == "statistic" or len(every) % group.unit_count:
            continue
        order = units.argsort(stable=True)

        def rows(tensor: torch.Tensor, places: torch.Tensor = every[order], at: int = axis.axis) -> torch.Tensor:
            return tensor.detach().movedim(at, 0)[places].reshape(group.unit_count, -1)  # used at once

        first, second = gradients.get(axis.tensor, (None, None))
        found.append(
            UnitWeights(
                axis.role,
                axis.tensor,
                rows(tensors[axis.tensor]),
                None if first is None else rows(first),
                None if second is None else rows(second),
            )
        )
    return found
