"""Ranges of the planned values over the calibration data, streamed: memory does not grow with the sample count.

The float graph runs once per sample; only the planned values are watched, after fusion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
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

__all__ = ["Range", "calibrate"]


@dataclasses.dataclass
class Range:
    """Smallest and largest value seen."""

    low: float = float("inf")
    high: float = float("-inf")

    def include(self, low: float, high: float) -> None:
        """Widen to hold ``[low, high]``."""
        self.low, self.high = min(self.low, low), max(self.high, high)


class _Watcher(Interpreter):
    """Runs the graph and notes the range of each watched node; frees values after their last use."""

    def __init__(self, module: GraphModule, watched: Mapping[Node, Range]) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.watched = watched

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        found = self.watched.get(n)
        if found is not None:
            low, high = torch.aminmax(result)
            found.include(float(low), float(high))
        return result


def calibrate(
    module: GraphModule, plan: Plan, *, task: Task, example: Mapping[str, Array], sample_count: int, progress: Progress
) -> tuple[dict[Node, Range], int]:
    """Minimum and maximum of every planned value without a fixed range.

    Args:
        module: Canonical float graph.
        plan: Which values to watch.
        task: Brings the calibration data.
        example: Example inputs; their batch is the program's.
        sample_count: Stop after this many samples.
        progress: Called after each batch with ``("calibrate", samples done, samples wanted or None)``.

    Returns:
        Ranges by node, and the number of samples seen.

    Raises:
        DataError: No calibration data, or bad data.
        ContractError: A value became NaN or infinite; names the layer.
    """
    ranges = {node: Range() for node, value in plan.values.items() if value.fixed_range is None}
    watcher = _Watcher(module, ranges)
    size = next(iter(example.values())).shape[0]
    seen = 0
    with torch.no_grad():
        for batch in islice(split_batches(task.calibration_batches(), example), -(-sample_count // size)):
            watcher.run(*(torch.from_numpy(array) for array in batch.values()), enable_io_processing=False)
            seen += size
            progress("calibrate", seen, sample_count)
    if seen == 0:
        raise DataError(f"Task '{task.name}': the calibration data is empty: it yielded no batch.")
    for node, found in ranges.items():
        if not (abs(found.low) < float("inf") and abs(found.high) < float("inf")):
            value = plan.values[node]
            raise ContractError(
                f"Layer '{value.name}' ({value.op}) gives NaN or infinite values on the calibration data"
                f" (range {found.low} to {found.high})."
                f" Check the data's scaling, or keep the layer float (keep_float = ['{value.layer or value.name}'])."
            )
    return ranges, seen
