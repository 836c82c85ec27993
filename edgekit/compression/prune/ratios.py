"""How much of each group goes, as one level from nothing (0) to all that may go (1) that a goal is searched on.

Three scopes: channels compete in the whole net, each layer loses the same share, or each loses what it bears when it is pruned
alone (as in Han et al., arXiv:1506.02626, and Li et al., arXiv:1608.08710, section 3.2).
"""

from __future__ import annotations

import bisect
import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from edgekit.compression.prune.align import aligned, multiple_for
from edgekit.compression.prune.graph import Call
from edgekit.compression.prune.groups import Group, Plan, cut

__all__ = ["Allocation", "Shares", "competing", "even", "output_error", "sensitive"]

Shares = Callable[[float], Mapping[str, float]]
"""Level in [0, 1] -> share of each group's units that goes; grows with the level."""

_PROBED = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)


@dataclasses.dataclass(frozen=True)
class Allocation:
    """Turns a level into numbers of units.

    Args:
        groups: What is pruned.
        scores: Group -> score of each unit.
        shares: The scope.
        align: Channels left are a multiple of this.
        largest_ratio: No group loses more.
    """

    groups: Sequence[Group]
    scores: Mapping[str, torch.Tensor]
    shares: Shares
    align: int
    largest_ratio: float

    def most(self, group: Group) -> int:
        """How many units of a group may go."""
        return min(group.unit_count - 1, math.floor(self.largest_ratio * group.unit_count + 1e-9))

    def step(self, group: Group) -> int:
        """By how many units its width changes."""
        return max(1, multiple_for(group.width, self.align) // group.unit_width)

    def removed(self, level: float) -> dict[str, int]:
        """Group -> how many units go."""
        shares = self.shares(level)
        return {
            group.name: aligned(
                round(shares[group.name] * group.unit_count),
                units=group.unit_count,
                unit_width=group.unit_width,
                multiple=self.align,
                most=self.most(group),
            )
            for group in self.groups
        }

    def plan(self, removed: Mapping[str, int]) -> Plan:
        """The units that go: those that are worth least."""
        return {name: self.scores[name].argsort(stable=True)[:count].sort().values for name, count in removed.items() if count}


def even(groups: Sequence[Group]) -> Shares:
    """Each group loses the same share."""
    return lambda level: {group.name: level for group in groups}


def competing(groups: Sequence[Group], scores: Mapping[str, torch.Tensor]) -> Shares:
    """The units of all groups compete: what is worth least goes first."""
    values = {group.name: sorted(scores[group.name].tolist()) for group in groups}
    every = sorted(itertools.chain.from_iterable(values.values()))

    def shares(level: float) -> dict[str, float]:
        if level <= 0:
            return dict.fromkeys(values, 0.0)
        limit = every[min(len(every) - 1, round(level * len(every)))] if level < 1 else math.inf
        return {name: bisect.bisect_left(row, limit) / len(row) for name, row in values.items()}

    return shares


def sensitive(net: nn.Module, groups: Sequence[Group], scores: Mapping[str, torch.Tensor], call: Call) -> Shares:
    """Each group loses the share it bears: the error of the outputs when it alone is pruned stays below one bound for all."""
    expected = call(net)
    curves: dict[str, list[float]] = {}
    for group in groups:
        order, errors = scores[group.name].argsort(stable=True), [0.0]
        for share in _PROBED:
            small = copy.deepcopy(net)
            cut(small, [group], {group.name: order[: max(1, min(group.unit_count - 1, round(share * group.unit_count)))]})
            errors.append(max(errors[-1], output_error(call(small), expected)))
        curves[group.name] = [*errors, errors[-1] * 2 + 1e-9]
    points = (0.0, *_PROBED, 1.0)
    largest = max(errors[-1] for errors in curves.values())
    smallest = min((error for errors in curves.values() for error in errors if error > 0), default=largest)

    def bearable(errors: Sequence[float], bound: float) -> float:
        at = bisect.bisect_right(errors, bound)
        if at >= len(points):
            return 1.0
        low, high = errors[at - 1], errors[at]
        return points[at - 1] + (points[at] - points[at - 1]) * (bound - low) / max(high - low, 1e-30)

    def shares(level: float) -> dict[str, float]:
        if level <= 0:
            return dict.fromkeys(curves, 0.0)
        bound = smallest * 0.01 * (largest / (smallest * 0.01)) ** level
        return {name: bearable(errors, bound) for name, errors in curves.items()}

    return shares


@torch.no_grad()
def output_error(answers: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """Kullback-Leibler divergence of class logits ``[N, C]``, in nats; relative squared error of other outputs."""
    total = 0.0
    for answer, right in zip(answers, expected, strict=True):
        if not right.is_floating_point():
            continue
        if right.dim() == 2 and right.shape[1] > 1:
            wanted, found = right.log_softmax(1), answer.log_softmax(1)
            total += float((wanted.exp() * (wanted - found)).sum(1).mean())
        else:
            total += float((answer - right).square().mean() / right.square().mean().clamp_min(1e-20))
    return total
