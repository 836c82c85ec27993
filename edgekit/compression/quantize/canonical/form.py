"""Captured program -> canonical float graph: one form for each thing the quantizer must recognise.

In order: compute both branches of ``torch.cond``; drop what does nothing at inference; make in-place operators functional;
compute what is constant; write data movement, projections, attention and arithmetic in one way each (:mod:`movement`,
:mod:`chains`, :mod:`projections`, :mod:`attention`, :mod:`arithmetic`); fold batch normalisation into the convolution or linear
layer before it, and turn one that stands alone into a depthwise 1x1 convolution (an integer kernel everywhere). The result
computes the same function; :func:`canonicalize` checks it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Graph, GraphModule, Node

from edgekit.compression.quantize.canonical.arithmetic import fold_constants, fold_into_layers, spell_out_arithmetic
from edgekit.compression.quantize.canonical.attention import spell_out_attention
from edgekit.compression.quantize.canonical.branches import take_both_branches
from edgekit.compression.quantize.canonical.chains import shorten_chains
from edgekit.compression.quantize.canonical.movement import spell_out_movement
from edgekit.compression.quantize.canonical.projections import unpack_projections
from edgekit.compression.quantize.nodes import constant, copy_used, describe_values, put_constant
from edgekit.core.errors import ContractError
from edgekit.core.program import run_program

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.export import ExportedProgram

__all__ = ["canonicalize", "constant", "copy_graph", "copy_used", "put_constant"]

aten = torch.ops.aten

_IDENTITIES = {
    str(op)
    for op in (
        aten.dropout.default, aten.dropout_.default, aten.feature_dropout.default, aten.alias.default, aten.detach.default,
        aten.detach_.default,
        aten.contiguous.default, aten.clone.default, aten.lift_fresh_copy.default,
    )
}  # fmt: skip
_CHECKS = {"aten._assert_tensor_metadata.default", "aten._assert_scalar.default", "aten.sym_constrain_range_for_size.default"}
_CONVOLUTIONS = {"aten.conv1d.default": 0, "aten.conv2d.default": 0, "aten.conv3d.default": 0, "aten.linear.default": 0}
_PLACES = {"aten.slice.Tensor": aten.slice_scatter.default, "aten.select.int": aten.select_scatter.default}
_TRANSPOSED = {"aten.conv_transpose1d.default", "aten.conv_transpose2d.input"}
_LONE_NORM = {3: aten.conv1d.default, 4: aten.conv2d.default, 5: aten.conv3d.default}


def canonicalize(program: ExportedProgram, arguments: Sequence[torch.Tensor]) -> GraphModule:
    """A new graph module that computes the program's function in canonical form.

    Args:
        program: The captured float program (left as it is).
        arguments: Example inputs, for the numerical check.

    Raises:
        ContractError: The rewritten graph computes something else (a mutation through a view, say).
    """
    whole: Any = program.module(check_guards=False)
    take_both_branches(whole)
    module: GraphModule = copy_used(whole)
    _remove_checks(module)
    _make_functional(module)
    _remove_identities(module)
    describe_values(module)
    fold_constants(module)
    spell_out_movement(module)
    shorten_chains(module)
    unpack_projections(module)
    shorten_chains(module)
    spell_out_attention(module)
    spell_out_arithmetic(module)
    fold_into_layers(module)
    _fold_batch_norms(module)
    fold_into_layers(module)
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()
    _check_same(module, program, arguments)
    return module


def copy_graph(module: GraphModule) -> GraphModule:
    """A graph module with a graph and constants of its own; node names and ``meta["val"]`` stay."""
    graph = Graph()
    result = graph.graph_copy(module.graph, {})
    if result is not None:
        graph.output(result)
    used = {
        str(node.target): tensor.clone()
        for node in module.graph.nodes
        if node.op == "get_attr" and (tensor := constant(module, node)) is not None
    }
    return GraphModule(used, graph)


def _remove_checks(module: GraphModule) -> None:
    for node in list(module.graph.nodes):
        if str(node.target) in _CHECKS or (node.op == "call_module" and not node.users):
            module.graph.erase_node(node)


def _make_functional(module: GraphModule) -> None:
    """Replace ``relu_(x)`` by ``relu(x)``; everything later that read ``x``, or what ``x`` is a part of, reads the result."""
    nodes = list(module.graph.nodes)
    for position, node in enumerate(nodes):
        packet = getattr(node.target, "overloadpacket", None)
        name = getattr(packet, "__name__", "")
        if node.op != "call_function" or not name.endswith("_") or name.startswith("_") or not isinstance(node.args[0], Node):
            continue
        functional = getattr(getattr(aten, name[:-1], None), node.target._overloadname, None)
        if functional is None:
            continue
        node.target = functional
        later = set(nodes[position + 1 :])
        node.args[0].replace_all_uses_with(node, delete_user_cb=later.__contains__)
        _write_back(module, node.args[0], node, later)
    for node in list(module.graph.nodes):
        if str(node.target) == "aten.copy.default" and _is_alike(node, node.args[1]):
            node.replace_all_uses_with(node.args[1])
            module.graph.erase_node(node)


def _write_back(module: GraphModule, view: Node, value: Node, later: set[Node]) -> None:
    """``x[a:b]`` was edited in place: let everything later that read ``x`` read ``x`` with the new values at that place."""
    while str(view.target) in _PLACES:
        base: Any = view.args[0]
        with module.graph.inserting_after(value):
            made = module.graph.call_function(_PLACES[str(view.target)], (base, value, *view.args[1:]))
        made.meta = {**value.meta, "val": base.meta.get("val")}
        base.replace_all_uses_with(made, delete_user_cb=later.__contains__)
        view, value = base, made


def _is_alike(node: Node, other: Any) -> bool:
    one, two = node.meta.get("val"), other.meta.get("val") if isinstance(other, Node) else None
    return isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor) and (one.shape, one.dtype) == (two.shape, two.dtype)


def _remove_identities(module: GraphModule) -> None:
    for node in list(module.graph.nodes):
        if str(node.target) in _IDENTITIES and isinstance(node.args[0], Node):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)


def _fold_batch_norms(module: GraphModule) -> None:
    for node in list(module.graph.nodes):
        if str(node.target) != "aten.batch_norm.default":
            continue
        scale, shift = _affine(module, node)
        source = node.args[0]
        weight = constant(module, source.args[1]) if isinstance(source, Node) and len(source.args) > 1 else None
        if isinstance(source, Node) and len(source.users) == 1 and weight is not None and _can_fold(source):
            _fold_into(module, source, weight, scale, shift)
            node.replace_all_uses_with(source)
        else:
            node.replace_all_uses_with(_depthwise(module, node, scale, shift))
        module.graph.erase_node(node)


def _can_fold(source: Node) -> bool:
    if str(source.target) in _CONVOLUTIONS:
        return True
    groups = source.args[6] if len(source.args) > 6 else 1
    return str(source.target) in _TRANSPOSED and bool(groups == 1)


def _affine(module: GraphModule, node: Node) -> tuple[torch.Tensor, torch.Tensor]:
    """Batch norm at inference is ``scale * x + shift`` per channel (Ioffe and Szegedy, 2015); float64 for accuracy."""
    gamma, beta, mean, variance = (constant(module, argument) for argument in node.args[1:5])
    if mean is None or variance is None:
        raise ContractError(
            f"Batch norm '{node.name}' has no running statistics, so it cannot be folded. Train it with track_running_stats=True."
        )
    epsilon = node.args[7]
    scale = torch.rsqrt(variance.double() + float(epsilon))  # type: ignore[arg-type]
    scale = scale * gamma.double() if gamma is not None else scale
    shift = -mean.double() * scale
    return scale, shift + beta.double() if beta is not None else shift


def _fold_into(module: GraphModule, source: Node, weight: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> None:
    axis = _CONVOLUTIONS.get(str(source.target), 1)
    bias = constant(module, source.args[2]) if len(source.args) > 2 else None
    shape = [-1 if dimension == axis else 1 for dimension in range(weight.ndim)]
    folded = (weight.double() * scale.reshape(shape)).to(weight.dtype)
    shift = shift if bias is None else shift + bias.double() * scale
    stem = str(source.args[1].target).removesuffix("weight").rstrip(".")  # type: ignore[union-attr]
    arguments = list(source.args)
    arguments[1] = put_constant(module, f"{stem}.weight_folded", folded, before=source)
    arguments[2:3] = [put_constant(module, f"{stem}.bias_folded", shift.to(weight.dtype), before=source)]
    source.args = tuple(arguments)


def _depthwise(module: GraphModule, node: Node, scale: torch.Tensor, shift: torch.Tensor) -> Node:
    source: Any = node.args[0]
    rank = node.meta["val"].ndim
    if rank not in _LONE_NORM:
        with module.graph.inserting_before(node):
            product = module.graph.call_function(
                aten.mul.Tensor, (source, put_constant(module, f"{node.name}_scale", scale.float(), before=node))
            )
            total = module.graph.call_function(
                aten.add.Tensor, (product, put_constant(module, f"{node.name}_shift", shift.float(), before=node))
            )
        for made in (product, total):
            made.meta = dict(node.meta)
        return total
    weight = put_constant(module, f"{node.name}_weight", scale.float().reshape(-1, *[1] * (rank - 1)), before=node)
    bias = put_constant(module, f"{node.name}_bias", shift.float(), before=node)
    ones, zeros = [1] * (rank - 2), [0] * (rank - 2)
    with module.graph.inserting_before(node):
        made = module.graph.call_function(_LONE_NORM[rank], (source, weight, bias, ones, zeros, ones, scale.numel()))
    made.meta = dict(node.meta)
    return made


def _check_same(module: GraphModule, program: ExportedProgram, arguments: Sequence[torch.Tensor]) -> None:
    with torch.no_grad():
        result = module(*arguments)
    found = tuple(result) if isinstance(result, tuple | list) else (result,)
    for index, (left, right) in enumerate(zip(found, run_program(program, arguments), strict=True)):
        if not right.is_floating_point():
            continue
        largest = float(right.abs().max()) if right.numel() else 0.0
        difference = float((left - right).abs().max()) if right.numel() else 0.0
        if difference > 1e-3 * max(largest, 1e-6):
            raise ContractError(
                f"Output {index} changed by {difference:.3g} (of {largest:.3g}) when the graph was brought to canonical form."
                " The model probably edits a tensor in place through a view; write that line without in-place operators."
            )
