"""Which tensor of a ``.tflite`` file is which contract entry.

A file keeps no names of the program, so tensors are recognised by what they are. Parameters: by their integers, in any
layout TFLite knows. Activations: int8, the entry's own scale, zero point and shape, and made from the same recognised
tensors as in the program. What still looks alike is told apart by its value on a golden sample, then by order.

============== ===================== ======================== ======================
layer          program               file                     axes
============== ===================== ======================== ======================
convolution    ``[O, I, H, W]``      ``[O, H, W, I]``         ``(0, 2, 3, 1)``
depthwise      ``[O, 1, H, W]``      ``[1, H, W, O]``         ``(1, 2, 3, 0)``
transposed     ``[I, O, H, W]``      ``[O, H, W, I]``         ``(1, 2, 3, 0)``
linear         ``[O, I]``            ``[O, I]``               ``(0, 1)``
============== ===================== ======================== ======================
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgekit.converters.tflite_values import program_orders

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

    from edgekit.converters.tflite_flatbuffer import Graph
    from edgekit.converters.tflite_values import Evidence
    from edgekit.core.contract import QuantizationContract, TensorQuantization
    from edgekit.core.tensors import Array

__all__ = ["Recognised", "has_grid", "parameter_integers", "recognise"]

_MOVES = {
    "RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "PAD", "PADV2", "SLICE", "STRIDED_SLICE", "SPLIT", "SPLIT_V", "UNPACK",
    "GATHER",
}  # fmt: skip
_PROGRAM_MOVES = {
    "view", "reshape", "_unsafe_view", "flatten", "unflatten", "permute", "transpose", "t", "squeeze", "unsqueeze", "contiguous",
    "clone", "expand", "repeat", "slice", "select", "unbind", "split", "split_with_sizes", "chunk", "getitem",
    "dequantize_per_tensor", "pixel_shuffle", "pixel_unshuffle", "flip", "roll",
}  # fmt: skip
_LAYOUTS: dict[int, list[tuple[int, ...]]] = {4: [(0, 2, 3, 1), (1, 2, 3, 0), (0, 1, 2, 3)], 2: [(0, 1), (1, 0)]}
_SCALE_TOLERANCE = 2.0**-22  # two float32 roundings: the compiler multiplies s_input * s_weight its own way
_ALIKE, _ALIKE_RATIO = 0.01, 2.0  # values as near as the nearest: TFLite's own kernels round otherwise than the program


@dataclasses.dataclass(frozen=True)
class Recognised:
    """Tensors of a file by contract entry.

    Args:
        tensors: Entry name -> tensor index.
        folded: Entry name -> why the file needs no tensor of its own for it.
        channels_first: Tensors that keep the program's axis order although channels last has the same sizes.
    """

    tensors: Mapping[str, int]
    folded: Mapping[str, str]
    channels_first: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Origin:
    """What an activation entry is made from in the program: entry names."""

    activations: frozenset[str]
    parameters: frozenset[str]
    is_move: bool


def recognise(
    graph: Graph, contract: QuantizationContract, program: ExportedProgram, *, evidence: Evidence | None = None
) -> Recognised:
    """Find the tensor of every contract entry.

    Args:
        graph: The file.
        contract: The entries.
        program: The compressed program: what is made from what.
        evidence: Values of one sample.
    """
    constants = _recognise_parameters(graph, contract, parameter_integers(contract, program))
    return _Search(graph, contract, constants, _origins(contract, program), evidence).run()


def parameter_integers(contract: QuantizationContract, program: ExportedProgram) -> dict[str, Array]:
    """Integers of every weight and bias entry, in the program's layout: int8 weights, int32 biases."""
    import numpy as np

    constants: dict[str, Any] = {**program.state_dict, **program.constants}
    signature = program.graph_signature
    placed = {**signature.inputs_to_parameters, **signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
    found = {}
    for entry in contract.parameters:
        value: Array = constants[placed.get(entry.node, entry.node)].detach().numpy()
        if entry.role == "bias":
            value = np.rint(value.astype(np.float64) / np.asarray(entry.scale)).astype(np.int32)
        found[entry.name] = value
    return found


def has_grid(graph: Graph, index: int, entry: TensorQuantization) -> bool:
    """Whether a tensor has an activation entry's type, scale and zero point."""
    import numpy as np

    grid = graph.scales(index)
    if grid is None or grid[0].size != 1 or graph.dtype(index) != entry.dtype:
        return False
    return bool(grid[0][0] == np.float32(entry.scale[0]) and grid[1][0] == entry.zero_point[0])


def _recognise_parameters(graph: Graph, contract: QuantizationContract, integers: Mapping[str, Array]) -> dict[str, int]:
    """Entry name -> constant tensor with the same integers and, within rounding, the same scales."""
    stored: dict[tuple[str, bytes], list[int]] = {}
    for index in range(len(graph.subgraph.tensors)):
        value = graph.constant(index)
        if value is not None and (graph.scales(index) is not None or value.dtype == "float16"):
            value = value.astype("int32") if value.dtype == "int64" else value  # biases beside 16-bit activations
            stored.setdefault((str(value.dtype), value.tobytes()), []).append(index)
    found: dict[str, int] = {}
    taken: set[int] = set()
    for entry in contract.parameters:
        candidates = [index for key in _stored_forms(integers[entry.name]) for index in stored.get(key, ())]
        candidates = [index for index in candidates if _scales_fit(graph, index, entry)]
        free = [index for index in candidates if index not in taken]
        if candidates:
            found[entry.name] = (free or candidates)[0]
            taken.add(found[entry.name])
    return found


def _stored_forms(value: Array) -> Iterator[tuple[str, bytes]]:
    """The bytes a parameter can have in a file; a 1-D layer's weight counts as one of height 1."""
    if value.ndim == 3:
        value = value[:, :, None, :]
    layouts: list[tuple[int, ...]] = _LAYOUTS.get(value.ndim, [tuple(range(value.ndim))])
    for axes in layouts:
        yield str(value.dtype), value.transpose(axes).tobytes()


def _scales_fit(graph: Graph, index: int, entry: TensorQuantization) -> bool:
    import numpy as np

    grid = graph.scales(index)
    if grid is None:
        return not entry.scale
    if grid[0].size not in {1, len(entry.scale)}:
        return False
    return bool(np.allclose(grid[0], np.asarray(entry.scale, np.float32), rtol=_SCALE_TOLERANCE, atol=0.0))


def _origins(contract: QuantizationContract, program: ExportedProgram) -> dict[str, _Origin]:
    """What each activation entry is made from, in program order."""
    by_node = {entry.node: entry for entry in contract.entries}
    nodes = {node.name: node for node in program.graph.nodes}
    origins: dict[str, _Origin] = {}
    for entry in contract.activations:
        direct = _nearest_entries(nodes[entry.node], by_node)
        sources = [other for other in direct if other.role in {"input", "activation"}]
        is_move = len(sources) == 1 and _only_moves(nodes[entry.node], nodes[sources[0].node]) and _same_grid(entry, sources[0])
        parameters = frozenset(other.name for other in direct if other.role in {"weight", "bias"})
        origins[entry.name] = _Origin(frozenset(other.name for other in sources), parameters, is_move)
    return origins


def _nearest_entries(node: Node, by_node: Mapping[str, TensorQuantization]) -> list[TensorQuantization]:
    """Entries met first on every way back from a node."""
    pending, seen = list(node.all_input_nodes), set[Any]()
    found = []
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        if current.name in by_node:
            found.append(by_node[current.name])
        else:
            pending.extend(current.all_input_nodes)
    return found


def _only_moves(node: Node, source: Node) -> bool:
    """Whether ``node`` quantizes what only moved values since ``source`` quantized them."""
    current: Any = node.args[0]
    while current is not source:
        target = getattr(current, "target", None)
        if getattr(getattr(target, "overloadpacket", target), "__name__", "") not in _PROGRAM_MOVES:
            return False
        current = current.args[0]
    return True


def _same_grid(one: TensorQuantization, other: TensorQuantization) -> bool:
    return (one.scale, one.zero_point) == (other.scale, other.zero_point)


class _Search:
    """Walks the entries in program order; each takes the tensor that fits best and is made from the right ones."""

    def __init__(
        self,
        graph: Graph,
        contract: QuantizationContract,
        constants: Mapping[str, int],
        origins: Mapping[str, _Origin],
        evidence: Evidence | None,
    ) -> None:
        self.graph = graph
        self.contract = contract
        self.origins = origins
        self.evidence = evidence
        self.producers = graph.producers()
        self.found: dict[str, int] = dict(constants)
        self.activations: dict[int, str] = {}
        self.candidates = [*graph.inputs, *(int(index) for operator in graph.operators for index in operator.outputs)]

    def run(self) -> Recognised:
        folded: dict[str, str] = {}
        channels_first: list[int] = []
        for entry in self.contract.activations:
            if self.origins[entry.name].is_move:
                folded[entry.name] = "only moves values: the integers of its input, under another shape"
                continue
            index = self._find(entry)
            if index is None:
                continue
            self.found[entry.name] = index
            if index in self.activations:
                folded[entry.name] = f"the same tensor as '{self.activations[index]}': the compiler merged equal layers"
                continue
            self.activations[index] = entry.name
            _, is_first = min((self._distance(entry, index, [order]), not order) for order in self._orders(entry, index))
            if is_first and True in program_orders(self.graph.shape(index), entry.shape):
                channels_first.append(index)
        tensors = {name: index for name, index in self.found.items() if name not in folded}
        return Recognised(tensors, folded, tuple(channels_first))

    def _find(self, entry: TensorQuantization) -> int | None:
        """Of the tensors whose value fits: free before shared ones, computed before moved, near before far, early before late."""
        expected = self._made_from(entry.name)
        parameters = {self.found[name] for name in self.origins[entry.name].parameters if name in self.found}
        ranked: list[tuple[bool, int, float, int]] = []
        for index in self.candidates:
            orders = self._orders(entry, index) if has_grid(self.graph, index, entry) else []
            if not orders:
                continue
            rank = self._rank(index, entry, expected, parameters)
            if rank is not None:
                ranked.append((index in self.activations, rank, self._distance(entry, index, orders), index))
        nearest = min((distance for _, _, distance, _ in ranked), default=0.0)
        alike = [candidate for candidate in ranked if candidate[2] <= _ALIKE_RATIO * nearest + _ALIKE]
        return min(alike)[-1] if alike else None

    def _rank(self, index: int, entry: TensorQuantization, expected: set[int], parameters: set[int]) -> int | None:
        """0: made by a kernel from the right tensors; 1: with unknown parameters; 2, 3: handed on by a move; None: no."""
        producer = self.producers.get(index)
        if producer is None:
            return 0 if entry.role == "input" else None
        sources = self._sources(producer)
        if sources & self.activations.keys() != expected:
            return None
        rank = 0 if parameters <= sources else 1
        return rank + 2 if self.graph.kind(producer) in _MOVES else rank

    def _orders(self, entry: TensorQuantization, index: int) -> list[bool]:
        """Axis orders that fit a tensor's sizes and do not contradict its values."""
        orders = program_orders(self.graph.shape(index), entry.shape)
        evidence = self.evidence
        if evidence is None or index not in evidence.found:
            return orders
        return [order for order in orders if not evidence.is_reordered(entry, index, channels_last=order)]

    def _distance(self, entry: TensorQuantization, index: int, orders: Sequence[bool]) -> float:
        if self.evidence is None:
            return 0.0
        return min(self.evidence.distance(entry, index, channels_last=order) for order in orders)

    def _made_from(self, name: str) -> set[int]:
        """Tensors of the activations an entry is made from; moves and entries without a tensor are seen through."""
        made: set[int] = set()
        for source in self.origins[name].activations:
            made |= {self.found[source]} if source in self.found else self._made_from(source)
        return made

    def _sources(self, producer: Any) -> set[int]:
        """Recognised tensors an operator's result is made from, through everything that is not recognised."""
        recognised = self.activations.keys() | set(self.found.values())
        pending, found, seen = self.graph.reads(producer), set(), set()
        while pending:
            current = pending.pop()
            if current in seen:
                continue
            seen.add(current)
            if current in recognised:
                found.add(current)
            elif current in self.producers:
                pending.extend(self.graph.reads(self.producers[current]))
        return found
