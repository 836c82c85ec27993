"""One form for arithmetic with constants: what can be folded away is, the rest has tensors for operands.

========================================= ====================================================================
captured                                   canonical
========================================= ====================================================================
operators of constants only                their result
``x + 1``, ``2 * x``, ``x - c``            ``add`` and ``mul`` of a constant tensor; ``x - c`` is ``x + (-c)``
``x / c``                                  ``mul`` by ``1 / c``
``1 - x``, ``rsub``                        ``sub`` of a constant tensor
``add(x, y, alpha=a)``                     ``add(x, a * y)``
``mm``, ``addmm``, ``x @ W``               ``linear``, where the matrix is constant
a number or a channel's own times a layer  folded into the layer's weights and bias; added: into its bias
``-x``                                     ``mul`` by -1
``silu(x)``                                ``x * sigmoid(x)``
``hardsigmoid(x)``                         ``clamp(x + 3, 0, 6) * (1 / 6)``
========================================= ====================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.fx.node import map_arg

from edgekit.compression.quantize.nodes import constant, insert_call, put_constant, rank_of, shape_of, substitute

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

__all__ = ["fold_constants", "fold_into_layers", "spell_out_arithmetic"]

aten = torch.ops.aten

_MOST_FOLDED = 2**20  # values; what is larger (a mask for every pair of long sequences, say) stays a recipe of few bytes
_OF_A_SHAPE = {f"aten.{name}.default" for name in ("new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like")}
_RANDOM = ("rand", "bernoulli", "dropout", "multinomial", "normal", "empty")
_OPERANDS = {
    "aten.add.Tensor", "aten.sub.Tensor", "aten.mul.Tensor", "aten.div.Tensor", "aten.add.Scalar", "aten.sub.Scalar",
    "aten.mul.Scalar", "aten.div.Scalar", "aten.rsub.Scalar", "aten.rsub.Tensor",
}  # fmt: skip
_CHANNELS_OUT = {
    "aten.conv1d.default": 0, "aten.conv2d.default": 0, "aten.conv3d.default": 0, "aten.linear.default": 0,
    "aten.conv_transpose1d.default": 1, "aten.conv_transpose2d.input": 1, "aten.conv_transpose3d.input": 1,
}  # fmt: skip
_MOVES = {
    "aten.reshape.default", "aten.permute.default", "aten.transpose.int", "aten.unsqueeze.default", "aten.squeeze.dim",
    "aten.flatten.using_ints", "aten.unflatten.int",
}  # fmt: skip


def fold_constants(module: GraphModule) -> None:
    """Compute what depends on constants alone: positions, masks, normed weights. Integers stay integers.

    What is multiplied by zeros (the first state of a recurrent layer) is zero, and zeros that are added are left out.
    """
    for node in list(module.graph.nodes):
        if _drop_zeros(module, node):
            continue
        if node.op != "call_function" or not isinstance(node.meta.get("val"), torch.Tensor) or not _is_pure(node):
            continue
        is_shaped = str(node.target) in _OF_A_SHAPE
        held = {source: _shaped(source) if is_shaped else constant(module, source) for source in node.all_input_nodes}
        if any(value is None for value in held.values()):
            continue
        read = max((value.numel() for value in held.values() if value is not None), default=0)
        if node.meta["val"].numel() > max(_MOST_FOLDED, read):
            continue
        arguments, keywords = map_arg((node.args, node.kwargs), held.__getitem__)
        with torch.no_grad():
            result = node.target(*arguments, **keywords)
        made = put_constant(module, f"{node.name}_constant", result, before=node)
        made.meta = {**node.meta, "val": made.meta["val"].to("meta")}
        substitute(module, node, made)


def _drop_zeros(module: GraphModule, node: Node) -> bool:
    """``x * 0`` becomes zeros, ``x + 0`` becomes ``x``; whether the node is gone."""
    name = str(node.target)
    if name not in {"aten.mul.Tensor", "aten.add.Tensor"} or len(node.args) != 2 or node.kwargs or not _is_float(node):
        return False
    for operand, other in (node.args, node.args[::-1]):
        held = constant(module, operand)
        if held is None or held.numel() < 2 or bool(held.count_nonzero()):
            continue
        if name == "aten.mul.Tensor" and node.meta["val"].numel() <= _MOST_FOLDED and _shaped(node) is not None:
            made = put_constant(module, f"{node.name}_zeros", torch.zeros(node.meta["val"].shape), before=node)
            made.meta = {**node.meta, "val": made.meta["val"].to("meta")}
            substitute(module, node, made)
            return True
        if name == "aten.add.Tensor" and _is_float(other) and shape_of(other) == shape_of(node):
            substitute(module, node, other)  # type: ignore[arg-type]
            return True
    return False


def _shaped(node: Node) -> torch.Tensor | None:
    """A tensor of a node's shape and type, for an operator that reads nothing else of it; None where a size is open."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or not all(isinstance(size, int) for size in value.shape):
        return None
    return torch.zeros(value.shape, dtype=value.dtype)


def _is_pure(node: Node) -> bool:
    """Whether a call gives the same result each time and touches nothing else."""
    name = str(node.target)
    schema = getattr(node.target, "_schema", None)
    return name.startswith("aten.") and schema is not None and not schema.is_mutable and not any(part in name for part in _RANDOM)


def spell_out_arithmetic(module: GraphModule) -> None:
    """Bring operands and compound activations into the form above, product by product."""
    for node in list(module.graph.nodes):
        name = str(node.target)
        if name in _OPERANDS:
            _spell_out_operands(module, node)
        elif name in {"aten.mm.default", "aten.matmul.default", "aten.addmm.default"}:
            _spell_out_product(module, node)
        elif name == "aten.neg.default" and _is_float(node):
            minus = _number(module, node, -1.0, rank_of(node))
            substitute(module, node, insert_call(module, node, aten.mul.Tensor, node.args[0], minus))
        elif name == "aten.silu.default":
            gate = insert_call(module, node, aten.sigmoid.default, node.args[0])
            substitute(module, node, insert_call(module, node, aten.mul.Tensor, node.args[0], gate))
        elif name == "aten.hardsigmoid.default":
            three, sixth = (_number(module, node, value, rank_of(node)) for value in (3.0, 1 / 6))
            moved = insert_call(module, node, aten.add.Tensor, node.args[0], three)
            clamped = insert_call(module, node, aten.hardtanh.default, moved, 0.0, 6.0)
            substitute(module, node, insert_call(module, node, aten.mul.Tensor, clamped, sixth))


def _is_float(node: object) -> bool:
    value = getattr(node, "meta", {}).get("val")
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32


def _number(module: GraphModule, node: Node, value: float, rank: int) -> Node:
    """A number as a tensor that broadcasts."""
    return put_constant(module, f"{node.name}_number", torch.full([1] * rank, float(value)), before=node)


def _spell_out_operands(module: GraphModule, node: Node) -> None:
    """Write one addition, subtraction, product or quotient with tensors; integer arithmetic is left alone."""
    kind = str(node.target).split(".")[1]
    operands: list[Any] = list(node.args[:2])
    tensors = [operand for operand in operands if hasattr(operand, "op")]
    if not _is_float(node) or not all(_is_float(operand) for operand in tensors) or node.kwargs.get("rounding_mode"):
        return
    alpha: Any = node.kwargs.get("alpha", node.args[2] if kind == "rsub" and len(node.args) > 2 else 1)
    rank = rank_of(node)
    first, second = (operand if hasattr(operand, "op") else _number(module, node, operand, rank) for operand in operands)
    if kind == "rsub":
        first, second, kind = second, first, "sub"
        if alpha != 1:
            second = insert_call(module, node, aten.mul.Tensor, second, _number(module, node, alpha, rank))
    elif alpha != 1:
        second = insert_call(module, node, aten.mul.Tensor, second, _number(module, node, alpha, rank))
    held = constant(module, second)
    if kind == "div" and held is not None:
        kind, second = "mul", put_constant(module, f"{node.name}_inverse", 1 / held, before=node)
    elif kind == "sub" and held is not None:
        kind, second = "add", put_constant(module, f"{node.name}_negative", -held, before=node)
    if kind == "div":
        return
    target = {"add": aten.add.Tensor, "sub": aten.sub.Tensor, "mul": aten.mul.Tensor}[kind]
    substitute(module, node, insert_call(module, node, target, first, second))


def _spell_out_product(module: GraphModule, node: Node) -> None:
    """``x @ W (+ b)`` with constant ``W`` ``[I, O]`` is a linear layer."""
    bias = node.args[0] if str(node.target) == "aten.addmm.default" else None
    source, matrix = node.args[-2:]
    held, shift = constant(module, matrix), constant(module, bias)
    plain = node.kwargs.get("beta", 1) == 1 and node.kwargs.get("alpha", 1) == 1
    if (
        held is None
        or held.ndim != 2
        or not _is_float(source)
        or not plain
        or (bias is not None and (shift is None or shift.ndim != 1))
    ):
        return
    weight = put_constant(module, f"{matrix.target}_transposed", held.T, before=node)  # type: ignore[union-attr]
    arguments = (source, weight) if bias is None else (source, weight, bias)
    substitute(module, node, insert_call(module, node, aten.linear.default, *arguments))


def fold_into_layers(module: GraphModule) -> None:
    """Fold products and sums with constants into the layer before, as batch normalisation is folded."""
    for node in list(module.graph.nodes):
        if str(node.target) not in {"aten.mul.Tensor", "aten.add.Tensor"}:
            continue
        sources = [operand for operand in node.args[:2] if constant(module, operand) is None]
        held = [value for operand in node.args[:2] if (value := constant(module, operand)) is not None]
        if len(sources) != 1 or len(held) != 1 or not bool(torch.isfinite(held[0]).all()):
            continue
        is_product = str(node.target) == "aten.mul.Tensor"
        layer = _layer_before(sources[0], through_moves=is_product and held[0].numel() == 1)
        factors = None if layer is None else _by_channel(module, layer, held[0], direct=layer is sources[0])
        if layer is None or factors is None or shape_of(node) != shape_of(sources[0]):
            continue
        _fold(module, layer, factors, is_product=is_product)
        substitute(module, node, sources[0])


def _layer_before(source: Any, *, through_moves: bool) -> Node | None:
    """The layer whose result is read here and nowhere else, directly or only moved about; None where there is none."""
    current = source
    while len(current.users) == 1:
        name = str(current.target)
        if name in _CHANNELS_OUT:
            return current  # type: ignore[no-any-return]
        if not through_moves or name not in _MOVES | {"aten.matmul.default", "aten.bmm.default"}:
            return None
        current = current.args[0]
    return None


def _by_channel(module: GraphModule, layer: Node, held: torch.Tensor, *, direct: bool) -> torch.Tensor | None:
    """A constant as one value a channel, ``[C]``; None where it differs along another axis."""
    weight = constant(module, layer.args[1])
    groups: Any = layer.args[6] if "transpose" in str(layer.target) and len(layer.args) > 6 else 1
    if (
        weight is None
        or groups != 1
        or (len(layer.args) > 2 and layer.args[2] is not None and constant(module, layer.args[2]) is None)
    ):
        return None
    count = weight.shape[_CHANNELS_OUT[str(layer.target)]]
    if held.numel() == 1:
        return held.reshape(1).expand(count)
    rank = rank_of(layer)
    wide = [1] * (rank - held.ndim) + list(held.shape)
    axis = rank - 1 if str(layer.target) == "aten.linear.default" else 1
    return held.reshape(count) if direct and wide == [count if at == axis else 1 for at in range(rank)] else None


def _fold(module: GraphModule, layer: Node, factors: torch.Tensor, *, is_product: bool) -> None:
    """Multiply a layer's output channels, or add to them; its old constants are left to other readers."""
    weight: Any = constant(module, layer.args[1])
    bias = constant(module, layer.args[2]) if len(layer.args) > 2 else None
    arguments: list[Any] = list(layer.args)
    stem = str(arguments[1].target)
    if is_product:
        axis = _CHANNELS_OUT[str(layer.target)]
        scaled = weight * factors.reshape([-1 if at == axis else 1 for at in range(weight.ndim)])
        arguments[1] = put_constant(module, f"{stem}_scaled", scaled, before=layer)
        shift = None if bias is None else bias * factors
    else:
        shift = factors if bias is None else bias + factors
    if shift is not None:
        arguments[2:3] = [put_constant(module, f"{stem}_shift", shift, before=layer)]
    layer.args = tuple(arguments)
