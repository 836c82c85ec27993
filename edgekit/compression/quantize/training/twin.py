"""The trainable copy of a canonical graph: every value, weight and bias of the plan is rounded where the program rounds it.

::

    x ─ grid ─ conv ─ relu6 ─ grid ─ …
                │
              layer   (float weight, clipped and rounded; float bias, rounded)

Clamps stay in the copy, whether or not saturation will make them unnecessary in the program: that depends on the
scales, which move. Weights that are only stored small are rounded too; what stays float is trained as it is.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node

from edgekit.compression.quantize.calibrate.observe import Range
from edgekit.compression.quantize.canonical.form import constant
from edgekit.compression.quantize.grid import Grid, activation_grid, wide_grid
from edgekit.compression.quantize.lower import decide_grids, kernel_readers
from edgekit.compression.quantize.training.fake_quantize import FakeActivation, FakeCopy, FakeLayer, WeightLimits
from edgekit.compression.quantize.training.stored import FakeStored

if TYPE_CHECKING:
    from edgekit.compression.quantize.plan import Kernel, Plan

__all__ = ["Twin", "build_twin", "write_back"]


class Twin(GraphModule):
    """A trainable copy of a canonical graph; see :func:`build_twin`."""

    ranged: tuple[str, ...] = ()
    """Names of the canonical nodes whose ranges it began with."""


def build_twin(
    module: GraphModule, plan: Plan, ranges: Mapping[Node, Range], *, parameters: Collection[str], learned_scales: bool
) -> Twin:
    """Copy ``module`` and put ``plan``'s grids into the copy.

    Args:
        module: Canonical float graph, left as it is.
        plan: What becomes integers.
        ranges: Range of every planned value without a fixed one.
        parameters: Constants that are trained although no integer kernel reads them (module paths).
        learned_scales: Train the scales too.
    """
    return _Builder(module, plan, ranges, parameters, learned_scales).build()


def write_back(twin: Twin, module: GraphModule, plan: Plan) -> dict[Node, Range]:
    """Copy what was trained into the canonical graph.

    Args:
        twin: Trained copy.
        module: A canonical graph like the one it was made of; its constants are overwritten.
        plan: Its plan.

    Returns:
        The ranges that ask for the trained grids.
    """
    attributes: dict[str, Any] = {**dict(twin.named_parameters()), **dict(twin.named_buffers())}
    attributes |= {str(kernel.node.args[kernel.family.bias or 0].target): layer.bias  # type: ignore[union-attr]
                   for kernel, layer in _layers(twin, plan) if layer.bias is not None}  # fmt: skip
    attributes |= {_weight_name(kernel): getattr(twin, f"stored_{at}").weight for at, kernel in enumerate(plan.weight_only)}
    attributes |= {_weight_name(kernel): layer.clipped_weight() for kernel, layer in _layers(twin, plan)}
    with torch.no_grad():
        for name in {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}:
            held: Any = operator.attrgetter(name)(module)
            trained = attributes.get(name)
            if isinstance(held, torch.Tensor) and isinstance(trained, torch.Tensor):
                held.copy_(trained)
    grids = {node: getattr(twin, f"grid_{value.group}") for node, value in plan.values.items() if node.name in twin.ranged}
    return {node: Range(*grid.bounds()) for node, grid in grids.items()}


def _layers(twin: Twin, plan: Plan) -> list[tuple[Kernel, FakeLayer]]:
    return [(kernel, getattr(twin, f"layer_{at}")) for at, kernel in enumerate(plan.kernels) if kernel.family.role == "weighted"]


def _weight_name(kernel: Kernel) -> str:
    return str(kernel.node.args[kernel.family.weight or 0].target)  # type: ignore[union-attr]


class _Builder:
    """Holds what the parts of one copy share."""

    def __init__(
        self, module: GraphModule, plan: Plan, ranges: Mapping[Node, Range], parameters: Collection[str], learned_scales: bool
    ) -> None:
        self.module, self.plan, self.learned = module, plan, learned_scales
        self.ranged = tuple(node.name for node in ranges)
        self.graph = Graph()
        self.copies: dict[Node, Node] = {}
        self.graph.output(self.graph.graph_copy(module.graph, self.copies))
        fixed = {value.group for value in plan.values.values() if value.fixed_range is not None}
        unions = _group_ranges(plan, ranges)
        self.grids = {
            group: FakeActivation(
                grid, low=unions[group].low, high=unions[group].high, learned=learned_scales and group not in fixed
            )
            for group, grid in decide_grids(plan, ranges).items()
        }
        self.root: dict[str, Any] = {f"grid_{group}": grid for group, grid in self.grids.items()}
        self.tensors: dict[str, Any] = {}
        for node in module.graph.nodes:
            if node.op == "get_attr" and (tensor := constant(module, node)) is not None:
                trained = str(node.target) in parameters and tensor.is_floating_point()
                self.tensors.setdefault(str(node.target), nn.Parameter(tensor.clone()) if trained else tensor.clone())
        self.limits: dict[str, WeightLimits] = {}

    def build(self) -> Twin:
        """The finished copy."""
        for at, kernel in enumerate(self.plan.kernels):
            if kernel.family.role == "weighted":
                self.root[f"layer_{at}"] = self._insert_layer(kernel, f"layer_{at}")
        for at, kernel in enumerate(self.plan.weight_only):
            self._insert_stored(kernel, f"stored_{at}")
        readers = kernel_readers(self.plan)
        for node in self.plan.values:
            self._insert_grid(node, readers.get(node, ()))
        for node in [node for node in self.graph.nodes if node.op == "get_attr" and not node.users]:
            self.graph.erase_node(node)
        kept = {str(node.target) for node in self.graph.nodes if node.op == "get_attr"}
        twin = Twin({**self.root, **{name: tensor for name, tensor in self.tensors.items() if name in kept}}, self.graph)
        twin.ranged = self.ranged
        twin.graph.lint()
        return twin

    def _insert_layer(self, kernel: Kernel, name: str) -> FakeLayer:
        node, family = self.copies[kernel.node], kernel.family
        weight_at, bias_at = family.weight or 0, family.bias or 0
        bias_node = node.args[bias_at] if len(node.args) > bias_at else None
        with self.graph.inserting_before(node):
            both = self.graph.call_module(name)
            weight = self.graph.call_function(operator.getitem, (both, 0))
            bias = self.graph.call_function(operator.getitem, (both, 1)) if isinstance(bias_node, Node) else None
        node.update_arg(weight_at, weight)
        if bias is not None:
            node.update_arg(bias_at, bias)
        held = self._parameter(_weight_name(kernel))
        maximum = 7 if kernel.precision.weights == "int4" else 127
        axis = family.channel_axis or 0
        limits = self.limits.setdefault(
            _weight_name(kernel), WeightLimits(held.detach(), axis, maximum=maximum, learned=self.learned)
        )
        return FakeLayer(
            weight=held,
            bias=self._parameter(str(bias_node.target)) if isinstance(bias_node, Node) else None,
            limits=limits,
            input_grid=self.root[self._grid_read(kernel.activation_arguments[0], kernel)],
            channel_axis=axis,
            maximum=maximum,
            layer=kernel.layer or kernel.node.name,
        )

    def _insert_stored(self, kernel: Kernel, name: str) -> None:
        node, family = self.copies[kernel.node], kernel.family
        self.root[name] = FakeStored(self._parameter(_weight_name(kernel)), kernel)
        with self.graph.inserting_before(node):
            node.update_arg(family.weight or 0, self.graph.call_module(name))
        bias = node.args[family.bias] if family.bias is not None and len(node.args) > family.bias else None
        if isinstance(bias, Node) and bias.op == "get_attr":
            self._parameter(str(bias.target))

    def _parameter(self, name: str) -> nn.Parameter:
        """The one trainable tensor behind a constant's name."""
        if not isinstance(self.tensors[name], nn.Parameter):
            self.tensors[name] = nn.Parameter(self.tensors[name])
        parameter: nn.Parameter = self.tensors[name]
        return parameter

    def _insert_grid(self, node: Node, readers: Collection[Node]) -> None:
        value, here = self.plan.values[node], self.copies[node]
        users = set(here.users)
        if not value.made_by_kernel:
            users &= {self.copies[reader] for reader in readers}
        placeholders = [other for other in self.graph.nodes if other.op == "placeholder"]
        rounded = self._call(f"grid_{value.group}", here, after=placeholders[-1] if node.op == "placeholder" else here)
        here.replace_all_uses_with(rounded, delete_user_cb=lambda user: user in users)
        for kernel in [kernel for kernel in self.plan.kernels if (node, kernel.node) in self.plan.regridded]:
            copied = self._call(self._grid_read(node, kernel), rounded, after=rounded)
            self.copies[kernel.node].replace_input_with(rounded, copied)

    def _grid_read(self, argument: Node, kernel: Kernel) -> str:
        """Name of the module on whose grid a kernel reads an argument: its own, or a copy's (see :attr:`Plan.regridded`)."""
        value, end = self.plan.values[argument], self.plan.values[kernel.end]
        if (argument, kernel.node) not in self.plan.regridded:
            return f"grid_{value.group}"
        if kernel.family.role == "shared":
            return f"grid_{end.group}"
        name = f"grid_{value.group}_as_{end.dtype}"
        make = functools.partial(_make_grid, dtype=end.dtype, is_fixed=value.fixed_range is not None)
        self.root.setdefault(name, FakeCopy(self.grids[value.group], make))
        return name

    def _call(self, name: str, source: Node, *, after: Node) -> Node:
        with self.graph.inserting_after(after):
            return self.graph.call_module(name, (source,))


def _group_ranges(plan: Plan, ranges: Mapping[Node, Range]) -> dict[int, Range]:
    """What the grid of each group covers."""
    unions: dict[int, Range] = {}
    for node, value in plan.values.items():
        if value.fixed_range is not None:
            unions[value.group] = Range(*value.fixed_range)
        elif node in ranges:
            unions.setdefault(value.group, Range()).include(ranges[node].low, ranges[node].high)
    return unions


def _make_grid(low: float, high: float, *, dtype: str, is_fixed: bool) -> Grid:
    return wide_grid(low, high, is_fixed=is_fixed) if dtype == "int16" else activation_grid(low, high)
