"""What the compressed program claims of each weight: its integers, how its layer computes, and how much of the work it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from edgekit.core.program_cost import ATTENTION, MULTIPLIES, listed, node_macs, operator_name
from edgekit.core.stored import Arithmetic

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

    from edgekit.core.compressed import Compressed
    from edgekit.core.contract import TensorQuantization
    from edgekit.core.tensors import Array

__all__ = ["Claim", "Claims", "floor_bytes", "read_claims"]

_MOVES = {
    "view", "reshape", "_unsafe_view", "flatten", "permute", "transpose", "t", "squeeze", "unsqueeze", "contiguous", "clone",
    "expand", "pad", "constant_pad_nd", "slice", "select", "cat", "getitem", "_to_copy", "to",
}  # fmt: skip
_BITS = {"int4": 4, "int8": 8, "int16": 16, "int32": 32, "float16": 16}


@dataclasses.dataclass(frozen=True)
class Claim:
    """One weight of the contract.

    Args:
        entry: The contract's entry.
        values: Its integers (or float16 values) in the program's layout.
        arithmetic: How its layer computes.
        macs: Multiply-accumulates of its layer.
        source: The float weight it came from, in the same layout; None where there is none of this shape.
    """

    entry: TensorQuantization
    values: Array
    arithmetic: Arithmetic
    macs: int
    source: Array | None


@dataclasses.dataclass(frozen=True)
class Claims:
    """Every weight, and the work of the whole program.

    Args:
        weights: Claims in the contract's order.
        total_macs: Multiply-accumulates of one inference.
        integer_macs: Those of layers whose operands are integers.
        int8_macs: Those of layers whose operands are integers of at most eight bits, for which every target has kernels.
        moves_channels: The recipe moved factors between channels, so a source fits only up to these.
    """

    weights: tuple[Claim, ...]
    total_macs: int
    integer_macs: int
    int8_macs: int
    moves_channels: bool


def read_claims(compressed: Compressed) -> Claims:
    """Read a compressed program's claims."""
    program = compressed.program
    constants, nodes = _constants(program), {node.name: node for node in program.graph.nodes}
    sources = _Sources(compressed)
    work: dict[Node, tuple[int, Arithmetic]] = {
        node: (node_macs(node), _arithmetic(node)) for node in program.graph.nodes if operator_name(node) in MULTIPLIES
    }
    claims = []
    for entry in compressed.contract.parameters:
        if entry.role == "weight":
            reader = next((user for user in _readers(nodes[entry.node]) if user in work), None)
            macs, arithmetic = work[reader] if reader is not None else (0, "float")
            values = constants[entry.node]
            claims.append(Claim(entry, values, arithmetic, macs, sources.of(entry)))
    integer = {node: macs for node, (macs, arithmetic) in work.items() if arithmetic == "integer"}
    int8 = sum(macs for node, macs in integer.items() if not _reads_int16(node))
    steps = [step for step in compressed.recipe.steps if getattr(step, "kind", "") == "quantize"]
    moves = any(getattr(step, "equalization", False) or getattr(step, "smoothing", None) is not None for step in steps)
    total = sum(macs for macs, _ in work.values())
    return Claims(tuple(claims), total, sum(integer.values()), int8, moves)


def floor_bytes(compressed: Compressed) -> int:
    """Bytes that the program's constants need at least: integers at their width, scales, biases, whatever stays float."""
    entries = {entry.node: entry for entry in compressed.contract.parameters}
    skipped = {name for node in compressed.program.graph.nodes for name in _zero_points(node)}
    total = 0.0
    for name, values in _constants(compressed.program).items():
        if name in entries:
            total += values.size * _BITS[entries[name].dtype] / 8
        elif name not in skipped:
            total += values.nbytes
    return round(total)


def _zero_points(node: Node) -> Iterator[str]:
    """Names of the zero points that a dequantize node reads: symmetric, so no file needs them."""
    if operator_name(node).startswith("dequantize") and len(node.args) > 2:
        name = getattr(node.args[2], "name", "")
        if name:
            yield name


def _constants(program: ExportedProgram) -> dict[str, Array]:
    """Value of every parameter, buffer and constant by its placeholder."""
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
    held: dict[str, Any] = {**program.state_dict, **program.constants}
    return {node: held[name].detach().numpy() for node, name in names.items() if hasattr(held.get(name), "detach")}


def _readers(node: Node) -> Iterator[Node]:
    """Operators that read a constant, perhaps dequantized and moved."""
    pending = list(node.users)
    while pending:
        user = pending.pop(0)
        name = operator_name(user)
        if name.startswith("dequantize") or (name in _MOVES and name not in MULTIPLIES):
            pending.extend(user.users)
        else:
            yield user


def _arithmetic(node: Node) -> Arithmetic:
    """``integer`` where both operands come straight from integers; ``dynamic`` where the data's scale is computed."""
    if operator_name(node) == ATTENTION:
        return "float"  # softmax stands between its two products
    positions = (1, 2) if operator_name(node) in {"addmm", "baddbmm"} else (0, 1)
    origins = [_origin(node.args[position]) for position in positions]
    if any(not origin.startswith("dequantize") for origin in origins):
        return "float"
    return "dynamic" if any(origin.endswith(".tensor") for origin in origins) else "integer"


def _reads_int16(node: Node) -> bool:
    """Whether an operand is dequantized from 16 bits."""
    makers = [_maker(argument) for argument in node.args[:3] if hasattr(argument, "op")]
    return any("torch.int16" in map(str, maker.args) for maker in makers)


def _maker(argument: Any) -> Node:
    """What makes an operand, moves seen through."""
    current = argument
    while operator_name(current) in _MOVES and current.args and hasattr(current.args[0], "op"):
        current = current.args[0]
    return cast("Node", current)


def _origin(argument: Any) -> str:
    """Operator and overload that make an operand."""
    current = _maker(argument) if hasattr(argument, "op") else argument
    name = operator_name(current) if hasattr(current, "op") else ""
    return f"{name}.{getattr(current.target, '_overloadname', '')}" if name else ""


class _Sources:
    """Float weights by layer, batch normalisation folded into them as the quantizer does.

    Args:
        compressed: Holds the float program.
    """

    def __init__(self, compressed: Compressed) -> None:
        import torch

        from edgekit.compression.quantize.canonical.form import canonicalize, constant

        arguments = tuple(torch.from_numpy(values[0].copy()) for values in compressed.golden.inputs.values())
        module = canonicalize(compressed.source_program or compressed.float_program, arguments)
        self._found: dict[str, list[Array]] = {}
        for node in module.graph.nodes:
            if node.op != "call_function":
                continue
            layer = _layer(node)
            for argument in [*node.args, *listed(node.args)]:
                value = constant(module, argument)
                if value is not None and value.ndim >= 2:
                    self._found.setdefault(layer, []).append(value.detach().numpy())
        self._taken: dict[str, int] = {}

    def of(self, entry: TensorQuantization) -> Array | None:
        """The source of an entry: of its layer, of its shape; a layer that holds several gives them in order."""
        alike = [value for value in self._found.get(entry.layer, []) if value.shape == entry.shape]
        key = f"{entry.layer} {entry.shape}"
        place = self._taken.get(key, 0)
        self._taken[key] = place + 1
        return alike[min(place, len(alike) - 1)] if alike else None


def _layer(node: Node) -> str:
    stack: Mapping[str, Any] = node.meta.get("nn_module_stack") or {}
    names = list(stack.values())
    return str(names[-1][0]) if names else ""
