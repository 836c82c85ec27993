"""What the float graph does on the calibration data, streamed: memory does not grow with the sample count.

The float graph runs once per sample; only planned values are watched, after fusion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import GraphModule, Interpreter, Node

from edgekit.compression.capture import split_batches
from edgekit.core.errors import ContractError, DataError

if TYPE_CHECKING:
    from edgekit.compression.quantize.plan import Plan
    from edgekit.core.plugins import Progress
    from edgekit.core.task import Task
    from edgekit.core.tensors import Array

__all__ = ["ChannelStatistics", "Range", "Statistics", "calibrate", "channel_means", "program_inputs"]


@dataclasses.dataclass
class Range:
    """Smallest and largest value seen."""

    low: float = float("inf")
    high: float = float("-inf")

    def include(self, low: float, high: float) -> None:
        """Widen to hold ``[low, high]``."""
        self.low, self.high = min(self.low, low), max(self.high, high)


@dataclasses.dataclass
class ChannelStatistics:
    """Per channel of one tensor: smallest, largest and mean squared value, each ``[C]``, float64."""

    low: torch.Tensor
    high: torch.Tensor
    mean_square: torch.Tensor

    def scaled(self, factors: torch.Tensor) -> ChannelStatistics:
        """The statistics of the tensor with channel ``c`` multiplied by ``factors[c] > 0``."""
        return ChannelStatistics(self.low * factors, self.high * factors, self.mean_square * factors**2)


@dataclasses.dataclass
class Statistics:
    """What calibration found.

    Args:
        ranges: Planned value without a fixed range -> range of the whole tensor.
        channels: Watched node -> statistics of each of its channels.
        sample_count: Samples seen.
    """

    ranges: dict[Node, Range]
    channels: dict[Node, ChannelStatistics]
    sample_count: int = 0


class _Watcher(Interpreter):
    """Runs the graph, hands each watched node's value to ``note``, and frees values after their last use."""

    def __init__(self, module: GraphModule, note: Callable[[Node, torch.Tensor], None]) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.note = note

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, torch.Tensor):
            self.note(n, result)
        return result


def program_inputs(task: Task, example: Mapping[str, Array], *, sample_count: int) -> Iterator[list[torch.Tensor]]:
    """Arguments of one program call after another, from the calibration data; at most ``sample_count`` samples."""
    size = next(iter(example.values())).shape[0]
    for batch in islice(split_batches(task.calibration_batches(), example), -(-sample_count // size)):
        yield [torch.from_numpy(array) for array in batch.values()]


def calibrate(
    module: GraphModule,
    plan: Plan,
    *,
    watched_channels: Collection[Node] = (),
    task: Task,
    example: Mapping[str, Array],
    sample_count: int,
    progress: Progress,
) -> Statistics:
    """Range of every planned value without a fixed range, and channel statistics of some.

    Args:
        module: Canonical float graph.
        plan: Which values to watch.
        watched_channels: Nodes whose channels are watched one by one.
        task: Brings the calibration data.
        example: Example inputs; their batch is the program's.
        sample_count: Stop after this many samples.
        progress: Called after each batch with ``("calibrate", samples done, samples wanted or None)``.

    Raises:
        DataError: No calibration data, or bad data.
        ContractError: A value became NaN or infinite; names the layer.
    """
    found = Statistics({node: Range() for node, value in plan.values.items() if value.fixed_range is None}, {})

    def note(node: Node, value: torch.Tensor) -> None:
        if node in found.ranges:
            low, high = torch.aminmax(value)
            found.ranges[node].include(float(low), float(high))
        if node in watched_channels:
            _include_channels(found.channels, node, value)

    watcher = _Watcher(module, note)
    size = next(iter(example.values())).shape[0]
    batch_count = 0
    with torch.no_grad():
        for arguments in program_inputs(task, example, sample_count=sample_count):
            watcher.run(*arguments, enable_io_processing=False)
            batch_count += 1
            found.sample_count += size
            progress("calibrate", found.sample_count, sample_count)
    if batch_count == 0:
        raise DataError(f"Task '{task.name}': the calibration data is empty: it yielded no batch.")
    for statistics in found.channels.values():
        statistics.mean_square /= batch_count
    _check_finite(found.ranges, plan)
    return found


def channel_means(
    module: GraphModule, axes: Mapping[Node, int], samples: Sequence[Sequence[torch.Tensor]]
) -> dict[Node, torch.Tensor]:
    """Mean of each channel of some nodes over ``samples``: node -> ``[C]``, float64.

    Args:
        module: The float graph.
        axes: Node -> channel axis.
        samples: Arguments of each call.
    """
    sums: dict[Node, torch.Tensor] = {}

    def note(node: Node, value: torch.Tensor) -> None:
        if node in axes:
            others = [axis for axis in range(value.ndim) if axis != axes[node] % value.ndim]
            sums[node] = sums.get(node, torch.zeros(())) + value.double().mean(others)

    watcher = _Watcher(module, note)
    with torch.no_grad():
        for arguments in samples:
            watcher.run(*arguments, enable_io_processing=False)
    return {node: total / len(samples) for node, total in sums.items()}


def _include_channels(channels: dict[Node, ChannelStatistics], node: Node, value: torch.Tensor) -> None:
    axis = 1 if value.ndim > 2 else value.ndim - 1
    others = [at for at in range(value.ndim) if at != axis]
    wide = value.double()
    now = ChannelStatistics(wide.amin(others), wide.amax(others), (wide**2).mean(others))
    before = channels.get(node)
    if before is not None:
        now.low, now.high = torch.minimum(now.low, before.low), torch.maximum(now.high, before.high)
        now.mean_square += before.mean_square
    channels[node] = now


def _check_finite(ranges: Mapping[Node, Range], plan: Plan) -> None:
    for node, found in ranges.items():
        if not (abs(found.low) < float("inf") and abs(found.high) < float("inf")):
            value = plan.values[node]
            raise ContractError(
                f"Layer '{value.name}' ({value.op}) gives NaN or infinite values on the calibration data"
                f" (range {found.low} to {found.high})."
                f" Check the data's scaling, or keep the layer float (keep_float = ['{value.layer or value.name}'])."
            )
