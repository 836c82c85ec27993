"""Constants computed once, and arithmetic with constants folded into the layer before it."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

__all__ = ["add_constant", "constant_of", "emit", "fold_arithmetic", "fold_constants"]

_aten = torch.ops.aten
_LARGEST_GROWTH = 4
"""A folded constant may be so many times as large as what it is made of; a mask of a million zeros stays an operator."""
_SMALL = 4096
_RANDOM = ("rand", "bernoulli", "dropout", "normal")
_CONVOLUTIONS = {"aten.conv1d.default", "aten.conv2d.default", "aten.conv3d.default"}
_LAYERS = {*_CONVOLUTIONS, "aten.linear.default"}
_ADD = {"aten.add.Tensor", "aten.sub.Tensor", "aten.subtract.Tensor"}
_MULTIPLY = {"aten.mul.Tensor", "aten.multiply.Tensor", "aten.div.Tensor", "aten.divide.Tensor"}


def constant_of(module: GraphModule, node: Any) -> torch.Tensor | None:
    """The tensor a node stands for; None where it is computed."""
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    value: Any = module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value.detach() if isinstance(value, torch.Tensor) else None


def add_constant(module: GraphModule, value: torch.Tensor, *, like: str) -> Node:
    """A node at the start of the graph that stands for a constant."""
    name = next(name for name in (f"{like}_{count}" for count in range(1 << 30)) if not hasattr(module, name))
    module.register_buffer(name, value.detach().clone())
    with module.graph.inserting_before(next(iter(module.graph.nodes))):
        node = module.graph.get_attr(name)
    node.meta["val"] = value.detach().to("meta")
    return node


def emit(module: GraphModule, target: Any, *args: Any, before: Node) -> Node:
    """A new call in front of a node, whose shape is known."""
    with module.graph.inserting_before(before):
        node = module.graph.call_function(target, args)
    values = torch.fx.node.map_arg(args, lambda one: one.meta["val"])
    node.meta.update({key: before.meta[key] for key in ("nn_module_stack", "stack_trace") if key in before.meta})
    node.meta["val"] = target(*values)
    return node


def fold_constants(module: GraphModule) -> None:
    """Compute every call whose arguments are constants, unless it is random or makes something much larger."""
    for node in list(module.graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        sources = node.all_input_nodes
        held = [constant_of(module, source) for source in sources]
        value = node.meta.get("val")
        if any(one is None for one in held) or not isinstance(value, torch.Tensor) or _is_random(node):
            continue
        if value.numel() > max(_SMALL, _LARGEST_GROWTH * sum(one.numel() for one in held if one is not None)):
            continue
        known = dict(zip(sources, held, strict=True))
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
        node.replace_all_uses_with(add_constant(module, node.target(*args, **kwargs).contiguous(), like="folded"))
        module.graph.erase_node(node)


def _is_random(node: Node) -> bool:
    return any(word in str(node.target) for word in _RANDOM) or torch.Tag.nondeterministic_seeded in node.target.tags  # type: ignore[union-attr]


def fold_arithmetic(module: GraphModule) -> None:
    """``layer + constant`` and ``layer * constant`` by channel -> the layer's own weights; ``x @ constant`` -> a linear layer."""
    for node in list(module.graph.nodes):
        if node.op == "call_function" and str(node.target) in {"aten.matmul.default", "aten.mm.default"}:
            _as_linear(module, node)
    for node in list(module.graph.nodes):
        if node.op == "call_function" and str(node.target) in _ADD | _MULTIPLY:
            _fold_into_layer(module, node)


def _as_linear(module: GraphModule, node: Node) -> None:
    source, weight = node.args[:2]
    held = constant_of(module, weight)
    if held is None or held.ndim != 2 or not isinstance(source, Node):
        return
    made = emit(module, _aten.linear.default, source, add_constant(module, held.t().contiguous(), like="weight"), before=node)
    node.replace_all_uses_with(made)
    module.graph.erase_node(node)


def _fold_into_layer(module: GraphModule, node: Node) -> None:
    name = str(node.target)
    if node.kwargs or len(node.args) != 2:
        return
    first, second = node.args
    layer, other, is_first = (first, second, True) if _is_layer(first) else (second, first, False)
    if not isinstance(layer, Node) or not _is_layer(layer) or len(layer.users) != 1:
        return
    numbers = _by_channel(module, layer, other)
    if numbers is None or (name in {"aten.div.Tensor", "aten.divide.Tensor"} and not is_first):
        return
    if name in _MULTIPLY:
        _rewrite(module, layer, 1 / numbers if "div" in name else numbers, torch.zeros_like(numbers))
    elif "sub" in name:
        sign = 1.0 if is_first else -1.0
        _rewrite(module, layer, torch.full_like(numbers, sign), -sign * numbers)
    else:
        _rewrite(module, layer, torch.ones_like(numbers), numbers)
    node.replace_all_uses_with(layer)
    module.graph.erase_node(node)


def _is_layer(node: Any) -> bool:
    return isinstance(node, Node) and node.op == "call_function" and str(node.target) in _LAYERS


def _by_channel(module: GraphModule, layer: Node, other: Any) -> torch.Tensor | None:
    """A constant as one number for each output channel of a layer, ``[C]``; None where it is something else."""
    weight = constant_of(module, layer.args[1])
    if weight is None or weight.dtype is not torch.float32:
        return None
    count, rank = weight.shape[0], layer.meta["val"].ndim
    if isinstance(other, int | float) and not isinstance(other, bool):
        return torch.full((count,), float(other))
    held = constant_of(module, other)
    if held is None or held.ndim > rank or held.dtype is not torch.float32:
        return None
    axis = rank - 1 if str(layer.target) == "aten.linear.default" else 1
    shape = [1] * (rank - held.ndim) + list(held.shape)
    if any(size != 1 for at, size in enumerate(shape) if at != axis) or shape[axis] not in {1, count}:
        return None
    return held.reshape(-1).expand(count).clone()


def _rewrite(module: GraphModule, layer: Node, factor: torch.Tensor, shift: torch.Tensor) -> None:
    """Let the layer compute ``factor * layer + shift``, in float64 so that chains of folds round once each."""
    args = [*layer.args, *[None] * (3 - len(layer.args))]
    weight, bias = constant_of(module, args[1]), constant_of(module, args[2])
    if weight is None:
        return
    wide = factor.double()
    made = (weight.double() * wide.reshape(-1, *[1] * (weight.ndim - 1))).float()
    base = torch.zeros_like(wide) if bias is None else bias.double()
    args[1] = add_constant(module, made, like="weight")
    args[2] = add_constant(module, (base * wide + shift.double()).float(), like="bias")
    layer.args = tuple(args)
