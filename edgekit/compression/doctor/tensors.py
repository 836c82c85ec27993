"""What the calibration samples make every quantized tensor do: ranges, how they settle, outliers, dead channels."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.fx import Node

from edgekit.compression.quantize.calibrate.channels import ChannelStatistics, channel_axis, channel_statistics
from edgekit.compression.quantize.calibrate.clipping import percentile
from edgekit.compression.quantize.calibrate.estimate import Histogram, Observer
from edgekit.compression.quantize.calibrate.observe import make_observers, observe
from edgekit.core.calibration import CurvePoint, TensorRange

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch.fx import GraphModule

    from edgekit.compression.quantize.plan import Plan
    from edgekit.core.plugins import Progress
    from edgekit.core.recipe import Estimator
    from edgekit.core.task import Task
    from edgekit.core.tensors import Array

__all__ = ["TOLERANCE", "Convergence", "examine_tensors"]

TOLERANCE = 0.05
"""A scale within 5 % of its final value: the error it adds is far below that of rounding."""
_USUAL_SHARE = 0.999
_LATEST_SHARE = 0.8  # what still moves in the last fifth of the samples would move on if there were more
_GROWTH = 1.2  # between one look at an expensive estimate and the next


@dataclasses.dataclass
class Convergence:
    """How the scales settle.

    Args:
        stable_after: Samples after which no scale leaves the tolerance any more; None: not stable yet.
        settled_after: The same for each value.
        curve: Distance from the final scales.
        sample_count: Samples seen.
    """

    stable_after: int | None
    settled_after: dict[Node, int]
    curve: tuple[CurvePoint, ...]
    sample_count: int


class _Profile:
    """Histogram of a tensor, its largest magnitude in each call, and its channels' extremes."""

    def __init__(self) -> None:
        self.histogram = Histogram(percentile)
        self.magnitudes: list[float] = []
        self.channels: ChannelStatistics | None = None

    def note(self, node: Node, value: torch.Tensor) -> None:
        self.histogram.update(value.reshape(1, -1))
        self.magnitudes.append(float(value.abs().max()))
        if channel_axis(node) is None:
            return
        now = channel_statistics(node, value)
        if self.channels is not None:
            now.low, now.high = torch.minimum(now.low, self.channels.low), torch.maximum(now.high, self.channels.high)
        self.channels = now

    @property
    def usual(self) -> float:
        """Upper edge of the bin below which 99.9 % of the magnitudes lie, at most the largest of them."""
        counts = self.histogram.counts.numpy()
        half = len(counts) // 2
        magnitudes = np.cumsum(counts[half:] + counts[half - 1 :: -1])
        edge = float(np.argmax(magnitudes >= _USUAL_SHARE * magnitudes[-1]) + 1) * self.histogram.width
        return min(edge, max(self.magnitudes))


def examine_tensors(
    module: GraphModule,
    plan: Plan,
    *,
    task: Task,
    example: Mapping[str, Array],
    sample_count: int,
    estimator: Estimator,
    progress: Progress,
) -> tuple[tuple[TensorRange, ...], Convergence]:
    """Run the float graph on the calibration data and watch every planned value without a fixed range.

    Args:
        module: Canonical float graph.
        plan: Which values there are.
        task: Brings the calibration data.
        example: Example inputs; their batch is the program's.
        sample_count: Stop after so many samples.
        estimator: How ranges are estimated.
        progress: Called after each batch.

    Raises:
        DataError: No calibration data, or bad data.
        ContractError: A value became NaN or infinite; names the layer.
    """
    observers = make_observers(module, plan, estimator)
    profiles = {node: _Profile() for node in observers}
    scales: dict[int, dict[int, float]] = {}
    is_cheap = estimator in {"min-max", "moving-average"}
    count, looked_at = 0, 0

    def note(node: Node, value: torch.Tensor) -> None:
        if node in profiles and bool(torch.isfinite(value).all()):
            profiles[node].note(node, value)

    for count in observe(module, plan, observers, note, task=task, example=example, sample_count=sample_count):
        if is_cheap or count >= _GROWTH * looked_at:
            scales[count], looked_at = _group_widths(plan, observers), count
        progress("calibrate", count, sample_count)
    scales[count] = _group_widths(plan, observers)
    found = _converge(plan, observers, scales)
    size = next(iter(example.values())).shape[0]
    ranges = tuple(_describe(plan, node, observer, profiles[node], found, size) for node, observer in observers.items())
    return ranges, found


def _group_widths(plan: Plan, observers: Mapping[Node, Observer]) -> dict[int, float]:
    """Width of every grid (zero included) as estimated so far: it is 255 times the scale."""
    ends: dict[int, tuple[float, float]] = {}
    for node, observer in observers.items():
        group, found = plan.values[node].group, observer.range()
        low, high = ends.get(group, (0.0, 0.0))
        ends[group] = (min(low, found.low), max(high, found.high))
    return {group: high - low for group, (low, high) in ends.items()}


def _converge(plan: Plan, observers: Mapping[Node, Observer], scales: Mapping[int, Mapping[int, float]]) -> Convergence:
    last = max(scales)
    names: dict[int, str] = {}
    for node in observers:
        names.setdefault(plan.values[node].group, plan.values[node].name)
    curve, settled = [], dict.fromkeys(names, last)
    is_moving: set[int] = set()
    for count in sorted(scales, reverse=True):
        changes = {group: _change(scales[count][group], final) for group, final in scales[last].items()}
        is_moving |= {group for group, change in changes.items() if change > TOLERANCE}
        settled |= dict.fromkeys(set(names) - is_moving, count)
        worst = max(changes, key=lambda group: changes[group])
        median = float(np.median(list(changes.values())))
        curve.append(CurvePoint(sample_count=count, largest_change=changes[worst], median_change=median, tensor=names[worst]))
    stable_after = max(settled.values())
    return Convergence(
        stable_after=stable_after if stable_after <= _LATEST_SHARE * last else None,
        settled_after={node: settled[plan.values[node].group] for node in observers},
        curve=tuple(reversed(curve)),
        sample_count=last,
    )


def _change(width: float, final: float) -> float:
    return abs(width / final - 1.0) if final else 0.0


def _describe(plan: Plan, node: Node, observer: Observer, profile: _Profile, found: Convergence, size: int) -> TensorRange:
    value, chosen = plan.values[node], observer.range()
    widest = int(np.argmax(profile.magnitudes))
    others: Sequence[float] = [*profile.magnitudes[:widest], *profile.magnitudes[widest + 1 :]]
    channels = profile.channels
    dead = [] if channels is None else torch.nonzero(channels.low == channels.high).reshape(-1).tolist()
    return TensorRange(
        name=value.name,
        op=value.op,
        low=chosen.low,
        high=chosen.high,
        smallest=observer.extremes.low,
        largest=observer.extremes.high,
        usual=profile.usual,
        widest_sample=widest * size,
        without_widest=max(others, default=0.0),
        settled_after=found.settled_after[node],
        channel_count=None if channels is None else channels.low.numel(),
        dead_channels=tuple(int(channel) for channel in dead),
    )
