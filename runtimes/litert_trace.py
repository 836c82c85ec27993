"""Every tensor of a ``.tflite`` file, and pieces of one.

TFLite's reference kernels keep every tensor when asked to. XNNPACK shows only what leaves the graph, so there every tensor is
made an output: operators that it would fuse may then run apart.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.core.files import write_bytes
from edgekit.core.provenance import TracedFile, TracedOperation

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["StoredGraph"]

_IDENTIFIER = b"TFL3"
_TYPES = {
    "FLOAT32": "float32", "FLOAT16": "float16", "INT8": "int8", "UINT8": "uint8", "INT16": "int16", "INT32": "int32",
    "INT64": "int64", "BOOL": "bool", "FLOAT64": "float64",
}  # fmt: skip


class StoredGraph:
    """The first subgraph of a file; tensors by a name of their own.

    Args:
        data: The .tflite file; a runtime has accepted it (the schema's readers do not verify).
    """

    def __init__(self, data: bytes) -> None:
        self._schema: Any = importlib.import_module("ai_edge_litert.schema_py_generated")
        self._file: Any = self._schema.ModelT.InitFromPackedBuf(data, 0)
        self._graph: Any = self._file.subgraphs[0]
        self._kinds = {value: name for name, value in vars(self._schema.BuiltinOperator).items() if isinstance(value, int)}
        self._tensor_types = {value: name for name, value in vars(self._schema.TensorType).items() if isinstance(value, int)}
        plain = [bytes(tensor.name or b"").decode("utf-8", "replace") for tensor in self._graph.tensors]
        self.names = [name if plain.count(name) == 1 and name else f"{name}#{index}" for index, name in enumerate(plain)]
        self._places = {name: index for index, name in enumerate(self.names)}

    @property
    def computed(self) -> list[int]:
        """Indices of all tensors operators compute, in order."""
        return [int(index) for operator in self._graph.operators for index in operator.outputs]

    def written_types(self) -> list[tuple[str, tuple[str, ...]]]:
        """Every operator's type, and the types of what it writes, in order."""
        return [
            (
                self._operation(operator).type,
                tuple(self._tensor_types[self._graph.tensors[int(index)].type].lower() for index in operator.outputs),
            )
            for operator in self._graph.operators
        ]

    def with_all_outputs(self) -> bytes:
        """The file with every computed tensor among its outputs; call it once, on an object of its own."""
        own = [int(index) for index in self._graph.outputs]
        self._graph.outputs = [*own, *(index for index in self.computed if index not in own)]
        self._file.signatureDefs = None
        return self._pack()

    def trace(self, interpreter: Any, inputs: Mapping[str, Array], *, method: str) -> TracedFile:
        """Run an interpreter that keeps every tensor.

        Args:
            interpreter: Of the file, or of :meth:`with_all_outputs`; tensors allocated.
            inputs: Input name -> ``[S, *shape]``.
            method: How the interpreter runs, in words.
        """
        edges = self._edges()
        rows: dict[int, list[Array]] = {index: [] for index in (*edges[0].values(), *self.computed)}
        for at in range(len(next(iter(inputs.values())))):
            for name, values in inputs.items():
                interpreter.set_tensor(edges[0][name], values[at])
            interpreter.invoke()
            for index, found in rows.items():
                value = _value(interpreter, index)
                if value is not None:
                    found.append(value)
        count = len(next(iter(inputs.values())))
        kept = {index: found for index, found in rows.items() if len(found) == count and _same_shapes(found)}
        return TracedFile(
            operations=tuple(self._operation(operator) for operator in self._graph.operators),
            values={self.names[index]: np.stack(found) for index, found in kept.items()},
            grids={self.names[index]: grid for index in kept if (grid := self._grid(index)) is not None},
            inputs={name: self.names[index] for name, index in edges[0].items()},
            outputs={name: self.names[index] for name, index in edges[1].items()},
            method=method,
            constants={name: value for index, name in enumerate(self.names) if (value := self._constant(index)) is not None},
        )

    def cut(self, *, reads: Sequence[str], writes: Sequence[str], destination: Path) -> Path:
        """The operators between some tensors as a file of its own, ``part.tflite``; call it once, on an object of its own."""
        producers = {int(index): operator for operator in self._graph.operators for index in operator.outputs}
        given = {self._places[name] for name in reads}
        kept: dict[int, Any] = {}
        pending = [self._places[name] for name in writes]
        while pending:
            index = pending.pop()
            operator = producers.get(index)
            if operator is None or index in given or id(operator) in kept:
                continue
            kept[id(operator)] = operator
            pending.extend(int(source) for source in operator.inputs if source >= 0)
        self._graph.operators = [operator for operator in self._graph.operators if id(operator) in kept]
        self._graph.inputs = [self._places[name] for name in reads]
        self._graph.outputs = [self._places[name] for name in writes]
        self._drop_unused()
        path = destination / "part.tflite"
        write_bytes(path, self._pack())
        return path

    def _drop_unused(self) -> None:
        """Forget signatures and metadata, name the edges, and empty the constants that nothing reads."""
        self._file.signatureDefs, self._file.metadata = None, None
        used = {int(index) for operator in self._graph.operators for index in operator.inputs if index >= 0}
        for index, tensor in enumerate(self._graph.tensors):
            tensor.name = self.names[index].encode()
            if index not in used:
                tensor.buffer = 0
        held = {tensor.buffer for tensor in self._graph.tensors}
        for number, buffer in enumerate(self._file.buffers):
            if number not in held:
                buffer.data = None

    def _edges(self) -> tuple[dict[str, int], dict[str, int]]:
        """Tensor indices of inputs and outputs by name: the signature's, or the tensors' own."""
        signatures: Any = self._file.signatureDefs or ()
        if len(signatures) == 1:
            return _named(signatures[0].inputs), _named(signatures[0].outputs)
        inputs, outputs = ([int(index) for index in side] for side in (self._graph.inputs, self._graph.outputs))
        return {self.names[index]: index for index in inputs}, {self.names[index]: index for index in outputs}

    def _grid(self, index: int) -> tuple[float, int] | None:
        grid = self._graph.tensors[index].quantization
        if grid is None or grid.scale is None or len(grid.scale) != 1 or grid.zeroPoint is None:
            return None
        return float(np.float32(grid.scale[0])), int(grid.zeroPoint[0])

    def _operation(self, operator: Any) -> TracedOperation:
        code = self._file.operatorCodes[operator.opcodeIndex]
        kind = (
            bytes(code.customCode).decode() if code.customCode else self._kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]
        )
        reads = tuple(self.names[int(index)] for index in operator.inputs if index >= 0)
        writes = tuple(self.names[int(index)] for index in operator.outputs)
        options = {name: str(value) for name, value in (vars(operator.builtinOptions) if operator.builtinOptions else {}).items()}
        return TracedOperation(name="", type=kind, reads=reads, writes=writes, options=options)

    def _constant(self, index: int) -> Array | None:
        """A constant's bytes as 8-bit integers, or its values where its type says how to read them; None for a computed one."""
        tensor = self._graph.tensors[index]
        data = self._file.buffers[tensor.buffer].data
        if data is None or len(data) == 0:
            return None
        raw = np.asarray(data, np.uint8)
        dtype = _TYPES.get(self._tensor_types[tensor.type])
        return raw if dtype is None else raw.view(dtype).reshape(() if tensor.shape is None else tuple(tensor.shape))

    def _pack(self) -> bytes:
        flatbuffers = importlib.import_module("flatbuffers")
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self._file.Pack(builder), file_identifier=_IDENTIFIER)
        return bytes(builder.Output())


def _named(pairs: Any) -> dict[str, int]:
    """Tensor indices of one side of a signature by name."""
    return {bytes(pair.name).decode(): int(pair.tensorIndex) for pair in pairs or ()}


def _value(interpreter: Any, index: int) -> Array | None:
    try:
        value: Array = interpreter.get_tensor(index)
    except ValueError:  # a tensor without data: an optional one, scratch space, or one a fused kernel never makes
        return None
    return value


def _same_shapes(found: Sequence[Array]) -> bool:
    return len({value.shape for value in found}) == 1
