"""A ``.tflite`` file as a graph that can be read, edited and written again.

The schema (github.com/google-ai-edge/LiteRT, ``schema.fbs``) comes as generated Python with ai-edge-litert. Only the
first subgraph is edited: it is the one that signatures run; others (bodies of composites) are carried along.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["FILE_IDENTIFIER", "Graph", "unpack_int4"]

FILE_IDENTIFIER = b"TFL3"
_BUFFER_ALIGNMENT = 16  # schema.fbs: Buffer.data is force_align: 16
_NUMPY_NAMES = {
    "FLOAT32": "float32", "FLOAT16": "float16", "FLOAT64": "float64", "BOOL": "bool", "UINT8": "uint8", "INT4": "int4",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
}  # fmt: skip


def _schema() -> Any:
    return importlib.import_module("ai_edge_litert.schema_py_generated")


@functools.cache
def _names(enumeration: str) -> dict[int, str]:
    """Members of a schema enumeration (``"BuiltinOperator"``) by value."""
    members = vars(getattr(_schema(), enumeration))
    return {value: name for name, value in members.items() if isinstance(value, int)}


class Graph:
    """The first subgraph of a file: tensors by index, operators in the order they run.

    Args:
        data: The file's bytes, read by a runtime without complaint before (the schema's Python readers do not verify).
    """

    def __init__(self, data: bytes) -> None:
        self.model: Any = _schema().ModelT.InitFromPackedBuf(data, 0)
        self.subgraph: Any = self.model.subgraphs[0]

    @property
    def operators(self) -> list[Any]:
        """Operators in the order they run."""
        return self.subgraph.operators  # type: ignore[no-any-return]

    @property
    def inputs(self) -> list[int]:
        """Tensor indices of the inputs."""
        return [int(index) for index in self.subgraph.inputs]

    @property
    def outputs(self) -> list[int]:
        """Tensor indices of the outputs."""
        return [int(index) for index in self.subgraph.outputs]

    def kind(self, operator: Any) -> str:
        """Name of an operator as the schema spells it, e.g. ``"CONV_2D"``; a custom operator's own name."""
        code = self.model.operatorCodes[operator.opcodeIndex]
        if code.customCode:
            return bytes(code.customCode).decode()
        return _names("BuiltinOperator")[max(code.builtinCode, code.deprecatedBuiltinCode)]

    def reads(self, operator: Any) -> list[int]:
        """Tensor indices an operator reads; absent optional ones left out."""
        return [int(index) for index in operator.inputs if index >= 0]

    def name(self, index: int) -> str:
        """Name of a tensor."""
        return bytes(self.subgraph.tensors[index].name or b"").decode("utf-8", "replace")

    def shape(self, index: int) -> tuple[int, ...]:
        """Shape of a tensor; ``()`` for a scalar."""
        shape = self.subgraph.tensors[index].shape
        return () if shape is None else tuple(int(size) for size in shape)

    def dtype(self, index: int) -> str:
        """Element type of a tensor, as numpy spells it."""
        name = _names("TensorType")[self.subgraph.tensors[index].type]
        return _NUMPY_NAMES.get(name, name.lower())

    def scales(self, index: int) -> tuple[Array, Array, int] | None:
        """Float32 scales, zero points and the axis they run along; None where the tensor is not quantized."""
        import numpy as np

        found = self.subgraph.tensors[index].quantization
        if found is None or found.scale is None or len(found.scale) == 0:
            return None
        return np.asarray(found.scale, np.float32), np.asarray(found.zeroPoint, np.int64), int(found.quantizedDimension)

    def constant(self, index: int) -> Array | None:
        """Value of a constant tensor in its own shape, int4 as int8; None for a computed one."""
        import numpy as np

        data = self.model.buffers[self.subgraph.tensors[index].buffer].data
        if data is None or len(data) == 0:
            return None
        raw = np.asarray(data, np.uint8)
        dtype = self.dtype(index)
        return unpack_int4(raw, self.shape(index)) if dtype == "int4" else raw.view(dtype).reshape(self.shape(index))

    def producers(self) -> dict[int, Any]:
        """The operator that computes each tensor."""
        return {int(index): operator for operator in self.operators for index in operator.outputs}

    def readers(self) -> dict[int, list[Any]]:
        """The operators that read each tensor."""
        found: dict[int, list[Any]] = {}
        for operator in self.operators:
            for index in dict.fromkeys(self.reads(operator)):
                found.setdefault(index, []).append(operator)
        return found

    def set_name(self, index: int, name: str) -> None:
        """Rename a tensor."""
        self.subgraph.tensors[index].name = name.encode()

    def set_scales(self, index: int, scales: Sequence[float]) -> None:
        """Replace a tensor's scales; zero points and axis stay."""
        import numpy as np

        self.subgraph.tensors[index].quantization.scale = np.asarray(scales, np.float32)

    def set_constant(self, index: int, value: Array) -> None:
        """Give a constant tensor another value (and its shape) in a buffer of its own."""
        import numpy as np

        tensor = self.subgraph.tensors[index]
        buffer = _schema().BufferT()
        buffer.data = np.frombuffer(value.tobytes(), np.uint8)
        tensor.buffer = len(self.model.buffers)
        tensor.shape = np.asarray(value.shape, np.int32)
        self.model.buffers.append(buffer)

    def add_tensor(self, name: str, *, like: int, dtype: str | None = None, shape: Sequence[int] | None = None) -> int:
        """A new computed tensor with the shape, type and grid of ``like``; a float type carries no grid."""
        import numpy as np

        model, schema = self.subgraph.tensors[like], _schema()
        tensor = schema.TensorT(
            shape=model.shape, type=model.type, name=name.encode(), quantization=model.quantization, hasRank=model.hasRank
        )
        if dtype is not None:
            tensor.type = getattr(schema.TensorType, dtype.upper())
            tensor.quantization = model.quantization if dtype == self.dtype(like) else None
        if shape is not None:
            tensor.shape = np.asarray(shape, np.int32)
        self.subgraph.tensors.append(tensor)
        return len(self.subgraph.tensors) - 1

    def add_constant(self, value: Array, *, scales: Sequence[float], axis: int = 0) -> int:
        """A new constant, symmetric, with one scale for each index of an axis; without scales it is plain."""
        import numpy as np

        schema = _schema()
        grid = schema.QuantizationParametersT(
            scale=np.asarray(scales, np.float32), zeroPoint=np.zeros(len(scales), np.int64), quantizedDimension=axis
        )
        tensor = schema.TensorT(
            type=getattr(schema.TensorType, value.dtype.name.upper()),
            name=b"",
            quantization=grid if len(scales) else None,
            hasRank=True,
        )
        self.subgraph.tensors.append(tensor)
        self.set_constant(len(self.subgraph.tensors) - 1, value)
        return len(self.subgraph.tensors) - 1

    def pack_int4(self, index: int) -> None:
        """Store an int8 constant, whose values fit, in 4 bits each: two a byte, the first in the low half."""
        import numpy as np

        value, shape = self.constant(index), self.shape(index)
        if value is None:
            return
        flat = np.append(value.reshape(-1), np.zeros(value.size % 2, np.int8)).astype(np.uint8) & 0xF
        self.set_constant(index, flat[0::2] | (flat[1::2] << 4))
        tensor = self.subgraph.tensors[index]
        tensor.shape, tensor.type = np.asarray(shape, np.int32), _schema().TensorType.INT4

    def require_version(self, operator: Any, version: int) -> None:
        """Ask for at least this version of an operator's kernel."""
        code = self.model.operatorCodes[operator.opcodeIndex]
        code.version = max(int(code.version), version)

    def make_operator(self, kind: str, *, reads: Sequence[int], writes: Sequence[int]) -> Any:
        """A new operator without options, e.g. ``"QUANTIZE"``; put it into :attr:`operators` where it is to run."""
        schema = _schema()
        value = getattr(schema.BuiltinOperator, kind)
        codes = self.model.operatorCodes
        position = next(
            (i for i, code in enumerate(codes) if max(code.builtinCode, code.deprecatedBuiltinCode) == value), len(codes)
        )
        if position == len(codes):
            codes.append(schema.OperatorCodeT(builtinCode=value, deprecatedBuiltinCode=min(value, 127), version=1))
        return schema.OperatorT(opcodeIndex=position, inputs=list(reads), outputs=list(writes))

    def redirect(self, old: int, new: int, *, operators: Iterable[Any]) -> None:
        """Let the given operators read ``new`` where they read ``old``."""
        for operator in operators:
            operator.inputs = [new if index == old else int(index) for index in operator.inputs]

    def set_edges(
        self, inputs: Sequence[tuple[str, int]], outputs: Sequence[tuple[str, int]], *, signature: str = "serving_default"
    ) -> None:
        """Make the given ``(name, tensor)`` pairs the inputs and outputs of the graph and of its only signature."""
        schema = _schema()
        self.subgraph.inputs = [index for _, index in inputs]
        self.subgraph.outputs = [index for _, index in outputs]
        pairs = [[schema.TensorMapT(name=name, tensorIndex=index) for name, index in side] for side in (inputs, outputs)]
        self.model.signatureDefs = [
            schema.SignatureDefT(inputs=pairs[0], outputs=pairs[1], signatureKey=signature, subgraphIndex=0)
        ]

    def edge_names(self) -> dict[int, str]:
        """Signature names of inputs and outputs by tensor index."""
        signature = self.model.signatureDefs[0]
        pairs = [*(signature.inputs or ()), *(signature.outputs or ())]
        return {int(pair.tensorIndex): _text(pair.name) for pair in pairs}

    def signature(self) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
        """``(name, tensor)`` of the only signature's inputs and outputs."""
        found = self.model.signatureDefs[0]
        sides = ([(_text(pair.name), int(pair.tensorIndex)) for pair in pairs or ()] for pairs in (found.inputs, found.outputs))
        inputs, outputs = sides
        return inputs, outputs

    def add_metadata(self, name: str, content: bytes) -> None:
        """Store bytes under a name beside the graph."""
        import numpy as np

        schema = _schema()
        buffer = schema.BufferT(data=np.frombuffer(content, np.uint8))
        self.model.buffers.append(buffer)
        entry = schema.MetadataT(name=name.encode(), buffer=len(self.model.buffers) - 1)
        self.model.metadata = [*(self.model.metadata or ()), entry]

    def remove_dead(self) -> None:
        """Drop operators without effect, and every tensor, buffer and operator code that nothing uses."""
        needed = set(self.outputs)
        kept = []
        for operator in reversed(self.operators):
            if needed.intersection(int(index) for index in operator.outputs):
                needed.update(self.reads(operator))
                needed.update(int(index) for index in operator.outputs)
                kept.append(operator)
        self.subgraph.operators = kept[::-1]
        self._renumber_tensors(needed.union(self.inputs))
        self._renumber_buffers()
        self._renumber_codes()

    def _renumber_tensors(self, needed: set[int]) -> None:
        order = sorted(needed)
        new = {old: position for position, old in enumerate(order)} | {-1: -1}
        self.subgraph.tensors = [self.subgraph.tensors[old] for old in order]
        for operator in self.operators:
            operator.inputs = [new[int(index)] for index in operator.inputs]
            operator.outputs = [new[int(index)] for index in operator.outputs]
        self.subgraph.inputs = [new[index] for index in self.inputs]
        self.subgraph.outputs = [new[index] for index in self.outputs]
        for signature in self.model.signatureDefs or ():
            for pair in (*signature.inputs, *signature.outputs):
                pair.tensorIndex = new[int(pair.tensorIndex)]

    def drop_buffers(self) -> None:
        """Drop every buffer that no tensor holds any more; indices of tensors stay."""
        self._renumber_buffers()

    def _renumber_buffers(self) -> None:
        """Keep one copy of each constant; buffer 0 stays the empty one, as the schema demands."""
        tensors = [tensor for subgraph in self.model.subgraphs for tensor in subgraph.tensors]
        holders = [*tensors, *(self.model.metadata or ())]
        buffers, places = [_schema().BufferT()], {b"": 0}
        for holder in holders:
            data = self.model.buffers[holder.buffer].data
            content = b"" if data is None else bytes(data)
            if content not in places:
                places[content] = len(buffers)
                buffers.append(self.model.buffers[holder.buffer])
            holder.buffer = places[content]
        self.model.buffers = buffers

    def _renumber_codes(self) -> None:
        operators = [operator for subgraph in self.model.subgraphs for operator in subgraph.operators]
        order = sorted({operator.opcodeIndex for operator in operators})
        self.model.operatorCodes = [self.model.operatorCodes[old] for old in order]
        for operator in operators:
            operator.opcodeIndex = order.index(operator.opcodeIndex)

    def to_bytes(self) -> bytes:
        """The file."""
        builder = _builder()
        builder.Finish(self.model.Pack(builder), file_identifier=FILE_IDENTIFIER)
        return bytes(builder.Output())


def unpack_int4(data: Array, shape: Sequence[int]) -> Array:
    """int8 values of an int4 constant's bytes.

    >>> import numpy as np
    >>> unpack_int4(np.array([0xF1], np.uint8), (2,))
    array([ 1, -1], dtype=int8)
    """
    import math

    import numpy as np

    halves = np.stack([data & 0xF, data >> 4], axis=1).reshape(-1)[: math.prod(shape)].astype(np.int8)
    values: Array = ((halves ^ 8) - 8).astype(np.int8).reshape(shape)
    return values


def _text(name: str | bytes) -> str:
    return name if isinstance(name, str) else bytes(name).decode()


def _builder() -> Any:
    """A flatbuffer builder that aligns buffers as the schema asks and stores equal vectors (zero points, shapes) once."""
    flatbuffers = importlib.import_module("flatbuffers")

    class Builder(flatbuffers.Builder):  # type: ignore[misc, name-defined]  # the base is loaded on use
        def __init__(self) -> None:
            super().__init__(1 << 20)
            self.places: dict[tuple[str, bytes], int] = {}

        def CreateNumpyVector(self, x: Array) -> int:  # noqa: N802  the base class's name
            key = (x.dtype.str, x.tobytes())
            if key not in self.places:
                if x.dtype.itemsize == 1:
                    self.Prep(_BUFFER_ALIGNMENT, x.size)
                self.places[key] = super().CreateNumpyVector(x)
            return self.places[key]

    return Builder()
