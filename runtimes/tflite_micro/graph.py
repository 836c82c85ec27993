"""What a ``.tflite`` file asks of TFLM's resolver: its operators, by type and layer, and the memory its tensors take at most."""

from __future__ import annotations

import copy
import dataclasses
import importlib
from collections.abc import Iterable
from typing import Any

__all__ = ["ETHOS_U", "Graph", "Operator"]

ETHOS_U = "ethos-u"
"""Custom operator that Vela puts in the place of what it compiled (``tensorflow/lite/micro/kernels/ethosu.cc``)."""
_WIDTHS = {
    "FLOAT64": 8, "INT64": 8, "UINT64": 8, "COMPLEX64": 8, "COMPLEX128": 16, "FLOAT32": 4, "INT32": 4, "UINT32": 4,
    "FLOAT16": 2, "INT16": 2, "UINT16": 2, "BFLOAT16": 2,
}  # fmt: skip
"""Bytes of an element; one for all others."""


@dataclasses.dataclass(frozen=True)
class Operator:
    """One operator of a file.

    Args:
        type: As the schema spells it, or a custom operator's own name.
        layer: Name of the first tensor it writes.
        subgraph: Index of the subgraph it stands in.
    """

    type: str
    layer: str
    subgraph: int = 0


class Graph:
    """A file's operators.

    Args:
        data: The .tflite file; LiteRT has accepted it (the schema's readers do not verify).
    """

    def __init__(self, data: bytes) -> None:
        self._schema: Any = importlib.import_module("ai_edge_litert.schema_py_generated")
        self._file: Any = self._schema.ModelT.InitFromPackedBuf(data, 0)
        self._kinds = {value: name for name, value in vars(self._schema.BuiltinOperator).items() if isinstance(value, int)}
        self._types = {value: name for name, value in vars(self._schema.TensorType).items() if isinstance(value, int)}
        self.operators = tuple(
            Operator(self._kind(operator), self._layer(subgraph, operator), index)
            for index, subgraph in enumerate(self._file.subgraphs)
            for operator in subgraph.operators or ()
        )

        self.input_count = len(self._file.subgraphs[0].inputs)
        self.output_count = len(self._file.subgraphs[0].outputs)

    @property
    def types(self) -> tuple[str, ...]:
        """Types of the operators, each once, sorted: the kernels a program on the device has to register."""
        return tuple(sorted({operator.type for operator in self.operators}))

    @property
    def shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Name and stored shape of every tensor of the main subgraph."""
        return [(_name(tensor), _shape(tensor)) for tensor in self._file.subgraphs[0].tensors]

    @property
    def largest_arena_bytes(self) -> int:
        """More than TFLM can need: no two tensors share memory, and room for its structures and kernels' scratch memory."""
        tensors = operators = constants = 0
        for subgraph in self._file.subgraphs:
            operators += len(subgraph.operators or ())
            for tensor in subgraph.tensors:
                size = self._bytes(tensor)
                if _is_empty(self._file.buffers[tensor.buffer]):
                    tensors += size
                else:
                    constants += size
        return -(-(4 * tensors + 2 * constants + 4096 * operators + 2**20) // 16) * 16  # what TFLM takes is counted from its end

    def layers_of(self, kinds: Iterable[str]) -> dict[str, list[str]]:
        """Type -> the layers whose operator is of it, in order."""
        wanted = list(kinds)
        return {kind: [one.layer for one in self.operators if one.type == kind] for kind in wanted}

    def probe(self, lacking: Iterable[str]) -> bytes:
        """The file without the operators of these types but one of them, which stands last.

        TFLM looks up the operators in order and stops at the first it lacks: it comes to the last one only if it has all others,
        and never gets to use a graph that was taken apart.
        """
        known = set(lacking)
        file = copy.copy(self._file)
        main = copy.copy(self._file.subgraphs[0])
        operators = [operator for subgraph in self._file.subgraphs for operator in subgraph.operators or ()]
        kept = [operator for operator in operators if self._kind(operator) not in known]
        last = next(operator for operator in operators if self._kind(operator) in known)
        main.operators = [*kept, last]
        file.subgraphs = [main]
        file.signatureDefs = None
        flatbuffers = importlib.import_module("flatbuffers")
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(file.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _kind(self, operator: Any) -> str:
        code = self._file.operatorCodes[operator.opcodeIndex]
        kind = self._kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]
        return bytes(code.customCode or b"").decode("utf-8", "replace") if kind == "CUSTOM" else kind

    def _layer(self, subgraph: Any, operator: Any) -> str:
        places = [int(index) for index in (operator.outputs if operator.outputs is not None else ())]
        return _name(subgraph.tensors[places[0]]) if places else ""

    def _bytes(self, tensor: Any) -> int:
        count = 1
        for size in _shape(tensor):
            count *= max(size, 1)
        return count * _WIDTHS.get(self._types[tensor.type], 1)


def _name(tensor: Any) -> str:
    return bytes(tensor.name or b"").decode("utf-8", "replace")


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(int(size) for size in tensor.shape)


def _is_empty(buffer: Any) -> bool:
    return buffer.data is None or len(buffer.data) == 0
