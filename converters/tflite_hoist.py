"""Reshapes behind binary operators, where the LiteRT compiler would put them anyway, and lose a grid.

The compiler turns ``add(reshape(a), reshape(b))`` into ``reshape(add(a, b))``. It does so before it looks at grids; the
reshape then stands between the sum and its quantize node, and as reshapes keep their grid, the sum gets its operand's::

    a ─ reshape ─ add ─ Q(sum)        a ─ add ─ reshape ─ Q(sum)        a ─ add ─ Q(sum) ─ reshape
    b ─ reshape ┘                     b ┘                               b ┘
    the program                       the compiler's: wrong grid        here

A selection is a slice and a reshape, so ``x[:, 0] + x[:, 1]`` is such a sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgekit.converters.tflite_nodes import RESHAPES, operator_name

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

__all__ = ["hoist_binaries"]

_BINARY = {"add", "sub", "mul"}
_FOLLOWERS = {"relu", "relu6", "hardtanh", "clamp", "clamp_min", "quantize_per_tensor", "dequantize_per_tensor"}


def hoist_binaries(module: GraphModule) -> None:
    """Compute sums and products of two equally reshaped values before the reshape, together with their grid."""
    for node in list(module.graph.nodes):
        if operator_name(node) not in _BINARY:
            continue
        shape = _shape(node)
        sources = [source for argument in node.args[:2] if (source := _before_reshape(argument, shape)) is not None]
        if len(sources) < len(node.args[:2]) or len({_kept_shape(source) for source in sources}) != 1:
            continue
        kept = [_kept(module, source) for source in sources]
        node.args = (*kept, *node.args[2:])
        end = _settle(node, kept[0].meta["val"])
        _reshape_after(module, end, shape)
    module.graph.eliminate_dead_code()


def _reshape_after(module: GraphModule, node: Node, shape: tuple[int, ...]) -> None:
    """Let whoever read ``node`` read it in another shape."""
    import torch

    with module.graph.inserting_after(node):
        moved: Node = module.graph.call_function(torch.ops.aten.reshape.default, (node, list(shape)))
    moved.meta = {**node.meta, "val": node.meta["val"].reshape(shape)}
    node.replace_all_uses_with(moved, delete_user_cb=lambda user: user is not moved)


def _shape(node: Any) -> tuple[int, ...]:
    value: Any = node.meta.get("val") if hasattr(node, "meta") else None
    return tuple(int(size) for size in value.shape) if hasattr(value, "shape") else ()


def _before_reshape(argument: Any, shape: tuple[int, ...]) -> Node | None:
    """The reshape or selection that makes an operand, seen through its grid; None for anything else."""
    current: Any = argument
    if _shape(current) != shape:
        return None
    if operator_name(current) == "dequantize_per_tensor" and operator_name(current.args[0]) == "quantize_per_tensor":
        quantize = current.args[0]
        source: Any = quantize.args[0]
        maker: Any = source.args[0] if getattr(source, "args", ()) else None
        if not hasattr(maker, "op") or operator_name(maker) != "dequantize_per_tensor" or maker.args[1:] != quantize.args[1:]:
            return None
        current = source
    if not hasattr(current, "op") or operator_name(current) not in RESHAPES | {"select"}:
        return None
    return current  # type: ignore[no-any-return]


def _kept_shape(move: Any) -> tuple[int, ...]:
    """Shape of the operand before the reshape; of a selection, with the axis it selects from."""
    shape = list(_shape(move.args[0]))
    if operator_name(move) == "select":
        shape[move.args[1]] = 1
    return tuple(shape)


def _kept(module: GraphModule, move: Any) -> Node:
    """The operand before the reshape."""
    import torch

    source: Node = move.args[0]
    if operator_name(move) != "select":
        return source
    axis, at = move.args[1], move.args[2] % _shape(source)[move.args[1]]
    with module.graph.inserting_after(move):
        part: Node = module.graph.call_function(torch.ops.aten.slice.Tensor, (source, axis, at, at + 1))
    part.meta = {**move.meta, "val": source.meta["val"].narrow(axis, at, 1)}
    return part


def _settle(node: Node, value: Any) -> Node:
    """Give a layer's nodes the shape of ``value``; returns the last of them: behind its activation and its grid."""
    current = node
    current.meta = {**current.meta, "val": value}
    while len(current.users) == 1 and operator_name(next(iter(current.users))) in _FOLLOWERS:
        current = next(iter(current.users))
        current.meta = {**current.meta, "val": value}
        if operator_name(current) == "dequantize_per_tensor":
            break
    return current
