"""Every quantized layer of a ``.tflite`` file, run alone on given integers, with the kernels that ship.

The file's own graph is cut at the tensor of each activation entry: whoever reads that tensor reads a fresh input
instead, and the tensor becomes an output. One load, one run a sample, and no layer sees another's rounding::

    x ─ CONV_2D ─ a ─ ADD ─ b        x' ─ CONV_2D ─ a      a' ─ ADD ─ b
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgekit.core.contract import ContractReport, QuantizationContract, TensorQuantization
from edgekit.core.errors import ContractError, DataError

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["Replay"]

CHANNELS_FIRST_METADATA = "edgekit.channels_first"
"""Metadata of a file: names, one a line, of tensors that keep the program's axis order although ``[N, H, W, C]`` fits too."""


class Replay:
    """A model cut into its layers, and how values come and go.

    Args:
        data: The .tflite file; a runtime has accepted it.
        report: Names the tensor of each entry.
        contract: The contract.
        recorded: Activation entry -> integers ``[S, *entry.shape]``.

    Attributes:
        model: The cut model's bytes.
    """

    def __init__(
        self, data: bytes, report: ContractReport, contract: QuantizationContract, recorded: Mapping[str, Array]
    ) -> None:
        self._schema = importlib.import_module("ai_edge_litert.schema_py_generated")
        self._file: Any = self._schema.ModelT.InitFromPackedBuf(data, 0)
        self._graph: Any = self._file.subgraphs[0]
        self._recorded = recorded
        self._channels_first = _channels_first(self._file)
        places = {bytes(tensor.name or b"").decode(): index for index, tensor in enumerate(self._graph.tensors)}
        self._entries: dict[str, TensorQuantization] = {}
        self._tensors: dict[str, int] = {}
        for entry in contract.activations:
            outcome = report.tensors.get(entry.name)
            if outcome is None:
                continue
            if outcome.tensor not in places:
                raise ContractError(
                    f"The file has no tensor '{outcome.tensor}', which its report names for '{entry.name}'. Export again."
                )
            if entry.name not in recorded:
                raise DataError(f"The recorded integers lack entry '{entry.name}'. Record every activation of the contract.")
            self._entries[entry.name] = entry
            self._tensors[entry.name] = places[outcome.tensor]
        self._fed, self._answered = self._cut()
        self.model = self._pack()

    @property
    def answered(self) -> tuple[str, ...]:
        """Entries whose layers answer, in the order of the cut model's outputs."""
        return tuple(self._answered)

    def run(self, interpreter: Any) -> dict[str, Array]:
        """Feed each sample, collect each layer's answer.

        Args:
            interpreter: Of :attr:`model`, tensors allocated.

        Returns:
            Entry -> ``[S, *entry.shape]``, on the contract's grid.
        """
        import numpy as np

        inputs = [int(found["index"]) for found in interpreter.get_input_details()]
        outputs = [int(found["index"]) for found in interpreter.get_output_details()]
        answers: dict[str, list[Array]] = {name: [] for name in self._answered}
        for sample in range(len(next(iter(self._recorded.values()), ()))):
            for name, place in zip(self._fed, inputs, strict=True):
                interpreter.set_tensor(place, self._to_file(name, self._recorded[name][sample]))
            interpreter.invoke()
            for name, place in zip(self._answered, outputs, strict=True):
                answers[name].append(self._from_file(name, interpreter.get_tensor(place)))
        return {name: np.stack(rows) for name, rows in answers.items() if rows}

    def _cut(self) -> tuple[list[str], list[str]]:
        """Edit the graph; returns the entries that are fed and those that are answered, in order."""
        copies = {name: self._copy_of(index) for name, index in self._tensors.items()}
        by_tensor = {self._tensors[name]: copy for name, copy in copies.items()}
        for operator in self._graph.operators:
            operator.inputs = [by_tensor.get(int(index), int(index)) for index in operator.inputs]
        producers = {int(index): operator for operator in self._graph.operators for index in operator.outputs}
        free = {int(index) for index in self._graph.inputs}
        answered = []
        needed: dict[int, Any] = {}
        for name, index in self._tensors.items():
            upstream = _upstream(index, producers)
            if self._entries[name].role != "input" and index in producers and not _reads(upstream, free):
                answered.append(name)
                needed |= {id(operator): operator for operator in upstream}
        self._graph.operators = [operator for operator in self._graph.operators if id(operator) in needed]
        used = _reads(self._graph.operators, set(copies.values()))
        fed = [name for name, copy in copies.items() if copy in used]
        self._graph.inputs = [copies[name] for name in fed]
        self._graph.outputs = [self._tensors[name] for name in answered]
        self._file.signatureDefs = None
        return fed, answered

    def _copy_of(self, index: int) -> int:
        tensor = self._graph.tensors[index]
        copy = self._schema.TensorT(
            shape=tensor.shape,
            type=tensor.type,
            name=bytes(tensor.name or b"") + b"/fed",
            quantization=tensor.quantization,
            hasRank=tensor.hasRank,
        )
        self._graph.tensors.append(copy)
        return len(self._graph.tensors) - 1

    def _pack(self) -> bytes:
        flatbuffers = importlib.import_module("flatbuffers")
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self._file.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _to_file(self, name: str, values: Array) -> Array:
        """``[N, C, ...]`` -> the tensor's own layout. The integers are the contract's: the converter re-types nothing."""
        import numpy as np

        moved = np.moveaxis(values, 1, -1) if self._is_channels_last(name) else values
        return moved.reshape(_shape(self._graph.tensors[self._tensors[name]])).copy()

    def _from_file(self, name: str, values: Array) -> Array:
        """The tensor's own layout -> ``[N, C, ...]``."""
        import numpy as np

        shape = self._entries[name].shape
        if not self._is_channels_last(name):
            return values.reshape(shape)
        return np.moveaxis(values.reshape(shape[0], *shape[2:], shape[1]), -1, 1)

    def _is_channels_last(self, name: str) -> bool:
        """Whether the tensor lies as ``[N, ..., C]``: only ranks 4 and 5 do, where that fits and the file says nothing else."""
        tensor, shape = self._graph.tensors[self._tensors[name]], self._entries[name].shape
        stored = _shape(tensor)
        if len(stored) not in {4, 5} or len(shape) < 3 or bytes(tensor.name).decode() in self._channels_first:
            return False
        return _without_ones(stored) == _without_ones((shape[0], *shape[2:], shape[1]))


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(int(size) for size in tensor.shape)


def _without_ones(shape: Sequence[int]) -> list[int]:
    return [size for size in shape if size != 1]


def _channels_first(file: Any) -> set[str]:
    for entry in file.metadata or ():
        if bytes(entry.name or b"").decode() == CHANNELS_FIRST_METADATA:
            return set(bytes(file.buffers[entry.buffer].data).decode().splitlines())
    return set()


def _upstream(index: int, producers: Mapping[int, Any]) -> list[Any]:
    """Operators that compute a tensor."""
    found: dict[int, Any] = {}
    pending = [index]
    while pending:
        operator = producers.get(pending.pop())
        if operator is not None and id(operator) not in found:
            found[id(operator)] = operator
            pending.extend(int(source) for source in operator.inputs)
    return list(found.values())


def _reads(operators: Sequence[Any], tensors: set[int]) -> set[int]:
    """Those of ``tensors`` that the operators read."""
    return tensors.intersection(int(index) for operator in operators for index in operator.inputs)
