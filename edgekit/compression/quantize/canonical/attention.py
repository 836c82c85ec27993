"""Attention in the operators that have integer kernels: ``matmul -> (+ mask) -> softmax -> matmul``.

``scaled_dot_product_attention(q, k, v)`` is ``softmax(q k^T / sqrt(d) + mask) v`` (Vaswani et al., 2017,
arXiv:1706.03762, section 3.2.1). The scale goes to the queries, where it can be folded into their projection. A mask of
minus infinity stays float, and so does the softmax behind it: no grid holds both a mask and the scores it leaves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from edgekit.compression.quantize.nodes import insert_call, put_constant, rank_of, shape_of, substitute

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

__all__ = ["spell_out_attention"]

aten = torch.ops.aten


def spell_out_attention(module: GraphModule) -> None:
    """Decompose fused attention and the fused products it is often written with."""
    for node in list(module.graph.nodes):
        name = str(node.target)
        if name == "aten.scaled_dot_product_attention.default":
            _spell_out(module, node)
        elif name == "aten.baddbmm.default" and _is_plain(node):
            product = insert_call(module, node, aten.bmm.default, *node.args[1:3])
            substitute(module, node, insert_call(module, node, aten.add.Tensor, product, node.args[0]))


def _is_plain(node: Node) -> bool:
    return bool(node.kwargs.get("beta", 1) == 1 and node.kwargs.get("alpha", 1) == 1)


def _spell_out(module: GraphModule, node: Node) -> None:
    given: list[Any] = [*node.args, *[None, 0.0, False][len(node.args) - 3 :]]
    query, key, value, mask, _, is_causal = given[:6]
    scale: Any = node.kwargs.get("scale") or shape_of(query)[-1] ** -0.5
    if node.kwargs.get("enable_gqa"):
        key, value = (_repeat_heads(module, node, part, shape_of(query)[-3]) for part in (key, value))
    factor = put_constant(module, f"{node.name}_scale", torch.full([1] * rank_of(query), float(scale)), before=node)
    query = insert_call(module, node, aten.mul.Tensor, query, factor)
    turned = insert_call(module, node, aten.transpose.int, key, -2, -1)
    scores = insert_call(module, node, aten.matmul.default, query, turned)
    if is_causal:
        rows, columns = shape_of(scores)[-2:]
        later = torch.triu(torch.full((rows, columns), float("-inf")), diagonal=1)
        mask = put_constant(module, f"{node.name}_mask", later, before=node)
    if mask is not None:
        scores = _add_mask(module, node, scores, mask)
    weights = insert_call(module, node, aten.softmax.int, scores, -1)
    substitute(module, node, insert_call(module, node, aten.matmul.default, weights, value))


def _add_mask(module: GraphModule, node: Node, scores: Node, mask: Node) -> Node:
    """Add a float mask; a boolean one keeps where it is true."""
    if mask.meta["val"].dtype == torch.bool:
        kept = insert_call(module, node, aten.logical_not.default, mask)
        return insert_call(module, node, aten.masked_fill.Scalar, scores, kept, float("-inf"))
    return insert_call(module, node, aten.add.Tensor, scores, mask)


def _repeat_heads(module: GraphModule, node: Node, part: Node, head_count: int) -> Node:
    """Every key/value head once for each query head of its group (grouped-query attention, arXiv:2305.13245)."""
    shape = shape_of(part)
    raised = insert_call(module, node, aten.unsqueeze.default, part, -3)
    copies = insert_call(module, node, aten.cat.default, [raised] * (head_count // shape[-3]), rank_of(part) - 2)
    return insert_call(module, node, aten.reshape.default, copies, [*shape[:-3], head_count, *shape[-2:]])
