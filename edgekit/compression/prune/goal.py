"""Find how far to prune for a goal in MACs, parameters, size or channels: by counting, nothing is cut."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from edgekit.compression.prune.cost import CostModel
from edgekit.compression.prune.ratios import Allocation
from edgekit.core.errors import PruningError
from edgekit.core.pruning import Prune

__all__ = ["reach", "reachable"]

_HALVINGS = 30


def reach(allocation: Allocation, model: CostModel, *, goal: str, ratio: float, step: Prune, stays: str) -> dict[str, int]:
    """Units to remove from each group so that at least ``ratio`` of the goal's quantity goes, and as little more as can be.

    Args:
        allocation: Turns a level into numbers of units.
        model: Counts.
        goal: ``macs``, ``parameters``, ``size`` or ``channels``.
        ratio: Share that shall go.
        step: For what to say where the goal cannot be reached.
        stays: Which layers' channels stay, and why, for the same.

    Raises:
        PruningError: Not even all that may go is enough.
    """
    dense = model.cost({}).of(goal)
    bound = (1 - ratio) * dense
    if model.cost(allocation.removed(1.0)).of(goal) > bound + 0.5:
        raise PruningError(_unreachable(allocation, model, goal=goal, step=step, ratio=ratio, stays=stays))
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if model.cost(allocation.removed(middle)).of(goal) <= bound + 0.5:
            high = middle
        else:
            low = middle
    # Alignment takes groups in steps: come to the bound from both sides, and keep what overshoots least.
    starts = (allocation.removed(high), _take_more(allocation, model, allocation.removed(low), goal=goal, bound=bound))
    found = [_give_back(allocation, model, start, goal=goal, bound=bound) for start in starts]
    return max(found, key=lambda removed: model.cost(removed).of(goal))


def _take_more(
    allocation: Allocation, model: CostModel, removed: Mapping[str, int], *, goal: str, bound: float
) -> dict[str, int]:
    """Take single steps of what is worth least for what it saves, until one meets the bound; of several the smallest."""
    best = dict(removed)
    while (present := model.cost(best).of(goal)) > bound + 0.5:
        options = []
        for group in allocation.groups:
            more = best[group.name] + allocation.step(group)
            if more <= allocation.most(group):
                saved = present - model.cost({**best, group.name: more}).of(goal)
                lost = float(allocation.scores[group.name].sort().values[best[group.name] : more].sum())
                enough = present - saved <= bound + 0.5
                options.append((not enough, saved if enough else lost / max(saved, 1e-9), group.name, more))
        if not options:
            return allocation.removed(1.0)
        _, _, name, more = min(options)
        best[name] = more
    return best


def _give_back(
    allocation: Allocation, model: CostModel, removed: Mapping[str, int], *, goal: str, bound: float
) -> dict[str, int]:
    """Put back what the goal does not need: alignment takes groups in steps, and the last one may overshoot."""
    best = dict(removed)
    for group in sorted(allocation.groups, key=lambda group: -_worth(allocation, group.name, best[group.name])):
        step = allocation.step(group)
        while best[group.name] >= step:
            trial = {**best, group.name: best[group.name] - step}
            if model.cost(trial).of(goal) > bound + 0.5:
                break
            best = trial
    return best


def _worth(allocation: Allocation, name: str, count: int) -> float:
    """Score of the most valuable unit that goes."""
    return float(allocation.scores[name].sort().values[count - 1]) if count else 0.0


def reachable(allocation: Allocation, model: CostModel, *, goal: str) -> float:
    """The largest share of the goal's quantity that can go."""
    return 1 - model.cost(allocation.removed(1.0)).of(goal) / model.cost({}).of(goal)


def _unreachable(allocation: Allocation, model: CostModel, *, goal: str, step: Prune, ratio: float, stays: str) -> str:
    most = reachable(allocation, model, goal=goal)
    wider = reachable(dataclasses.replace(allocation, largest_ratio=0.999), model, goal=goal)
    finer = reachable(dataclasses.replace(allocation, align=1), model, goal=goal)
    binding = []
    if wider > most + 0.005:
        binding.append(f"largest_ratio={step.largest_ratio:g} (without it: {wider:.0%})")
    if finer > most + 0.005:
        binding.append(f"align={allocation.align} (with align=1: {finer:.0%})")
    if step.keep:
        binding.append(f"keep={list(step.keep)}")
    if stays:
        binding.append(f"channels that stay ({stays.removesuffix('.')})")
    what = {"macs": "MACs", "size": "weight bytes"}.get(goal, goal)
    return (
        f"Pruning {ratio:.0%} of the {what} cannot be reached: at most {most:.1%} can go. What binds:"
        f" {'; '.join(binding) or 'every layer keeps at least one channel'}. Ask for less, or relax that."
    )
