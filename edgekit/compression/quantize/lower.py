"""Plan + ranges -> Q/DQ program + contract: the decided numbers written into the graph.

::

    x ─ conv ─ relu6 ─ …        x ─ Q ─ DQ ─ conv ─ Q ─ DQ ─ …
        │                                    │
        w (float)                  int8 w ─ DQ      (bias: float32, exactly on the int32 grid)

A clamp whose two bounds are the two ends of the integer grid is left out: saturation is the clamp.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch.fx import GraphModule, Node

from edgekit.compression.quantize.calibrate import Range
from edgekit.compression.quantize.canonical import constant, copy_used, put_constant
from edgekit.compression.quantize.grid import Grid, activation_grid, bias_integers, weight_grid, weight_integers
from edgekit.compression.quantize.plan import Kernel, Plan, Value, source_of
from edgekit.core.contract import TensorQuantization
from edgekit.core.program import register_operators
from edgekit.core.tensors import quantize

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["Lowered", "decide_grids", "kernel_readers", "lower", "move_bias"]

register_operators()

_Q = torch.ops.quantized_decomposed.quantize_per_tensor.default
_DQ = torch.ops.quantized_decomposed.dequantize_per_tensor.default
_DQ_CHANNEL = torch.ops.quantized_decomposed.dequantize_per_channel.default


@dataclasses.dataclass
class Lowered:
    """The Q/DQ graph, and the entries whose ``node`` is not known before the graph is exported again.

    Args:
        module: Q/DQ graph module.
        activations: Entries in the order of the graph's quantize nodes.
        parameters: Entries of weights and biases; ``node`` holds the buffer's name.
        absorbed_clamp_count: Clamps that saturation made unnecessary.
    """

    module: GraphModule
    activations: list[TensorQuantization]
    parameters: list[TensorQuantization]
    absorbed_clamp_count: int


def lower(module: GraphModule, plan: Plan, ranges: Mapping[Node, Range]) -> Lowered:
    """Write the plan into ``module`` (which is consumed) with the grids that the ranges ask for."""
    grids = decide_grids(plan, ranges)
    entries: dict[Node, TensorQuantization] = {}
    parameters: list[TensorQuantization] = []
    for kernel in plan.kernels:
        if kernel.family.role == "weighted":
            parameters += _lower_parameters(module, kernel, grids[plan.values[kernel.activation_arguments[0]].group])
    absorbed = sum(_absorb_clamp(module, plan, kernel, grids) for kernel in plan.kernels)
    readers = kernel_readers(plan)
    for value in plan.values.values():
        _quantize_value(module, value, grids, readers, plan, entries)
    module.graph.eliminate_dead_code()
    module.graph.lint()
    order = [node for node in module.graph.nodes if node.target is _Q]
    return Lowered(copy_used(module), [entries[node] for node in order], _unique(parameters), absorbed)


def _unique(parameters: Sequence[TensorQuantization]) -> list[TensorQuantization]:
    """Number the parameters of a layer that is called more than once, as activations are: ``a.weight``, ``a.weight:2``."""
    counts = dict.fromkeys((entry.name for entry in parameters), 0)
    named = []
    for entry in parameters:
        counts[entry.name] += 1
        named.append(entry if counts[entry.name] == 1 else entry.replace(name=f"{entry.name}:{counts[entry.name]}"))
    return named


def decide_grids(plan: Plan, ranges: Mapping[Node, Range]) -> dict[int, Grid]:
    """One grid a group: the fixed range if it has one, else the union of its members' ranges."""
    unions: dict[int, Range] = {}
    fixed: dict[int, tuple[float, float]] = {}
    for node, value in plan.values.items():
        if value.fixed_range is not None:
            fixed[value.group] = value.fixed_range
        elif node in ranges:
            unions.setdefault(value.group, Range()).include(ranges[node].low, ranges[node].high)
    grids = {group: activation_grid(found.low, found.high) for group, found in unions.items()}
    return grids | {group: activation_grid(*bounds) for group, bounds in fixed.items()}


def _absorb_clamp(module: GraphModule, plan: Plan, kernel: Kernel, grids: Mapping[int, Grid]) -> bool:
    """Remove the fused clamp if quantizing saturates exactly where it clamps."""
    if kernel.end is kernel.node:
        return False
    grid = grids[plan.values[kernel.end].group]
    low, high = _clamp_bounds(kernel.end)
    ends = quantize(np.array([low, high], np.float32), scale=grid.scale, zero_point=grid.zero_point)
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
    grids: Mapping[int, Grid],
    readers: Mapping[Node, Sequence[Node]],
    plan: Plan,
    entries: dict[Node, TensorQuantization],
) -> None:
    """Insert Q and DQ after a value and let the right readers read the result."""
    grid = grids[value.group]
    users = set(value.node.users)
    if not value.made_by_kernel:
        users &= set(readers.get(value.node, ()))
    anchor = _last_placeholder(module) if value.node.op == "placeholder" else value.node
    integers, restored = _insert_pair(module, value.node, anchor, grid)
    entries[integers] = _activation_entry(
        value, grid, shared=sum(other.group == value.group for other in plan.values.values()) > 1
    )
    value.node.replace_all_uses_with(restored, delete_user_cb=lambda user: user in users)
    for reader in [reader for node, reader in plan.regridded if plan.values[node] is value]:
        other = grids[plan.values[next(kernel.end for kernel in plan.kernels if kernel.node is reader)].group]
        copy, copy_restored = _insert_pair(module, restored, restored, other)
        entries[copy] = _activation_entry(
            dataclasses.replace(value, name=f"{value.name}.regrid", op="requantize", is_input=False), other, shared=False
        )
        reader.replace_input_with(restored, copy_restored)


def _insert_pair(module: GraphModule, source: Node, anchor: Node, grid: Grid) -> tuple[Node, Node]:
    numbers = (grid.scale, grid.zero_point, grid.minimum, grid.maximum, torch.int8)
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
        dtype="int8",
        scale=(grid.scale,),
        zero_point=(grid.zero_point,),
        minimum=grid.minimum,
        maximum=grid.maximum,
        group=f"grid{value.group}" if shared else None,
        node="",
        source=source_of(value.node),
    )


def _lower_parameters(module: GraphModule, kernel: Kernel, input_grid: Grid) -> list[TensorQuantization]:
    """Fold a layer's weight to int8 and put its bias on the int32 grid; return their entries."""
    node, family = kernel.node, kernel.family
    weight_at, bias_at, axis = family.weight or 0, family.bias or 0, family.channel_axis or 0
    weight = constant(module, node.args[weight_at])
    bias = constant(module, node.args[bias_at]) if len(node.args) > bias_at else None
    if weight is None:
        return []
    name = kernel.layer or node.name
    scales = weight_grid(weight, axis, bias=bias, input_scale=input_grid.scale)
    integers = weight_integers(weight, scales, axis)
    stored = put_constant(module, f"{name}.weight_int8", integers, before=node)
    restored = _dequantize_channels(module, node, stored, torch.from_numpy(scales), axis, name)
    restored.meta["val"] = weight
    arguments = list(node.args)
    arguments[weight_at] = restored
    entries = [_parameter_entry(f"{name}.weight", "weight", kernel, integers, scales, axis, str(stored.target))]
    if bias is not None:
        bias_scales = np.float32(input_grid.scale) * scales
        steps, rounded = _settle_bias(bias, bias_scales, layer=name)
        held = put_constant(module, f"{name}.bias_on_grid", rounded, before=node)
        arguments[bias_at] = held
        entries.append(_parameter_entry(f"{name}.bias", "bias", kernel, steps, bias_scales, 0, str(held.target)))
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
    return entry.replace(sha256=_digest(steps)), moved


def _digest(integers: torch.Tensor) -> str:
    return hashlib.sha256(np.ascontiguousarray(integers.numpy()).tobytes()).hexdigest()


def _settle_bias(bias: torch.Tensor, scales: Array, *, layer: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Integers and float32 values that determine each other exactly (beyond 2**24 steps float32 is the coarser grid)."""
    grid = torch.from_numpy(scales).double()
    rounded = (bias_integers(bias, scales, layer=layer).double() * grid).float()
    return torch.round(rounded.double() / grid).to(torch.int32), rounded


def _dequantize_channels(module: GraphModule, node: Node, stored: Node, scales: torch.Tensor, axis: int, name: str) -> Node:
    scale_node = put_constant(module, f"{name}.weight_scale", scales, before=node)
    zero_node = put_constant(module, f"{name}.weight_zero_point", torch.zeros(scales.numel(), dtype=torch.int64), before=node)
    with module.graph.inserting_before(node):
        restored: Node = module.graph.call_function(_DQ_CHANNEL, (stored, scale_node, zero_node, axis, -127, 127, torch.int8))
    return restored


def _parameter_entry(
    name: str, role: Literal["weight", "bias"], kernel: Kernel, integers: torch.Tensor, scales: Array, axis: int, buffer: str
) -> TensorQuantization:
    wide = role == "bias"
    return TensorQuantization(
        name=name,
        role=role,
        op=kernel.family.name,
        layer=kernel.layer,
        shape=tuple(integers.shape),
        dtype="int32" if wide else "int8",
        scale=tuple(float(scale) for scale in scales),
        zero_point=(0,) * len(scales),
        channel_axis=axis,
        minimum=-(2**31) if wide else -127,
        maximum=2**31 - 1 if wide else 127,
        node=buffer,
        source=source_of(kernel.node),
        sha256=_digest(integers),
    )
