"""A net made ready for pruning: its groups proven, its units scored, its cost known; any ratio of it can then be cut at once."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from edgekit.compression.prune.align import wanted_multiple
from edgekit.compression.prune.cost import Cost, CostModel, cost_model
from edgekit.compression.prune.evidence import score, training_gradients
from edgekit.compression.prune.goal import reach
from edgekit.compression.prune.graph import Call, find_groups
from edgekit.compression.prune.groups import Group, cut
from edgekit.compression.prune.layers import side_width
from edgekit.compression.prune.proof import prove
from edgekit.compression.prune.ratios import Allocation, competing, even, sensitive
from edgekit.compression.prune.stand_ins import open_attention
from edgekit.compression.training.objective import call_model
from edgekit.core import entry_points
from edgekit.core.errors import PruningError

if TYPE_CHECKING:
    from edgekit.core.plugins import Progress
    from edgekit.core.pruning import Prune
    from edgekit.core.task import Task

__all__ = ["Structure", "prepare", "sample_call"]

_PROOF_SAMPLES, _ERROR_SAMPLES = 2, 64


@dataclasses.dataclass(frozen=True)
class Structure:
    """What can be cut from a net, and how.

    Args:
        net: The net, attention opened; not changed by anything here.
        groups: What can go.
        refused: Layer -> why its channels stay.
        model: Counts MACs and parameters.
        allocation: Which units go at which level.
        step: The configuration.
    """

    net: nn.Module
    groups: Sequence[Group]
    refused: Mapping[str, str]
    model: CostModel
    allocation: Allocation
    step: Prune

    @property
    def goal(self) -> str:
        """What a ratio is a share of."""
        return self.step.goal

    def removed(self, ratio: float, *, align: int | None = None) -> dict[str, int]:
        """Group -> units that go so that ``ratio`` of the goal's quantity does.

        Raises:
            PruningError: That much cannot go.
        """
        allocation = self.allocation if align is None else dataclasses.replace(self.allocation, align=align)
        stays = describe_refusals(self.refused, most=3) if self.refused else ""
        return reach(allocation, self.model, goal=self.goal, ratio=ratio, step=self.step, stays=stays)

    def cost(self, removed: Mapping[str, int] | None = None) -> Cost:
        """What the net costs with so many units removed."""
        return self.model.cost(removed or {})

    def without(self, removed: Mapping[str, int]) -> nn.Module:
        """A copy of the net without the units that are worth least."""
        small = copy.deepcopy(self.net)
        cut(small, self.groups, self.allocation.plan(removed))
        return small.eval()

    def widths(self) -> dict[str, int]:
        """Output channels of each layer that has weights and whose channels are in a group."""
        found = {}
        for group in self.groups:
            for member in group.members:
                module = dict(self.net.named_modules()).get(member.name)
                if member.side == "out" and module is not None and not _is_norm(module):
                    found[member.name] = side_width(module, "out")
        return found


def _is_norm(module: nn.Module) -> bool:
    return "Norm" in type(module).__name__ or isinstance(module, nn.PReLU)


def prepare(net: nn.Module, *, task: Task, step: Prune, progress: Progress) -> Structure:
    """Find, prove and score what can go.

    Args:
        net: In eval mode; not changed.
        task: Brings inputs, and training data where the criterion needs it.
        step: Criterion, scope, what is kept.
        progress: Called as the work advances.

    Raises:
        PruningError: Nothing can be pruned.
        UsageError: The criterion is unknown, ``keep`` matches nothing, or data is missing.
    """
    criterion = entry_points.load("criteria", step.criterion)()
    net = copy.deepcopy(net).eval()
    open_attention(net)
    progress("prune: channels that depend on each other", 0, None)
    call = sample_call(task, count=_PROOF_SAMPLES)
    found = prove(net, find_groups(net, call, keep=step.keep), call)
    if not found.groups:
        raise PruningError(f"Nothing in task '{task.name}' can be pruned. {describe_refusals(found.refused)}")
    progress(f"prune: {step.criterion} of {len(found.groups)} groups", 0, None)
    wants_gradients = getattr(criterion, "needs", "") == "gradients"
    gradients = training_gradients(net, task, criterion=step.criterion) if wants_gradients else {}
    scores = score(net, found.groups, criterion, gradients=gradients, seed=step.training.seed)
    model = cost_model(net, found.groups, call)
    if step.scope == "sensitivity":
        with torch.no_grad():
            shares = sensitive(net, found.groups, scores, sample_call(task, count=_ERROR_SAMPLES))
    elif step.scope == "layer" or step.goal == "channels":
        shares = even(found.groups)
    else:
        shares = competing(found.groups, scores)
    align = wanted_multiple(step.target) if step.align is None else step.align
    allocation = Allocation(found.groups, scores, shares, align, step.largest_ratio)
    return Structure(net, found.groups, found.refused, model, allocation, step)


def describe_refusals(refused: Mapping[str, str], *, most: int = 6) -> str:
    """``'layer': why; ...`` for an error message; layers with one reason stand together."""
    layers: dict[str, list[str]] = {}
    for name, reason in refused.items():
        layers.setdefault(reason, []).append(name)
    rows = [f"{', '.join(names[:3])}{' …' if len(names) > 3 else ''}: {reason}" for reason, names in layers.items()]
    return "; ".join(rows[:most]) + (f"; and {len(rows) - most} more reasons" if len(rows) > most else "") + "."


def sample_call(task: Task, *, count: int) -> Call:
    """Something that runs a net on the first ``count`` calibration samples; on random numbers where there are none."""
    inputs = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in _samples(task, count).items()}

    def call(net: nn.Module) -> list[torch.Tensor]:
        return _flat(call_model(net, task, inputs))

    return call


def _samples(task: Task, count: int) -> dict[str, Any]:
    example = task.named_inputs(task.example_inputs)
    if task.calibration is None:
        generator = np.random.default_rng(0)
        return {
            name: generator.standard_normal((max(2, len(array)), *array.shape[1:]), dtype=np.float32)
            if array.dtype.kind == "f"
            else np.repeat(array[:1], max(2, len(array)), axis=0)
            for name, array in example.items()
        }
    found: dict[str, list[Any]] = {name: [] for name in example}
    for batch in task.calibration_batches():
        for name, array in batch.items():
            found[name].append(array)
        if sum(map(len, next(iter(found.values())))) >= count:
            break
    return {name: np.concatenate(arrays)[:count] for name, arrays in found.items()}


def _flat(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    parts: Iterable[Any] = value.values() if isinstance(value, Mapping) else value
    return [tensor for part in parts for tensor in _flat(part)]
