"""What a ``.tflite`` file holds, and which of its operators compute in integers.

An operator computes in integers where its data comes and goes as int8 or int16: that is what its kernel is chosen by, in
XNNPACK as in TFLite's own. An operator with float data and integer weights takes its scale from each input.

====================== ============ ==========================================
operator               weight at    multiply-accumulates
====================== ============ ==========================================
CONV_2D, CONV_3D       1            outputs x weights of one output channel
DEPTHWISE_CONV_2D      1            outputs x height x width of the kernel
FULLY_CONNECTED        1            outputs x inputs
TRANSPOSE_CONV         1            inputs x weights of one input channel
BATCH_MATMUL           1, or none   outputs x length of a row of the first operand
...SEQUENCE_LSTM       all          steps x samples x weights
====================== ============ ==========================================
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.core.stored import Arithmetic, Grid, Kernel, StoredConstant, StoredFile

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["StoredGraph", "read_file"]

_DATA = {
    "CONV_2D": 0, "CONV_3D": 0, "DEPTHWISE_CONV_2D": 0, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 2, "BATCH_MATMUL": 0,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": 0, "BIDIRECTIONAL_SEQUENCE_LSTM": 0,
}  # fmt: skip
"""Operators that multiply, and which input is their data."""
_TYPES = {
    "FLOAT32": "float32", "FLOAT16": "float16", "INT4": "int4", "INT8": "int8", "UINT8": "uint8", "INT16": "int16",
    "INT32": "int32", "INT64": "int64", "BOOL": "bool", "FLOAT64": "float64",
}  # fmt: skip
_INTEGERS = {"int8", "int16", "uint8"}
_SEEN_THROUGH = {"DEQUANTIZE", "TRANSPOSE", "RESHAPE", "CAST"}


def read_file(data: bytes) -> StoredFile:
    """Read a file's bytes back.

    Args:
        data: The .tflite file; a runtime has accepted it (the schema's readers do not verify).
    """
    file = StoredGraph(data)
    return StoredFile(
        constants=tuple(file.constants.values()),
        grids=file.grids(),
        kernels=tuple(file.kernels()),
        stray_dequantizes=file.stray_dequantizes(),
        method="the operators of the file and the types of their tensors, by which LiteRT chooses kernels",
    )


class StoredGraph:
    """The first subgraph of a file.

    Args:
        data: Its bytes.
    """

    def __init__(self, data: bytes) -> None:
        schema = importlib.import_module("ai_edge_litert.schema_py_generated")
        self.model: Any = schema.ModelT.InitFromPackedBuf(data, 0)
        self.graph: Any = self.model.subgraphs[0]
        self._kinds = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
        self._types = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
        self.producers = {int(index): operator for operator in self.graph.operators for index in operator.outputs}
        self.constants = {
            index: StoredConstant(self.name(index), values, self.dtype(index), self.grid(index))
            for index in range(len(self.graph.tensors))
            if len(self.shape(index)) >= 2 and (values := self.values(index)) is not None
        }

    def kind(self, operator: Any) -> str:
        """An operator's name in the schema, ``"CONV_2D"``."""
        code = self.model.operatorCodes[operator.opcodeIndex]
        return str(self._kinds[max(code.builtinCode, code.deprecatedBuiltinCode)])

    def name(self, index: int) -> str:
        """A tensor's name."""
        return bytes(self.graph.tensors[index].name or b"").decode("utf-8", "replace")

    def shape(self, index: int) -> tuple[int, ...]:
        """A tensor's sizes."""
        shape = self.graph.tensors[index].shape
        return () if shape is None else tuple(int(size) for size in shape)

    def dtype(self, index: int) -> str:
        """A tensor's element type as numpy spells it."""
        name = str(self._types[self.graph.tensors[index].type])
        return _TYPES.get(name, name.lower())

    def values(self, index: int) -> Array | None:
        """A constant's values, int4 as int8; None for a computed tensor."""
        data = self.model.buffers[self.graph.tensors[index].buffer].data
        if data is None or len(data) == 0:
            return None
        raw, shape = np.asarray(data, np.uint8), self.shape(index)
        if self.dtype(index) == "int4":  # two to a byte, the first in the low half
            halves = np.stack([raw & 15, raw >> 4], axis=-1).reshape(-1)[: int(np.prod(shape))].astype(np.int8)
            return np.where(halves > 7, halves - 16, halves).astype(np.int8).reshape(shape)
        return raw.view(self.dtype(index)).reshape(shape)

    def grid(self, index: int) -> Grid | None:
        """A tensor's scales; None where it is on no grid."""
        found = self.graph.tensors[index].quantization
        if found is None:
            return None
        if getattr(found, "details", None) is not None and hasattr(found.details, "blockSize"):
            scale = self.values(int(found.details.scales))
            flat = np.zeros(0, np.float32) if scale is None else scale.reshape(-1).astype(np.float32)
            return Grid(self.dtype(index), flat, np.zeros(flat.size, np.int64), int(found.details.blockSize))
        if found.scale is None or len(found.scale) == 0:
            return None
        zeros = np.zeros(len(found.scale), np.int64) if found.zeroPoint is None else np.asarray(found.zeroPoint, np.int64)
        return Grid(self.dtype(index), np.asarray(found.scale, np.float32), zeros)

    def grids(self) -> dict[str, Grid]:
        """Grids of computed tensors and inputs."""
        indices = {*map(int, self.graph.inputs), *self.producers}
        grids = ((self.name(index), self.grid(index)) for index in sorted(indices))
        return {name: grid for name, grid in grids if grid is not None}

    def kernels(self) -> list[Kernel]:
        """Operators that multiply."""
        found = []
        for operator in self.graph.operators:
            kind = self.kind(operator)
            if kind in _DATA:
                data, made = int(operator.inputs[_DATA[kind]]), int(operator.outputs[0])
                weights = [constant for index in operator.inputs if (constant := self._constant_behind(int(index))) is not None]
                arithmetic = self._arithmetic(operator, data, made)
                macs = self._macs(kind, operator, data, made, weights)
                found.append(Kernel(self.name(made), kind, arithmetic, macs, tuple(weight.name for weight in weights)))
        return found

    def _constant_behind(self, index: int) -> StoredConstant | None:
        """The stored weight an input is, perhaps dequantized or moved."""
        while index >= 0 and index not in self.constants:
            producer = self.producers.get(index)
            if producer is None or self.kind(producer) not in _SEEN_THROUGH:
                return None
            index = int(producer.inputs[0])
        return self.constants.get(index)

    def _arithmetic(self, operator: Any, data: int, made: int) -> Arithmetic:
        if self.dtype(data) in _INTEGERS and self.dtype(made) in _INTEGERS:
            return "integer"
        direct = [int(index) for index in operator.inputs if int(index) in self.constants]
        return "dynamic" if any(self.dtype(index) in {"int8", "int4"} for index in direct) else "float"

    def _macs(self, kind: str, operator: Any, data: int, made: int, weights: list[StoredConstant]) -> int:
        outputs, inputs = self.shape(made), self.shape(data)
        if kind == "BATCH_MATMUL":
            flipped = bool(getattr(operator.builtinOptions, "adjX", False))
            return int(np.prod(outputs)) * (inputs[-2] if flipped else inputs[-1])
        if not weights:
            return 0
        shape: tuple[int, ...] = weights[0].values.shape
        if kind.endswith("SEQUENCE_LSTM"):
            return int(np.prod(inputs[:2])) * sum(weight.values.size for weight in weights)
        if kind == "DEPTHWISE_CONV_2D":
            return int(np.prod(outputs)) * shape[1] * shape[2]
        if kind == "CONV_3D":
            return int(np.prod(outputs)) * int(np.prod(shape[:-1]))
        if kind == "TRANSPOSE_CONV":
            return int(np.prod(inputs)) * int(np.prod(shape[:-1]))
        return int(np.prod(outputs)) * int(np.prod(shape[1:]))

    def stray_dequantizes(self) -> int:
        """Dequantize operators of activations whose result stays inside."""
        leaving = {int(index) for index in self.graph.outputs}
        nodes = [operator for operator in self.graph.operators if self.kind(operator) == "DEQUANTIZE"]
        return sum(int(node.inputs[0]) not in self.constants and int(node.outputs[0]) not in leaving for node in nodes)
