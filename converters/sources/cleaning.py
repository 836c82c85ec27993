"""Programs made by other tools' tracers -> the operators a plain ``nn.Module`` would have given.

::

    program ─ without checks and copies ─ constants folded ─ channels first ─ arithmetic folded into layers ─> program

What Keras traces to, for one, is a third assertions and casts, computes its weights' layouts anew in each call, and keeps
pictures as ``[N, H, W, C]`` around convolutions that want ``[N, C, H, W]``. The result is checked against the program that was
given; where they differ, that one is kept.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Graph, GraphModule, Node

from edgekit.converters.sources.channels import sink_permutes
from edgekit.converters.sources.folding import fold_arithmetic, fold_constants
from edgekit.core.program import run_program

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["clean"]

_aten = torch.ops.aten
_CHECKS = re.compile(r"aten\.(_assert_\w+|sym_constrain_\w+)\b")
_COPIES = {
    "aten.clone.default", "aten.contiguous.default", "aten.detach.default", "aten.alias.default", "aten.lift_fresh.default",
    "aten.lift_fresh_copy.default", "aten.to.dtype_layout", "aten.to.dtype", "aten.to.device", "aten._to_copy.default",
    "aten.view.default", "aten.reshape.default", "aten.expand.default", "aten._unsafe_view.default",
}  # fmt: skip
"""Operators that do nothing where shape and dtype of result and argument are the same."""
_VIEWS = {"aten.view.default", "aten._unsafe_view.default"}
"""They ask for one order in memory, which copies that are dropped had made."""
_DROPOUTS = {"aten.dropout.default", "aten.feature_dropout.default", "aten.alpha_dropout.default"}
_LARGEST_ERROR = 1e-4
"""Of the largest output; folding adds and multiplies in another order."""


def clean(program: ExportedProgram, arguments: Sequence[torch.Tensor]) -> ExportedProgram:
    """The same function in fewer and plainer operators; the program as it is where that cannot be shown.

    Args:
        program: Left as it is.
        arguments: Inputs it is traced and compared on.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        expected = run_program(program, arguments)
        module = _unlifted(program)
        for tidy in (_drop_checks_and_copies, fold_constants, _name_convolutions, sink_permutes, fold_arithmetic, fold_constants):
            tidy(module)
            module.graph.eliminate_dead_code()
        module.graph.lint()
        module.recompile()
        made = torch.export.export(_without_spares(module), tuple(arguments), strict=False)
        found = run_program(made, arguments)
    return made if all(_is_same(*pair) for pair in zip(expected, found, strict=True)) else program


def _is_same(expected: torch.Tensor, found: torch.Tensor) -> bool:
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return False
    if not expected.is_floating_point():
        return bool((expected == found).all())
    scale = float(expected.abs().max()) if expected.numel() else 1.0
    return torch.allclose(expected, found, rtol=0, atol=_LARGEST_ERROR * max(scale, 1e-6), equal_nan=True)


def _unlifted(program: ExportedProgram) -> GraphModule:
    """The functional program as a module whose weights are attributes and whose nodes know shapes, as tensors on ``meta``."""
    functional = program.run_decompositions({})
    module = copy.deepcopy(functional.module(check_guards=False))
    graph = module.graph
    for node in list(graph.nodes):
        if node.op == "call_module":  # guards on inputs
            graph.erase_node(node)
    graph.set_codegen(torch.fx.graph.CodeGen())
    shapes = {node.name: node.meta.get("val") for node in functional.graph.nodes}
    for node in graph.nodes:
        value = _attribute(module, node) if node.op == "get_attr" else node.meta.get("val", shapes.get(node.name))
        node.meta["val"] = _on_meta(value)
    plain: GraphModule = GraphModule(module, graph)
    return plain


def _attribute(module: GraphModule, node: Node) -> Any:
    value: Any = module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value


def _on_meta(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.empty(tuple(int(size) for size in value.shape), dtype=value.dtype, device="meta")
    if isinstance(value, tuple | list):
        return [_on_meta(part) for part in value]
    return value


def _drop_checks_and_copies(module: GraphModule) -> None:
    for node in list(module.graph.nodes):
        if node.op != "call_function":
            continue
        name = str(node.target)
        if _CHECKS.match(name):
            module.graph.erase_node(node)
        elif (name in _COPIES and _does_nothing(node)) or (name in _DROPOUTS and node.args[2] is False):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
        elif name in _VIEWS:
            node.target = _aten.reshape.default


def _does_nothing(node: Node) -> bool:
    source = node.args[0]
    before, after = getattr(source, "meta", {}).get("val"), node.meta["val"]
    return isinstance(before, torch.Tensor) and before.shape == after.shape and before.dtype == after.dtype


def _name_convolutions(module: GraphModule) -> None:
    """``aten.convolution`` and ``aten._convolution``, which serve all ranks -> ``conv1d``, ``conv_transpose2d`` and so on."""
    plain: dict[int, Any] = {3: _aten.conv1d.default, 4: _aten.conv2d.default, 5: _aten.conv3d.default}
    transposed: dict[int, Any] = {
        3: _aten.conv_transpose1d.default, 4: _aten.conv_transpose2d.input, 5: _aten.conv_transpose3d.input,
    }  # fmt: skip
    for node in list(module.graph.nodes):
        if str(node.target) not in {"aten.convolution.default", "aten._convolution.default"}:
            continue
        source, weight, bias, stride, padding, dilation, is_transposed, output_padding, groups = node.args[:9]
        rank = node.meta["val"].ndim
        if is_transposed:
            node.target = transposed[rank]
            node.args = (source, weight, bias, stride, padding, output_padding, groups, dilation)
        else:
            node.target = plain[rank]
            node.args = (source, weight, bias, stride, padding, dilation, groups)


def _without_spares(module: GraphModule) -> GraphModule:
    """The module with the attributes its graph reads and no others, under names of one level."""
    graph: Graph = module.graph
    held = torch.nn.Module()
    names: dict[str, str] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            target = str(node.target)
            if target not in names:
                names[target] = target.replace(".", "_")
                held.register_buffer(names[target], _attribute(module, node).detach())
            node.target = names[target]
    return GraphModule(held, graph)
