"""What an ``.ort`` holds: ONNX Runtime's own flatbuffer format, with the graph as its optimiser left it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.core.errors import IntegrityError
from edgekit.core.files import sha256
from edgekit.core.listing import Constant, Listing, Operation, Value, constant_of, with_sizes

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["INSPECTOR", "OrtInspector"]

_IDENTIFIER = b"ORTM"
_FBS = "onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs"
_STRING = 8


class OrtInspector:
    """ONNX Runtime's ``.ort`` format (ort.fbs in its sources)."""

    name = "ort"
    runtime = "onnxruntime"
    extra = "onnx"
    modules = ("onnx", "onnxruntime", "flatbuffers")
    hides = ("torch", "tensorflow", "keras", "coremltools", "litert_torch", "ai_edge_litert", "jax")

    def recognises(self, path: Path) -> bool:
        """Whether the bytes 4 to 8 are ``ORTM``, the format's file identifier."""
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            return stream.read(8)[4:] == _IDENTIFIER

    def inspect(self, path: Path, *, kept: dict[str, Array] | None = None) -> Listing:
        """List the main graph.

        Raises:
            IntegrityError: ONNX Runtime refuses the file.
        """
        import onnxruntime

        data = path.read_bytes()
        try:
            onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])  # it verifies; the readers below do not
            session = importlib.import_module(f"{_FBS}.InferenceSession").InferenceSession.GetRootAs(data, 0)
            return _list(session, path, len(data), kept)
        except Exception as reason:  # ONNX Runtime's own exceptions have no common base
            text = " ".join(str(reason).split())
            raise IntegrityError(f"{path} is not a model ONNX Runtime can read: {text or type(reason).__name__}") from reason


INSPECTOR = OrtInspector()


def _list(session: Any, path: Path, size_bytes: int, kept: dict[str, Array] | None) -> Listing:
    model = session.Model()
    graph = model.Graph()
    constants = _constants(graph, kept)
    values = {_text(entry.Name()): entry for entry in (graph.NodeArgs(at) for at in range(graph.NodeArgsLength()))}
    opsets = [model.OpsetImport(at) for at in range(model.OpsetImportLength())]
    properties = [model.MetadataProps(at) for at in range(model.MetadataPropsLength())]
    return Listing(
        path=str(path),
        format="ort",
        sha256=sha256(path),
        size_bytes=size_bytes,
        inputs=tuple(_value(_text(graph.Inputs(at)), values) for at in range(graph.InputsLength())),
        outputs=tuple(_value(_text(graph.Outputs(at)), values) for at in range(graph.OutputsLength())),
        operations=_operations(graph, constants, values),
        constants=tuple(constants.values()),
        metadata={_text(entry.Key()): _text(entry.Value()) for entry in properties},
        versions={
            "ORT format": _text(session.OrtVersion()),
            "IR": str(model.IrVersion()),
            **{f"opset {_text(entry.Domain()) or 'ai.onnx'}": str(entry.Version()) for entry in opsets},
        },
        notes=("Multiply-accumulates are not counted in this format; the .onnx file beside it says them.",),
        method="the graph as ONNX Runtime's optimiser left it when the file was made",
    )


def _constants(graph: Any, kept: dict[str, Array] | None) -> dict[str, Constant]:
    import onnx

    found = {}
    for at in range(graph.InitializersLength()):
        tensor = graph.Initializers(at)
        shape = tuple(int(tensor.Dims(axis)) for axis in range(tensor.DimsLength()))
        kind = int(tensor.DataType())
        if kind == _STRING or tensor.RawDataLength() == 0:
            continue
        raw = np.asarray(tensor.RawDataAsNumpy(), np.uint8)
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind))
        packed = raw.size != dtype.itemsize * int(np.prod(shape))  # four bits, two to a byte
        values = raw if packed else raw.view(dtype).reshape(shape)
        word = onnx.TensorProto.DataType.Name(kind).lower()
        word = {"float": "float32", "double": "float64"}.get(word, word)
        found[_text(tensor.Name())] = constant_of(_text(tensor.Name()), values, dtype=word, size_bytes=raw.size, kept=kept)
    return found


def _operations(graph: Any, constants: dict[str, Constant], values: dict[str, Any]) -> tuple[Operation, ...]:
    nodes = sorted((graph.Nodes(at) for at in range(graph.NodesLength())), key=lambda node: int(node.Index()))
    found = []
    for node in nodes:
        reads = [name for at in range(node.InputsLength()) if (name := _text(node.Inputs(at)))]
        made = [name for at in range(node.OutputsLength()) if (name := _text(node.Outputs(at)))]
        domain = _text(node.Domain())
        found.append(
            Operation(
                name=_text(node.Name()) or (made[0] if made else ""),
                op=f"{domain}.{_text(node.OpType())}" if domain not in {"", "ai.onnx"} else _text(node.OpType()),
                inputs=tuple(reads),
                outputs=tuple(_value(name, values) for name in made),
            )
        )
    return with_sizes(found, constants)


def _value(name: str, values: dict[str, Any]) -> Value:
    import onnx

    entry = values.get(name)
    info = entry.Type() if entry is not None else None
    table = info.Value() if info is not None else None
    if table is None:
        return Value(name=name, shape=None, dtype="?")
    typed = importlib.import_module(f"{_FBS}.TensorTypeAndShape").TensorTypeAndShape()
    typed.Init(table.Bytes, table.Pos)
    word = onnx.TensorProto.DataType.Name(int(typed.ElemType())).lower()
    shape = typed.Shape()
    sizes = None if shape is None else tuple(_size(shape.Dim(at)) for at in range(shape.DimLength()))
    return Value(name=name, shape=sizes, dtype={"float": "float32", "double": "float64"}.get(word, word))


def _size(dim: Any) -> int | None:
    value = dim.Value()
    fixed = value is not None and int(value.DimType()) == 1  # DimensionValueType.VALUE
    return int(value.DimValue()) if fixed else None


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")
