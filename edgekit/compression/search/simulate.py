"""The float graph with any of its layers rounded: nothing is lowered, so each layer can be tried alone.

Weights are rounded to nearest on the scales of the plan's precision, without the repair that the real quantizer does
afterwards; activations are put on the grids that calibration found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import GraphModule, Interpreter, Node

from edgekit.compression.quantize.canonical.form import constant
from edgekit.compression.quantize.grid import Grid, covering_scales, weight_integers
from edgekit.compression.quantize.lower import decide_grids

if TYPE_CHECKING:
    from edgekit.compression.quantize.calibrate.observe import Range
    from edgekit.compression.quantize.plan import Kernel, Plan

__all__ = ["Simulation", "call_kernel", "round_activation", "round_weight"]


@dataclasses.dataclass
class Simulation:
    """A canonical float graph, the plan for it, and the grids.

    Args:
        module: Not changed.
        plan: Says what becomes integers.
        grids: Grid of each planned value.
        weights: Rounded weight of each layer that has one, by node.
    """

    module: GraphModule
    plan: Plan
    grids: dict[Node, Grid]
    weights: dict[Node, torch.Tensor]

    @classmethod
    def of(cls, module: GraphModule, plan: Plan, ranges: Mapping[Node, Range]) -> Simulation:
        """Round every weight as the plan says."""
        by_group = decide_grids(plan, ranges)
        grids = {node: by_group[value.group] for node, value in plan.values.items() if value.group in by_group}
        weights = {}
        for kernel in weighted_kernels(plan):
            weight = constant(module, kernel.node.args[kernel.family.weight or 0])
            if weight is not None:
                weights[kernel.node] = round_weight(weight, kernel, kernel.precision.weights)
        return cls(module, plan, grids, weights)

    def run(
        self, arguments: Sequence[torch.Tensor], *, weights: Collection[Node], values: Collection[Node]
    ) -> tuple[torch.Tensor, ...]:
        """Outputs with the weights of some layers, and some values, rounded."""
        with torch.no_grad():
            return as_outputs(_Rounder(self, set(weights), set(values)).run(*arguments, enable_io_processing=False))

    def run_all(self, arguments: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Outputs with everything rounded that the plan names."""
        return self.run(arguments, weights=self.weights, values=self.grids)


class _Rounder(Interpreter):
    def __init__(self, simulation: Simulation, weights: set[Node], values: set[Node]) -> None:
        super().__init__(simulation.module, garbage_collect_values=True)
        self.simulation, self.weights, self.values = simulation, weights, values
        self.kernels = {kernel.node: kernel for kernel in weighted_kernels(simulation.plan)}

    def run_node(self, n: Node) -> Any:
        if n in self.weights:
            arguments, keywords = self.fetch_args_kwargs_from_env(n)
            result = call_kernel(self.kernels[n], arguments, keywords, self.simulation.weights[n])
        else:
            result = super().run_node(n)
        return round_activation(result, self.simulation.grids[n]) if n in self.values else result


def weighted_kernels(plan: Plan) -> list[Kernel]:
    """Layers with constant weights, integer kernels and float ones alike."""
    return [kernel for kernel in (*plan.kernels, *plan.weight_only) if kernel.family.role == "weighted"]


def call_kernel(kernel: Kernel, arguments: Sequence[Any], keywords: Mapping[str, Any], weight: torch.Tensor) -> Any:
    """What a layer gives with another weight."""
    place = kernel.family.weight or 0
    function: Any = kernel.node.target
    return function(*arguments[:place], weight, *arguments[place + 1 :], **keywords)


def round_weight(weight: torch.Tensor, kernel: Kernel, stored: str) -> torch.Tensor:
    """A weight rounded to ``int8``, ``int4`` (one scale a channel) or ``float16``, as float32."""
    if stored == "float32":
        return weight
    if stored == "float16":
        return weight.to(torch.float16).float()
    largest = 127 if stored == "int8" else 7
    axis = kernel.family.channel_axis or 0
    scales = covering_scales(weight.movedim(axis, 0).flatten(1), minimum=-largest, maximum=largest)
    integers = weight_integers(weight, scales, axis, minimum=-largest, maximum=largest)
    shape = [-1 if at == axis else 1 for at in range(weight.ndim)]
    return integers.float() * torch.from_numpy(scales).reshape(shape)


def round_activation(value: torch.Tensor, grid: Grid) -> torch.Tensor:
    """A value on its grid, as float32."""
    steps = torch.round(value * (1.0 / grid.scale)) + grid.zero_point
    return (steps.clamp(grid.minimum, grid.maximum) - grid.zero_point) * grid.scale


def as_outputs(result: Any) -> tuple[torch.Tensor, ...]:
    """Outputs of a graph module as a tuple."""
    return tuple(result) if isinstance(result, tuple | list) else (result,)
