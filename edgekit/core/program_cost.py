"""What a program costs before anything is measured: multiply-accumulates and parameters.

Counted on the graph that ``torch.export`` captured. A multiply-accumulate is one product that is added to a sum; what is
done to single elements (activations, norms, additions) is not counted, as is usual (Sze et al., arXiv:1703.09039, section III).

======================= ==================================================================
operator                multiply-accumulates
======================= ==================================================================
convolution, linear     outputs x weights of one output channel
transposed convolution  inputs x weights of one input channel
matrix product          outputs x length of the sums
attention               queries x keys x width, twice
LSTM, GRU               steps x batch x weights of all gates and layers, both directions
======================= ==================================================================
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

__all__ = ["ATTENTION", "MULTIPLIES", "count_macs", "count_parameters", "listed", "node_macs", "operator_name"]

_LINEAR = {"linear", "conv1d", "conv2d", "conv3d", "convolution"}
_TRANSPOSED = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
_PRODUCTS = {"matmul", "mm", "bmm", "addmm", "baddbmm"}
_RECURRENT = {"lstm", "gru"}
ATTENTION = "scaled_dot_product_attention"
MULTIPLIES = _LINEAR | _TRANSPOSED | _PRODUCTS | _RECURRENT | {ATTENTION}
"""Operators that multiply and accumulate, by name."""


def count_macs(program: ExportedProgram) -> int:
    """Multiply-accumulates of one sample: those of the program's batch, over its size."""
    total = sum(node_macs(node) for node in program.graph.nodes if operator_name(node) in MULTIPLIES)
    shapes = [_shape(node) for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    batch = shapes[0][0] if shapes and shapes[0] else 1
    return round(total / max(batch, 1))


def count_parameters(program: ExportedProgram) -> int:
    """Weights and biases: every parameter once, however many layers share it."""
    return sum(tensor.numel() for tensor in {id(one): one for one in program.parameters()}.values())


def node_macs(node: Node) -> int:
    """Multiply-accumulates of one node whose operator is in :data:`MULTIPLIES`, for the whole batch."""
    name, shape = operator_name(node), _shape(node)
    outputs = math.prod(shape)
    if name in _PRODUCTS:
        return outputs * _shape(node.args[1 if name in {"addmm", "baddbmm"} else 0])[-1]
    if name == ATTENTION:  # queries by keys, then by values
        query, key, value = (_shape(argument) for argument in node.args[:3])
        return math.prod(query) * key[-2] + math.prod(query[:-1]) * math.prod(value[-2:])
    if name in _RECURRENT:
        data, weights = _shape(node.args[0]), [part for part in listed(node.args) if len(_shape(part)) == 2]
        return math.prod(data[:2]) * sum(math.prod(_shape(weight)) for weight in weights)
    per_channel = math.prod(_shape(node.args[1])[1:])
    return (math.prod(_shape(node.args[0])) if name in _TRANSPOSED else outputs) * per_channel


def operator_name(node: Node) -> str:
    """A called operator's name without namespace and overload (``"conv2d"``); empty for other nodes."""
    target = node.target
    return str(getattr(getattr(target, "overloadpacket", target), "__name__", "")) if node.op == "call_function" else ""


def listed(arguments: Any) -> list[Any]:
    """What stands in those of a node's arguments that are lists: the weights of a recurrent layer."""
    return [part for argument in arguments if isinstance(argument, list | tuple) for part in argument]


def _shape(node: Any) -> tuple[int, ...]:
    value = getattr(node, "meta", {}).get("val")
    value = value[0] if isinstance(value, tuple | list) else value
    return tuple(int(size) for size in getattr(value, "shape", ()))
