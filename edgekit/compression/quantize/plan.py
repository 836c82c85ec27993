"""Canonical graph -> plan: which values become integers, which share one grid, which layers stay float.

Everything here is decided from the graph and the capability table; no number is known yet. A value is quantized

* where an integer kernel makes it (after its fused activation, if it has one), and
* where a float operator or a model input feeds an integer kernel.
"""

from __future__ import annotations

import dataclasses
import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch.fx import GraphModule, Node

from edgekit.compression.quantize.canonical.form import constant
from edgekit.compression.quantize.capability import Family, family_of
from edgekit.compression.quantize.constants import constant_range
from edgekit.compression.quantize.islands import REASON, drop_idle
from edgekit.compression.quantize.precision import INT8, Precisions, choose_types, retyped_edges, without_dynamic
from edgekit.core.contract import FloatLayer
from edgekit.core.recipe import LayerPrecision, Precision

__all__ = ["Kernel", "Plan", "Value", "make_plan"]

_CLAMPS = {
    "aten.relu.default", "aten.relu6.default", "aten.hardtanh.default", "aten.clamp.default", "aten.clamp_min.default",
}  # fmt: skip
_NO_KERNEL = "no integer kernel in the capability table"
_LARGEST_CONSTANT = 1e4  # masks are written as -1e4, -1e9, float32's lowest, or minus infinity
_LOWEST_BIAS = -16.0  # e**-16 is nothing beside 1: what lowers a score further is a mask, not a bias
_FUSING_FAMILIES = {"conv", "conv_transpose", "linear", "matmul", "add", "sub", "mul"}


@dataclasses.dataclass
class Value:
    """One tensor that becomes integers.

    Args:
        node: Node whose result is quantized.
        name: Contract entry name.
        layer: Module path of the operator that makes it.
        op: Operator family, with its fused activation: ``"conv+relu6"``.
        is_input: It is a model input.
        made_by_kernel: An integer kernel makes it, so that every reader gets the integers.
        fixed_range: Range known beforehand (softmax ...).
        group: Values with the same group number share one scale.
        dtype: Integer type.
    """

    node: Node
    name: str
    layer: str
    op: str
    is_input: bool
    made_by_kernel: bool
    fixed_range: tuple[float, float] | None
    group: int
    dtype: Literal["int8", "int16"] = "int8"


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One operator that runs on integers: its node, its row in the table, and the last node of its fused pattern."""

    node: Node
    family: Family
    layer: str
    end: Node
    precision: Precision = INT8

    @property
    def activation_arguments(self) -> tuple[Node, ...]:
        """Nodes of the activation inputs, constants left out."""
        if self.family.inputs == "list":
            return tuple(argument for argument in self.node.args[0] if isinstance(argument, Node))  # type: ignore[union-attr]
        return tuple(self.node.args[i] for i in self.family.inputs if isinstance(self.node.args[i], Node))  # type: ignore[misc]


@dataclasses.dataclass(frozen=True)
class Plan:
    """Values by node, kernels in graph order, edges that need a second grid, and what stays float."""

    values: dict[Node, Value]
    kernels: tuple[Kernel, ...]
    regridded: frozenset[tuple[Node, Node]]
    """(value node, reader): the reader needs another grid (because a fixed range forbids sharing, or of another type): a copy."""
    float_layers: tuple[FloatLayer, ...]
    weight_only: tuple[Kernel, ...] = ()
    """Layers with compressed weights whose kernels get float activations, or activations that each input sets the scale of."""


def make_plan(
    module: GraphModule,
    *,
    input_names: Sequence[str] = (),
    keep_float: Sequence[str] = (),
    precision: Precision | None = None,
    layers: Sequence[LayerPrecision] = (),
) -> Plan:
    """Decide what becomes integers.

    Args:
        module: Canonical float graph with ``meta["val"]`` on its nodes.
        input_names: What the task calls the inputs, in order; the graph's own names where empty.
        keep_float: Module paths or shell patterns that stay float.
        precision: What a layer becomes that ``layers`` does not name; int8 if None.
        layers: Layers with another precision; the last match wins.

    Raises:
        RecipeError: A pattern matches no layer.
    """
    precisions = Precisions(default=precision or INT8, layers=layers, keep_float=keep_float)
    paths = {node: layer_of(node) for node in module.graph.nodes}
    precisions.check(paths.values())
    kernels: list[Kernel] = []
    weight_only: list[Kernel] = []
    float_layers: list[FloatLayer] = []
    fused: set[Node] = set()
    for node in module.graph.nodes:
        if node.op != "call_function" or node in fused:
            continue
        chosen = precisions.of(paths[node])
        family, reason = _decide(module, node, chosen)
        if family is None:
            if reason:
                float_layers.append(_float_layer(node, paths[node], reason))
            continue
        if family.inputs == ():
            weight_only.append(Kernel(node=node, family=family, layer=paths[node], end=node, precision=_lookup(chosen)))
            continue
        if chosen.activations in {"float32", "dynamic-int8"}:
            own = without_dynamic(chosen, family.name)
            weight_only.append(Kernel(node=node, family=family, layer=paths[node], end=node, precision=own))
            continue
        end = _fused_end(node, family)
        fused.add(end)
        kernels.append(Kernel(node=node, family=family, layer=paths[node], end=end, precision=chosen))
    kernels, idle = drop_idle(kernels)
    float_layers += [_float_layer(kernel.node, kernel.layer, REASON) for kernel in idle if kernel.family.role != "shared"]
    values = _name_values(module, kernels)
    _name_inputs(module, values, input_names)
    choose_types(kernels, values)
    regridded = [*_share_grids(kernels, values), *retyped_edges(kernels, values)]
    return Plan(
        values=values,
        kernels=tuple(kernels),
        regridded=frozenset(regridded),
        float_layers=tuple(float_layers),
        weight_only=tuple(weight_only),
    )


def layer_of(node: Node) -> str:
    """Module path of the layer a node came from; empty for code in the model's own ``forward``."""
    stack = node.meta.get("nn_module_stack") or {}
    path = str(list(stack.values())[-1][0]) if stack else ""
    return path.removeprefix("model").removeprefix(".") if stack and _is_wrapped(stack) else path


def source_of(node: Node) -> str:
    """``file:line`` of the user's code that made the node, where torch recorded it; file name only, no folder."""
    lines = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines() if line.strip().startswith("File ")]
    own = [line for line in lines if "site-packages" not in line]
    if not own:
        return ""
    path, _, rest = own[-1].removeprefix('File "').partition('"')
    return f"{path.rsplit('/', 1)[-1]}:{rest.split('line ')[1].split(',')[0]}"


def _is_wrapped(stack: dict[str, Any]) -> bool:
    return "_Plain" in str(next(iter(stack.values()))[1])


def _float_layer(node: Node, layer: str, reason: str) -> FloatLayer:
    return FloatLayer(layer=layer or "(model)", op=_operator(node), reason=reason)


def _lookup(precision: Precision) -> Precision:
    """How a table is stored whose rows are picked: nothing is multiplied, and a row of 4 bits has too few steps."""
    return precision if precision.weights == "float16" else Precision(weights="int8", activations="float32")


def _decide(module: GraphModule, node: Node, precision: Precision) -> tuple[Family | None, str]:
    """The row that quantizes this node, or None and why not (no reason for index arithmetic and the like)."""
    if not _computes_float(node):
        return None, ""
    family = family_of(node.target)
    if precision.weights == "float32":
        return None, "kept float by the recipe" if family is not None else _NO_KERNEL
    if precision.activations in {"float32", "dynamic-int8"}:
        return _holds_weights(module, node, family)
    if family is None:
        return None, _NO_KERNEL
    if family.role == "float":
        return None, family.reason
    return _fits(module, node, family)


def _holds_weights(module: GraphModule, node: Node, family: Family | None) -> tuple[Family | None, str]:
    """The row of a layer whose weights can be stored smaller; what has no weights is float as the recipe wants it."""
    if family is None or family.role != "weighted":
        return None, ""
    if constant(module, node.args[family.weight]) is None:  # type: ignore[index]
        return None, "its weight is computed, not constant"
    return family, ""


def _fits(module: GraphModule, node: Node, family: Family) -> tuple[Family | None, str]:
    if family.role == "weighted":
        weight = constant(module, node.args[family.weight])  # type: ignore[index]
        if weight is None:
            return None, "its weight is computed, not constant"
        groups = node.args[6] if family.name == "conv_transpose" and len(node.args) > 6 else 1
        if family.name == "conv_transpose" and groups != 1:
            return None, "grouped transposed convolution has no integer kernel"
        return family, ""
    if family.name == "mean" and not _is_global_mean(node):
        return None, "windows of different sizes have no integer kernel"
    arguments: Any = node.args[0] if family.inputs == "list" else [node.args[i] for i in family.inputs]
    if any(not isinstance(argument, Node) or not _is_float(argument) for argument in arguments):
        return None, "one operand is no float tensor"
    return _fits_constants(module, node, family, arguments)


def _fits_constants(module: GraphModule, node: Node, family: Family, arguments: Sequence[Node]) -> tuple[Family | None, str]:
    """Whether the constants among a kernel's operands can share a grid, or have one beside the others'."""
    held = [value for argument in arguments if (value := constant(module, argument)) is not None]
    if not held:
        return family, ""
    if len(held) == len(arguments) or family.name not in {"add", "sub", "mul", "concat"}:
        return None, "one operand is a constant tensor"
    largest = max(float(value.abs().max()) if value.numel() else 0.0 for value in held)
    lowest = min(float(value.min()) if value.numel() else 0.0 for value in held)
    is_mask = lowest < _LOWEST_BIAS and any("softmax" in str(user.target) for user in node.users)
    if is_mask or not largest < _LARGEST_CONSTANT:
        return None, "no grid holds both its constant operand (a mask) and the values it leaves"
    return family, ""


def _is_global_mean(node: Node) -> bool:
    if str(node.target) == "aten.mean.dim":
        return node.args[1] is not None
    size: Any = node.args[1]
    return all(part == 1 for part in (size if isinstance(size, list | tuple) else [size]))


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32


def _computes_float(node: Node) -> bool:
    """Whether the node turns tensors into float tensors; picking from a tuple and making constants do not."""
    value = node.meta.get("val")
    parts = value if isinstance(value, tuple | list) else [value]
    makes = any(isinstance(part, torch.Tensor) and part.dtype == torch.float32 for part in parts)
    return makes and bool(node.all_input_nodes) and node.target is not operator.getitem


def _operator(node: Node) -> str:
    return getattr(node.target, "__name__", str(node.target)).removeprefix("aten.").split(".")[0]


def _fused_end(node: Node, family: Family) -> Node:
    """The clamp that follows directly and alone, if the family's kernels saturate for free; else the node itself."""
    if family.name in _FUSING_FAMILIES and len(node.users) == 1:
        follower = next(iter(node.users))
        if str(follower.target) in _CLAMPS and follower.args[0] is node:
            return follower
    return node


def _name_inputs(module: GraphModule, values: Mapping[Node, Value], names: Sequence[str]) -> None:
    """Call the inputs what the task calls them."""
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    for node, name in zip(placeholders, names, strict=False):
        if node in values:
            values[node].name = name


def _name_values(module: GraphModule, kernels: Sequence[Kernel]) -> dict[Node, Value]:
    """A value for each kernel's result and each float value or input a kernel reads, in graph order."""
    by_end = {kernel.end: kernel for kernel in kernels}
    read = {argument: kernel for kernel in reversed(kernels) for argument in kernel.activation_arguments}
    nodes = [node for node in module.graph.nodes if node in by_end or node in read]
    layers = [_layer_of_value(node, by_end, read) for node in nodes]
    taken: Counter[str] = Counter()
    values: dict[Node, Value] = {}
    for node, layer in zip(nodes, layers, strict=True):
        kernel = by_end.get(node)
        base = _base_name(node, layer, kernel, alone=layers.count(layer) == 1)
        taken[base] += 1
        values[node] = Value(
            node=node,
            name=base if taken[base] == 1 else f"{base}:{taken[base]}",
            layer=layer,
            op=_operator_of(kernel, node),
            is_input=node.op == "placeholder",
            made_by_kernel=kernel is not None,
            fixed_range=kernel.family.range if kernel else _constant_range(module, node, read[node]),
            group=len(values),
        )
    return values


def _layer_of_value(node: Node, makers: Mapping[Node, Kernel], readers: Mapping[Node, Kernel]) -> str:
    """The layer that makes a value; of a constant, the first that reads it."""
    if node in makers:
        return makers[node].layer
    return readers[node].layer if node.op == "get_attr" else layer_of(node)


def _constant_range(module: GraphModule, node: Node, reader: Kernel) -> tuple[float, float] | None:
    """A constant operand's own range; None for what calibration finds, and where the constant shares its reader's grid."""
    value = constant(module, node)
    return None if value is None or reader.family.role == "shared" else constant_range(value)


def _operator_of(kernel: Kernel | None, node: Node) -> str:
    if kernel is None:
        return {"placeholder": "input", "get_attr": "constant"}.get(node.op) or _operator(node)
    first = _operator(kernel.node)
    return first if kernel.end is kernel.node else f"{first}+{_operator(kernel.end)}"


def _base_name(node: Node, layer: str, kernel: Kernel | None, *, alone: bool) -> str:
    """Module path for the one result of a ``torch.nn`` layer, ``path.op`` for an operator written in a ``forward``."""
    if node.op in {"placeholder", "get_attr"}:
        return node.name if node.op == "placeholder" else str(node.target)
    first = kernel.node if kernel else node
    stack = first.meta.get("nn_module_stack") or {}
    owner = str(list(stack.values())[-1][1]) if stack else ""
    if layer and alone and owner.startswith("torch.nn.modules."):
        return layer
    return f"{layer}.{_operator(first)}" if layer else _operator(first)


def _share_grids(kernels: Sequence[Kernel], values: dict[Node, Value]) -> list[tuple[Node, Node]]:
    """Give inputs and output of each shared kernel one group; return the edges that cannot share."""
    edges: list[tuple[Node, Node]] = []
    for kernel in kernels:
        if kernel.family.role != "shared":
            continue
        inputs = [(argument, values[argument]) for argument in kernel.activation_arguments]
        same = len({value.fixed_range for _, value in inputs}) == 1
        for argument, value in inputs:
            if value.dtype == values[kernel.end].dtype and (same or value.fixed_range is None):
                _merge(values, value, values[kernel.end])
            else:  # e.g. a sigmoid's output beside others in a concat
                edges.append((argument, kernel.node))
    return edges


def _merge(values: dict[Node, Value], first: Value, second: Value) -> None:
    keep, drop = sorted((first.group, second.group))
    fixed = first.fixed_range or second.fixed_range
    for value in values.values():
        if value.group in {keep, drop}:
            value.group = keep
            value.fixed_range = fixed
