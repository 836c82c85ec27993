"""The compressed program in the form litert_torch lowers to integers. Every rewrite here is exact.

* **Unfolded weights**: ``int8 constant -> dequantize`` becomes ``float constant -> quantize -> dequantize``, the only form in
  which the LiteRT compiler recognises a quantized weight. It folds the pair back to the same integers.
* **Cropped transposed convolutions** and **pooled maxima**, where TFLite lacks the padding or the operator, and **repetition
  for expansion**, which the compiler gets wrong before a matmul (multi-query attention).
* **Binary operators before reshapes** (:mod:`tflite_hoist`), where the compiler would lose a grid.
* **Pinned grids**: a reshape, transpose or slice of a dequantized value is quantized again on the same grid. Left open, the
  compiler moves the next layer's grid up through it, and rounds and saturates twice.
* **Fences between types**: where int8 meets int16, ``ceil(floor(x))`` stands between dequantize and quantize, or the compiler
  takes away one of the two grids and writes kernels that do not exist. ``remove_fences`` takes them out of the file again.
* **One dequantize a reader**: litert-torch 0.10.0 forgets the axis order of a dequantize node after putting a transpose behind
  it (``OptimizeLayoutTransposesPass.insert_t_q_dq`` overwrites ``input_dq.meta``), and a second reader gets the wrong order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgekit.converters.tflite_hoist import hoist_binaries
from edgekit.converters.tflite_lift import lift
from edgekit.converters.tflite_nodes import RESHAPES, add_constant, constant, operator_name, rank_of
from edgekit.core.program import register_operators

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

__all__ = ["lowerable"]

_MOVES = RESHAPES | {"permute", "transpose", "slice", "select", "getitem"}
_CLAMPS = {"relu", "relu6", "hardtanh", "clamp", "clamp_min"}
_MOST_REPETITIONS = 64
_SPLITS = {"unbind", "split", "split_with_sizes", "chunk"}


def lowerable(program: ExportedProgram) -> GraphModule:
    """A new module that computes the same function in the form above; inputs and outputs keep their shapes.

    Args:
        program: A compressed program, or a float one.
    """
    register_operators()
    module: Any = program.module(check_guards=False)
    _unfold_weights(module)
    _crop_transposed_convolutions(module)
    _replace_adaptive_maxima(module)
    _repeat_expanded(module)
    hoist_binaries(module)
    _pin_grids(module)
    _fence_types(module)
    _split_dequantizes(module)
    module.recompile()
    lifted = lift(module)
    lifted.training = False  # exported modules cannot be put into eval mode; they are in it
    return lifted


def _unfold_weights(module: GraphModule) -> None:
    """Give every dequantized constant a float value and a quantize node of its own."""
    import torch

    decomposed: Any = torch.ops.quantized_decomposed
    quantizers = {
        "dequantize_per_channel": decomposed.quantize_per_channel.default,
        "dequantize_per_tensor": decomposed.quantize_per_tensor.default,
    }
    for node in list(module.graph.nodes):
        quantize = quantizers.get(operator_name(node))
        if quantize is None or node.args[0].op != "get_attr":
            continue
        arguments = [constant(module, argument) if hasattr(argument, "op") else argument for argument in node.args]
        with module.graph.inserting_before(node):
            value = add_constant(module, module.graph, node.target(*arguments))
            node.args = (module.graph.call_function(quantize, (value, *node.args[1:])), *node.args[1:])
    module.graph.eliminate_dead_code()


def _crop_transposed_convolutions(module: GraphModule) -> None:
    """Compute padded transposed convolutions whole and cut the padding off, where TFLite's padding is another.

    ``out = full[p : p + size]`` with ``full`` of size ``(L - 1) * stride + dilation * (K - 1) + 1``. TFLite knows no padding
    (VALID), or ``K - stride`` in all, the smaller half in front (SAME).
    """
    import torch

    for node in list(module.graph.nodes):
        if operator_name(node) not in {"conv_transpose1d", "conv_transpose2d"}:
            continue
        sizes = [int(size) for size in node.meta["val"].shape[2:]]
        stride, padding, extra, groups, dilation = _transposed_arguments(node, len(sizes))
        kernel = _constant_shape(module, node.args[1])[2:]
        same = all(2 * p - e == k - s and p == (k - s) // 2 for k, s, p, e in zip(kernel, stride, padding, extra, strict=True))
        if not any(padding) or (same and not any(extra)) or any(e > p for e, p in zip(extra, padding, strict=True)):
            continue
        bias = node.args[2] if len(node.args) > 2 else None
        node.args = (*node.args[:2], bias, stride, [0] * len(sizes), [0] * len(sizes), groups, dilation)
        cut = _end_of_layer(node)
        for axis, (size, start) in enumerate(zip(sizes, padding, strict=True), start=2):
            cut = _insert_after(module, cut, torch.ops.aten.slice.Tensor, axis, start, start + size)


def _end_of_layer(node: Node) -> Node:
    """The dequantize node of a layer's result, behind its activation, where the layer is quantized; else the layer itself."""
    current = node
    while len(current.users) == 1:
        (follower,) = current.users
        name = operator_name(follower)
        if name == "dequantize_per_tensor":
            return follower
        if name not in _CLAMPS | {"quantize_per_tensor"}:
            break
        current = follower
    return node


def _transposed_arguments(node: Node, rank: int) -> tuple[Any, ...]:
    """Stride, padding, output padding, groups, dilation; one number an axis."""
    defaults: list[Any] = [[1], [0], [0], 1, [1]]
    values = [*node.args[3:], *defaults[len(node.args[3:]) :]]
    return tuple(list(value) * (rank if len(value) == 1 else 1) if isinstance(value, list | tuple) else value for value in values)


def _constant_shape(module: GraphModule, node: Any) -> tuple[int, ...]:
    while node.op != "get_attr":
        node = node.args[0]
    return tuple(constant(module, node).shape)


def _replace_adaptive_maxima(module: GraphModule) -> None:
    """``adaptive_max_pool`` over equal windows, its indices unread, is ``max_pool``."""
    import torch

    aten = torch.ops.aten
    for node in list(module.graph.nodes):
        name = operator_name(node)
        if name not in {"adaptive_max_pool1d", "adaptive_max_pool2d"} or any(user.args[1] != 0 for user in node.users):
            continue
        before, after = node.args[0].meta["val"].shape[2:], node.meta["val"][0].shape[2:]
        if any(int(size) % int(wanted) for size, wanted in zip(before, after, strict=True)):
            continue
        window = [int(size) // int(wanted) for size, wanted in zip(before, after, strict=True)]
        for user in list(node.users):
            with module.graph.inserting_before(user):
                target = aten.max_pool1d.default if name.endswith("1d") else aten.max_pool2d.default
                pooled = module.graph.call_function(target, (node.args[0], window))
            pooled.meta = dict(user.meta)
            user.replace_all_uses_with(pooled)
            module.graph.erase_node(user)
        module.graph.erase_node(node)


def _repeat_expanded(module: GraphModule) -> None:
    """``expand`` along one axis of a computed value is ``cat`` of copies."""
    import torch

    for node in list(module.graph.nodes):
        if operator_name(node) != "expand" or node.args[0].op == "get_attr" or rank_of(node) != rank_of(node.args[0]):
            continue
        before, after = node.args[0].meta["val"].shape, node.meta["val"].shape
        grown = [axis for axis, (one, many) in enumerate(zip(before, after, strict=True)) if one != many]
        if len(grown) != 1 or not isinstance(after[grown[0]], int) or after[grown[0]] > _MOST_REPETITIONS:
            continue
        node.target, node.args = torch.ops.aten.cat.default, ([node.args[0]] * after[grown[0]], grown[0])


def _pin_grids(module: GraphModule) -> None:
    """Quantize and dequantize what a move makes of a dequantized value, on that value's grid."""
    import torch

    decomposed: Any = torch.ops.quantized_decomposed
    grids: dict[Any, Any] = {}
    for node in list(module.graph.nodes):
        name = operator_name(node)
        if name == "dequantize_per_tensor":
            grids[node] = node.args[1:]
        grid = grids.get(node.args[0]) if name in _MOVES | _SPLITS and hasattr(node.args[0], "op") else None
        if grid is None:
            continue
        grids[node] = grid
        # A quantize that follows anyway needs no pin; given one, the compiler finds two grids at one reshape and gives up.
        if name in _MOVES and not any(operator_name(user) == "quantize_per_tensor" for user in node.users):
            integers = _insert_after(module, node, decomposed.quantize_per_tensor.default, *grid)
            grids[_insert_after(module, integers, decomposed.dequantize_per_tensor.default, *grid)] = grid


def _insert_after(module: GraphModule, node: Node, target: Any, *arguments: Any) -> Node:
    """Call ``target(node, *arguments)``; whoever read ``node`` reads the result."""
    with module.graph.inserting_after(node):
        made: Node = module.graph.call_function(target, (node, *arguments))
    made.meta = dict(node.meta)
    node.replace_all_uses_with(made, delete_user_cb=lambda user: user is not made)
    return made


def _fence_types(module: GraphModule) -> None:
    """Keep a value's two grids apart where they have different types."""
    import torch

    aten = torch.ops.aten
    for node in list(module.graph.nodes):
        source: Any = node.args[0] if operator_name(node) == "quantize_per_tensor" else None
        if source is None or operator_name(source) != "dequantize_per_tensor" or source.args[5] == node.args[5]:
            continue
        with module.graph.inserting_before(node):
            floor = module.graph.call_function(aten.floor.default, (source,))
            ceil = module.graph.call_function(aten.ceil.default, (floor,))
        floor.meta, ceil.meta = dict(source.meta), dict(source.meta)
        node.replace_input_with(source, ceil)


def _split_dequantizes(module: GraphModule) -> None:
    """Give every reader a dequantize node of its own."""
    for node in list(module.graph.nodes):
        if operator_name(node) != "dequantize_per_tensor":
            continue
        for reader in list(node.users)[1:]:
            with module.graph.inserting_after(node):
                own = module.graph.node_copy(node)
            reader.replace_input_with(node, own)
