"""What became of every contract entry in a ``.tflite`` file, read back from the file's bytes."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from edgekit.converters.tflite_layout import describe_transposes
from edgekit.converters.tflite_recognise import has_grid
from edgekit.converters.weights import precision_of
from edgekit.core.contract import ContractReport, EntryOutcome

if TYPE_CHECKING:
    from edgekit.converters.tflite_flatbuffer import Graph
    from edgekit.converters.tflite_recognise import Recognised
    from edgekit.core.contract import QuantizationContract, TensorQuantization

__all__ = ["notes", "report"]

_SHOWN = 5
_BITS = {"int4": 4, "int8": 8, "float16": 16}


def report(graph: Graph, contract: QuantizationContract, found: Recognised) -> ContractReport:
    """Outcome of every contract entry.

    Args:
        graph: Read from the final bytes.
        contract: The entries.
        found: Their tensors in ``graph``.
    """
    return ContractReport(outcomes=tuple(_outcome(graph, entry, found) for entry in contract.entries))


def notes(graph: Graph, contract: QuantizationContract, outcomes: ContractReport) -> tuple[str, ...]:
    """What a user should know: transposes that remain, operators that compute in float, entries that were dropped."""
    words = [describe_transposes(graph)]
    if contract.entries:
        floats = Counter(graph.kind(operator) for operator in graph.operators if _computes_float(graph, operator))
        if floats:
            words.append(
                "operators that compute in float: " + ", ".join(f"{kind} x{count}" for kind, count in sorted(floats.items()))
            )
        dropped = [outcome.name for outcome in outcomes.outcomes if outcome.outcome == "dropped"]
        if dropped:
            words.append(f"{len(dropped)} contract entries are not in the file: {_listed(dropped)}")
    return tuple(word for word in words if word)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _computes_float(graph: Graph, operator: Any) -> bool:
    makes_float = any(graph.dtype(int(index)) == "float32" for index in operator.outputs)
    return makes_float and graph.kind(operator) not in {"DEQUANTIZE", "RESHAPE", "TRANSPOSE"}


def _outcome(graph: Graph, entry: TensorQuantization, found: Recognised) -> EntryOutcome:
    if entry.name in found.folded:
        return EntryOutcome(name=entry.name, outcome="folded", reason=found.folded[entry.name])
    index = found.tensors.get(entry.name)
    if index is None and entry.role == "bias" and _is_zero(entry):
        return EntryOutcome(name=entry.name, outcome="folded", reason="every value is zero, so the layer has no bias in the file")
    if index is None:
        return EntryOutcome(name=entry.name, outcome="dropped", reason=_why_dropped(graph, entry))
    problem = _scale_problem(graph, index, entry) or _form(graph, index, entry)
    outcome = EntryOutcome(
        name=entry.name,
        outcome="re-typed" if problem else "honoured",
        tensor=graph.name(index),
        dtype=graph.dtype(index),
        reason=problem or _remark(entry),
    )
    if entry.role != "weight":
        return outcome
    return outcome.replace(bits=_BITS.get(outcome.dtype, 0), block_size=entry.block_size)


def _form(graph: Graph, index: int, entry: TensorQuantization) -> str:
    """How a weight is stored otherwise than the contract says; empty where it is not."""
    if entry.dtype == "int4" and graph.dtype(index) == "int8":
        return "4 bits kept in 8: TFLite has no kernel for this layer that takes 4-bit weights"
    if entry.role == "bias" and graph.dtype(index) == "int64":
        return "the same integers in 64 bits, as TFLite's 16x8 kernels want them"
    if entry.block_size is not None:
        shape = graph.shape(index)
        return (
            f"the blocks are rows of a constant {list(shape)}, restored one by one: TFLite reads blocks in integer kernels only"
        )
    return ""


def _remark(entry: TensorQuantization) -> str:
    if entry.role == "weight" and precision_of(entry).activations == "dynamic-int8":
        return "LiteRT quantizes each row of the input by its own range, the program the whole input by one"
    return ""


def _is_zero(entry: TensorQuantization) -> bool:
    """Whether a bias's integers are all zero, by their digest."""
    return hashlib.sha256(bytes(math.prod(entry.shape) * 4)).hexdigest() == entry.sha256


def _why_dropped(graph: Graph, entry: TensorQuantization) -> str:
    if entry.role in {"weight", "bias"}:
        return f"no constant of the file holds these integers: the compiler left layer '{entry.layer}' in float"
    alike = sum(has_grid(graph, index, entry) for index in range(len(graph.subgraph.tensors)))
    if not alike:
        return (
            f"no tensor has scale {entry.scale[0]:.6g} and zero point {entry.zero_point[0]}: the compiler fused the operator"
            f" ({entry.op}) into the next one, or left it in float"
        )
    return f"{alike} tensors have its grid, but none is made from the same tensors as in the program"


def _scale_problem(graph: Graph, index: int, entry: TensorQuantization) -> str:
    """How the stored scales differ from the contract's; empty where they are equal."""
    import numpy as np

    grid = graph.scales(index)
    if grid is None:
        return "stored without a scale" if entry.scale else ""
    expected = np.asarray(entry.scale, np.float32)
    scales = np.broadcast_to(grid[0], expected.shape)
    if np.array_equal(scales, expected):
        return ""
    return f"same integers, scales differ by up to {float(np.max(np.abs(scales / expected - 1.0))):.2g} of their value"
