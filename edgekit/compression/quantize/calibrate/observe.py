"""What the float graph does on the calibration data, streamed: memory does not grow with the sample count.

The float graph runs once per sample; only planned values are watched, after fusion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import GraphModule, Interpreter, Node

from edgekit.compression.capture import split_batches
from edgekit.compression.quantize.calibrate.channels import ChannelStatistics, channel_statistics
from edgekit.compression.quantize.calibrate.estimate import Observer, Range, make_observer
from edgekit.core.errors import ContractError, DataError

if TYPE_CHECKING:
    from edgekit.compression.quantize.plan import Plan, Value
    from edgekit.core.plugins import Progress
    from edgekit.core.recipe import Estimator
    from edgekit.core.task import Task
    from edgekit.core.tensors import Array

__all__ = [
    "ChannelStatistics",
    "Range",
    "Statistics",
    "calibrate",
    "make_observers",
    "observe",
    "program_inputs",
    "unclipped_values",
]


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
    estimator: Estimator = "min-max",
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
        estimator: How ranges are estimated; what leads to an output keeps its extremes in any case.
        progress: Called after each batch with ``("calibrate", samples done, samples wanted or None)``.

    Raises:
        DataError: No calibration data, or bad data.
        ContractError: A value became NaN or infinite, or is always zero; names the layer.
    """
    observers = make_observers(module, plan, estimator)
    found = Statistics({}, {})
    watched = set(watched_channels)

    def note(node: Node, value: torch.Tensor) -> None:
        if node in watched:
            _include_channels(found.channels, node, value)

    for found.sample_count in observe(module, plan, observers, note, task=task, example=example, sample_count=sample_count):
        progress("calibrate", found.sample_count, sample_count)
    size = next(iter(example.values())).shape[0]
    for statistics in found.channels.values():
        statistics.mean_square /= found.sample_count / size
    _check_not_zero(plan, observers, task)
    found.ranges = {node: observer.range() for node, observer in observers.items()}
    return found


def make_observers(module: GraphModule, plan: Plan, estimator: Estimator) -> dict[Node, Observer]:
    """An observer for each planned value without a fixed range; 16 bits have steps enough for the extremes."""
    exact = unclipped_values(module, plan)
    return {
        node: make_observer("min-max" if node in exact or value.dtype == "int16" else estimator)
        for node, value in plan.values.items()
        if value.fixed_range is None
    }


def observe(
    module: GraphModule,
    plan: Plan,
    observers: Mapping[Node, Observer],
    note: Callable[[Node, torch.Tensor], None],
    *,
    task: Task,
    example: Mapping[str, Array],
    sample_count: int,
) -> Iterator[int]:
    """Run the graph on the calibration data and show ``observers`` (and ``note``) what they watch.

    Yields:
        Samples done, after each call of the program.

    Raises:
        DataError: No calibration data, or bad data.
        ContractError: A value became NaN or infinite; names the layer.
    """
    size = next(iter(example.values())).shape[0]
    count = 0
    broken: list[Node] = []  # raised after the call: the interpreter would lengthen the message

    def watch(node: Node, value: torch.Tensor) -> None:
        if node in observers:
            # Where the first axis does not hold the samples, the values of one call count as one sample.
            rows = size if value.ndim and value.shape[0] % size == 0 else 1
            try:
                observers[node].update(value.reshape(rows, -1))
            except FloatingPointError:
                broken.append(node)
        note(node, value)

    watcher = _Watcher(module, watch)
    with torch.no_grad():
        for arguments in program_inputs(task, example, sample_count=sample_count):
            watcher.run(*arguments, enable_io_processing=False)
            if broken:
                raise _not_finite(plan.values[broken[0]], count, size)
            count += size
            yield count
    if count == 0:
        raise DataError(f"Task '{task.name}': the calibration data is empty: it yielded no batch.")


def unclipped_values(module: GraphModule, plan: Plan) -> set[Node]:
    """Planned values that lead to an output with no layer between: their extremes are answers, and must not be clipped.

    They are the first planned values met on the way back from the outputs (past softmax and float operators), and whatever
    shares a grid with them. An average of the last layer's range makes the most confident answers equal: top-1 fell from 82
    to 43 % in a tool that does so.
    """
    waiting = [source for node in module.graph.nodes if node.op == "output" for source in node.all_input_nodes]
    groups, seen = set(), set(waiting)
    while waiting:
        node = waiting.pop()
        value = plan.values.get(node)
        if value is not None and value.fixed_range is None:
            groups.add(value.group)
            continue
        waiting += [source for source in node.all_input_nodes if source not in seen]
        seen.update(node.all_input_nodes)
    return {node for node, value in plan.values.items() if value.group in groups}


def _include_channels(channels: dict[Node, ChannelStatistics], node: Node, value: torch.Tensor) -> None:
    now, before = channel_statistics(node, value), channels.get(node)
    if before is not None:
        now.low, now.high = torch.minimum(now.low, before.low), torch.maximum(now.high, before.high)
        now.mean_square += before.mean_square
    channels[node] = now


def _not_finite(value: Value, count: int, size: int) -> ContractError:
    samples = f"sample {count}" if size == 1 else f"samples {count} to {count + size - 1}"
    instead = f", or keep the layer float (keep_float = ['{value.layer}'])" if value.layer else ""
    return ContractError(
        f"Layer '{value.name}' ({value.op}) gives NaN or infinite values on the calibration data (first in {samples})."
        f" Check the data's scaling{instead}."
    )


def _check_not_zero(plan: Plan, observers: Mapping[Node, Observer], task: Task) -> None:
    """Refuse a grid none of whose values was ever anything but zero."""
    used = {plan.values[node].group for node, seen in observers.items() if (seen.extremes.low, seen.extremes.high) != (0.0, 0.0)}
    idle = [plan.values[node] for node in observers if plan.values[node].group not in used]
    if not idle:
        return
    if idle[0].is_input:
        raise DataError(
            f"Task '{task.name}': input '{idle[0].name}' is zero in every calibration sample, so it has no range."
            " Give calibration data that looks like what the device will see."
        )
    raise ContractError(
        f"Layer '{idle[0].name}' ({idle[0].op}) gives nothing but zeros on the calibration data, so it has no range."
        " Add samples that reach it, or keep it and what reads it float (keep_float)."
    )
