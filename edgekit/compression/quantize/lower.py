"""Plan + ranges -> Q/DQ program + contract: the decided numbers written into the graph.

::

    x ─ conv ─ relu6 ─ …        x ─ Q ─ DQ ─ conv ─ Q ─ DQ ─ …
        │                                    │
        w (float)                  int8 w ─ DQ      (bias: float32, exactly on the int32 grid)

A clamp whose two bounds are the two ends of the integer grid is left out: saturation is the clamp.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.fx import GraphModule, Node

from edgekit.compression.quantize.calibrate.observe import Range
from edgekit.compression.quantize.canonical.form import constant, copy_used, put_constant
from edgekit.compression.quantize.constants import fold_quantized_constants
from edgekit.compression.quantize.dynamic import quantize_inputs
from edgekit.compression.quantize.exact.align import align_grids, exact_weight_scales
from edgekit.compression.quantize.grid import Grid, activation_grid, bias_integers, weight_grid, weight_integers, wide_grid
from edgekit.compression.quantize.plan import Kernel, Plan, Value, source_of
from edgekit.compression.quantize.weights import digest, integer_range, parameter_entry, restore_channels, store_weight
from edgekit.core.contract import TensorQuantization
from edgekit.core.program import register_operators
from edgekit.core.tensors import quantize

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["Lowered", "decide_grids", "kernel_readers", "lower", "move_bias", "regrid_bias"]

register_operators()

_Q = torch.ops.quantized_decomposed.quantize_per_tensor.default
_DQ = torch.ops.quantized_decomposed.dequantize_per_tensor.default
_TORCH_TYPES = {"int8": torch.int8, "int16": torch.int16}


@dataclasses.dataclass
class Lowered:
    """The Q/DQ graph, and the entries whose ``node`` is not known before the graph is exported again.

    Args:
        module: Q/DQ graph module.
        activations: Entries in the order of the graph's quantize nodes.
        parameters: Entries of weights and biases; ``node`` holds the buffer's name.
        absorbed_clamp_count: Clamps that saturation made unnecessary.
        dynamic_count: Layers that quantize their input at run time.
    """

    module: GraphModule
    activations: list[TensorQuantization]
    parameters: list[TensorQuantization]
    absorbed_clamp_count: int
    dynamic_count: int = 0


def lower(module: GraphModule, plan: Plan, ranges: Mapping[Node, Range], *, align: bool = True, exact: bool = False) -> Lowered:
    """Write the plan into ``module`` (which is consumed) with the grids that the ranges ask for.

    Args:
        module: Canonical float graph.
        plan: What becomes integers.
        ranges: Calibrated ranges.
        align: Move scales until requantizations are tie-free; see :mod:`exact`. 16-bit grids are too fine for it.
        exact: Those of inputs, too.
    """
    grids = decide_grids(plan, ranges)
    align = align and all(grid.dtype == "int8" for grid in grids.values())
    grids = align_grids(plan, grids, exact=exact) if align else grids
    copies = _Copies(plan, grids, ranges)
    entries: dict[Node, TensorQuantization] = {}
    parameters: list[TensorQuantization] = []
    for kernel in plan.kernels:
        if kernel.family.role == "weighted":
            output = grids[plan.values[kernel.end].group] if align else None
            parameters += _lower_parameters(module, kernel, copies.read(kernel.activation_arguments[0], kernel), output)
    for kernel in plan.weight_only:
        parameters += store_weight(module, kernel)
    absorbed = sum(_absorb_clamp(module, plan, kernel, grids) for kernel in plan.kernels)
    readers = kernel_readers(plan)
    for value in plan.values.values():
        _quantize_value(module, value, copies, readers, entries)
    dynamic = quantize_inputs(module, plan.weight_only)
    module.graph.eliminate_dead_code()
    module.graph.lint()
    order = [node for node in module.graph.nodes if node.target is _Q]
    lowered = Lowered(copy_used(module), [entries[node] for node in order], _unique(parameters), absorbed, dynamic)
    return fold_quantized_constants(lowered)


def _unique(parameters: Sequence[TensorQuantization]) -> list[TensorQuantization]:
    """Number the parameters of a layer that is called more than once, as activations are: ``a.weight``, ``a.weight:2``."""
    counts = dict.fromkeys((entry.name for entry in parameters), 0)
    named = []
    for entry in parameters:
        counts[entry.name] += 1
        named.append(entry if counts[entry.name] == 1 else entry.replace(name=f"{entry.name}:{counts[entry.name]}"))
    return named


def decide_grids(plan: Plan, ranges: Mapping[Node, Range], *, dtype: str | None = None) -> dict[int, Grid]:
    """One grid a group: the fixed range if it has one, else the union of its members' ranges.

    Args:
        plan: Says the groups and their types.
        ranges: Calibrated ranges.
        dtype: Another type for all.
    """
    unions: dict[int, Range] = {}
    fixed: dict[int, tuple[float, float]] = {}
    types: dict[int, str] = {}
    for node, value in plan.values.items():
        types[value.group] = dtype or value.dtype
        if value.fixed_range is not None:
            fixed[value.group] = value.fixed_range
        elif node in ranges:
            unions.setdefault(value.group, Range()).include(ranges[node].low, ranges[node].high)
    grids = {
        group: wide_grid(found.low, found.high) if types[group] == "int16" else activation_grid(found.low, found.high)
        for group, found in unions.items()
    }
    return grids | {
        group: wide_grid(*bounds, is_fixed=True) if types[group] == "int16" else activation_grid(*bounds)
        for group, bounds in fixed.items()
    }


class _Copies:
    """Which grid each reader sees: its argument's own, or that of a requantized copy (see :attr:`Plan.regridded`)."""

    def __init__(self, plan: Plan, grids: Mapping[int, Grid], ranges: Mapping[Node, Range]) -> None:
        self.plan = plan
        self.grids = grids
        types = {plan.values[kernel.end].dtype for kernel in plan.kernels} if plan.regridded else set()
        self.others = {dtype: decide_grids(plan, ranges, dtype=dtype) for dtype in types}

    def read(self, argument: Node, kernel: Kernel) -> Grid:
        """The grid on which a kernel reads one of its arguments."""
        value, end = self.plan.values[argument], self.plan.values[kernel.end]
        if (argument, kernel.node) not in self.plan.regridded:
            return self.grids[value.group]
        return self.grids[end.group] if kernel.family.role == "shared" else self.others[end.dtype][value.group]


def _absorb_clamp(module: GraphModule, plan: Plan, kernel: Kernel, grids: Mapping[int, Grid]) -> bool:
    """Remove the fused clamp if quantizing saturates exactly where it clamps."""
    if kernel.end is kernel.node:
        return False
    grid = grids[plan.values[kernel.end].group]
    low, high = _clamp_bounds(kernel.end)
    numbers: dict[str, Any] = {**dataclasses.asdict(grid), "dtype": grid.dtype}
    ends = quantize(np.array([low, high], np.float32), **numbers)
    if list(ends) != [grid.minimum, grid.maximum]:
        return False
    kernel.end.replace_all_uses_with(kernel.node)
    plan.values[kernel.end].node = kernel.node
    module.graph.erase_node(kernel.end)
    return True


def _clamp_bounds(node: Node) -> tuple[float, float]:
    largest = float(np.finfo(np.float32).max)
    name = str(node.target)
    if name == "aten.relu.default":
        return 0.0, largest
    if name == "aten.relu6.default":
        return 0.0, 6.0
    default: tuple[Any, Any] = (-1.0, 1.0) if name == "aten.hardtanh.default" else (None, None)
    low = node.args[1] if len(node.args) > 1 else node.kwargs.get("min", default[0])
    high = node.args[2] if len(node.args) > 2 else node.kwargs.get("max", default[1])
    return (-largest if low is None else float(low)), (largest if high is None else float(high))  # type: ignore[arg-type]


def kernel_readers(plan: Plan) -> dict[Node, list[Node]]:
    """Value node -> kernels that read it as an activation."""
    readers: dict[Node, list[Node]] = {}
    for kernel in plan.kernels:
        for argument in kernel.activation_arguments:
            readers.setdefault(argument, []).append(kernel.node)
    return readers


def _quantize_value(
    module: GraphModule,
    value: Value,
    copies: _Copies,
    readers: Mapping[Node, Sequence[Node]],
    entries: dict[Node, TensorQuantization],
) -> None:
    """Insert Q and DQ after a value and let the right readers read the result."""
    plan, grid = copies.plan, copies.grids[value.group]
    users = set(value.node.users)
    if not value.made_by_kernel:
        users &= set(readers.get(value.node, ()))
    anchor = _last_placeholder(module) if value.node.op == "placeholder" else value.node
    integers, restored = _insert_pair(module, value.node, anchor, grid)
    entries[integers] = _activation_entry(
        value, grid, shared=sum(other.group == value.group for other in plan.values.values()) > 1
    )
    value.node.replace_all_uses_with(restored, delete_user_cb=lambda user: user in users)
    made: dict[Grid, Node] = {}
    for kernel, key in _regridded(plan, value):
        other = copies.read(key, kernel)
        if other not in made:
            copy, made[other] = _insert_pair(module, restored, restored, other)
            name = f"{value.name}.regrid" if len(made) == 1 else f"{value.name}.regrid:{len(made)}"
            entries[copy] = _activation_entry(
                dataclasses.replace(value, name=name, op="requantize", is_input=False), other, shared=False
            )
        kernel.node.replace_input_with(restored, made[other])


def _regridded(plan: Plan, value: Value) -> list[tuple[Kernel, Node]]:
    """Kernels that read a value on another grid, in graph order, with the value's key in the plan."""
    key = next(node for node, found in plan.values.items() if found is value)
    return [(kernel, key) for kernel in plan.kernels if (key, kernel.node) in plan.regridded]


def _insert_pair(module: GraphModule, source: Node, anchor: Node, grid: Grid) -> tuple[Node, Node]:
    numbers = (grid.scale, grid.zero_point, grid.minimum, grid.maximum, _TORCH_TYPES[grid.dtype])
    with module.graph.inserting_after(anchor):
        integers = module.graph.call_function(_Q, (source, *numbers))
    with module.graph.inserting_after(integers):
        restored = module.graph.call_function(_DQ, (integers, *numbers))
    for node in (integers, restored):
        node.meta = {key: source.meta[key] for key in ("val", "stack_trace", "nn_module_stack") if key in source.meta}
    return integers, restored


def _last_placeholder(module: GraphModule) -> Node:
    last: Node = [node for node in module.graph.nodes if node.op == "placeholder"][-1]
    return last


def _activation_entry(value: Value, grid: Grid, *, shared: bool) -> TensorQuantization:
    return TensorQuantization(
        name=value.name,
        role="input" if value.is_input else "activation",
        op=value.op,
        layer=value.layer,
        shape=tuple(int(size) for size in value.node.meta["val"].shape),
        dtype=grid.dtype,
        scale=(grid.scale,),
        zero_point=(grid.zero_point,),
        minimum=grid.minimum,
        maximum=grid.maximum,
        group=f"grid{value.group}" if shared else None,
        node="",
        source=source_of(value.node),
    )


def _lower_parameters(
    module: GraphModule, kernel: Kernel, input_grid: Grid, aligned_output: Grid | None
) -> list[TensorQuantization]:
    """Fold a layer's weight to int8 and put its bias on the int32 grid; return their entries."""
    node, family = kernel.node, kernel.family
    weight_at, bias_at, axis = family.weight or 0, family.bias or 0, family.channel_axis or 0
    weight = constant(module, node.args[weight_at])
    bias = constant(module, node.args[bias_at]) if len(node.args) > bias_at else None
    if weight is None:
        return []
    name = kernel.layer or node.name
    low, high = integer_range(kernel)
    scales = weight_grid(weight, axis, bias=bias, input_scale=input_grid.scale, largest=high)
    if aligned_output is not None:
        scales = exact_weight_scales(scales, input_scale=input_grid.scale, output_scale=aligned_output.scale)
    integers = weight_integers(weight, scales, axis, minimum=low, maximum=high)
    stored, restored = restore_channels(module, kernel, integers, scales, name=name)
    restored.meta["val"] = weight
    arguments = list(node.args)
    arguments[weight_at] = restored
    entries = [parameter_entry(f"{name}.weight", "weight", kernel, integers, scales, axis=axis, buffer=str(stored.target))]
    if bias is not None:
        bias_scales = np.float32(input_grid.scale) * scales
        steps, rounded = _settle_bias(bias, bias_scales, layer=name)
        held = put_constant(module, f"{name}.bias_on_grid", rounded, before=node)
        arguments[bias_at] = held
        entries.append(parameter_entry(f"{name}.bias", "bias", kernel, steps, bias_scales, axis=0, buffer=str(held.target)))
    node.args = tuple(arguments)
    return entries


def move_bias(module: GraphModule, entry: TensorQuantization, shift: torch.Tensor) -> tuple[TensorQuantization, torch.Tensor]:
    """Add ``shift`` (``[C]``) to a bias of a Q/DQ graph, as far as its int32 grid allows.

    Returns:
        The bias's new entry, and what was really added, float32.
    """
    buffer: torch.Tensor = getattr(module, entry.node)
    scales = np.array(entry.scale, np.float32)
    steps, rounded = _settle_bias(buffer.double() + shift, scales, layer=entry.layer)
    moved = rounded - buffer
    buffer.copy_(rounded)
    return entry.replace(sha256=digest(steps)), moved


def regrid_bias(module: GraphModule, entry: TensorQuantization, scales: Array) -> TensorQuantization:
    """Put a bias of a Q/DQ graph on another int32 grid (``[C]``, float32), because its layer's weight scales changed."""
    buffer: torch.Tensor = getattr(module, entry.node)
    steps, rounded = _settle_bias(buffer, scales, layer=entry.layer)
    buffer.copy_(rounded)
    return entry.replace(scale=tuple(float(scale) for scale in scales), sha256=digest(steps))


def _settle_bias(bias: torch.Tensor, scales: Array, *, layer: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Integers and float32 values that determine each other exactly (beyond 2**24 steps float32 is the coarser grid)."""
    grid = torch.from_numpy(scales).double()
    rounded = (bias_integers(bias, scales, layer=layer).double() * grid).float()
    return torch.round(rounded.double() / grid).to(torch.int32), rounded
