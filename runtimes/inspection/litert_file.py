"""What a ``.tflite`` holds: operators with their fused activations, tensors, buffers and metadata."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.core.errors import IntegrityError
from edgekit.core.files import sha256
from edgekit.core.listing import Arithmetic, Constant, Listing, Operation, Value, constant_of, with_sizes
from edgekit.runtimes.litert import make_interpreter, read_model
from edgekit.runtimes.litert_stored import StoredGraph

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["INSPECTOR", "TFLiteInspector"]

_ACTIVATIONS = {0: "", 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH", 5: "SIGN_BIT"}
"""``ActivationFunctionType`` of schema.fbs."""
_IDENTIFIER = b"TFL3"
_SHOWN_METADATA = 2000


class TFLiteInspector:
    """TensorFlow Lite files."""

    name = "tflite"
    runtime = "litert"
    extra = "tflite"
    modules = ("ai_edge_litert",)
    hides = ("torch", "tensorflow", "keras", "coremltools", "onnx", "onnxruntime", "litert_torch", "jax")

    def recognises(self, path: Path) -> bool:
        """Whether the bytes 4 to 8 are ``TFL3``, the schema's file identifier."""
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            return stream.read(8)[4:] == _IDENTIFIER

    def inspect(self, path: Path, *, kept: dict[str, Array] | None = None) -> Listing:
        """List the first subgraph.

        Raises:
            IntegrityError: LiteRT refuses the file.
        """
        data = read_model(path)
        make_interpreter(data, str(path), threads=1)  # refuses a damaged file before Python reads it unverified
        try:
            return _list(StoredGraph(data), path, len(data), kept)
        except IntegrityError:
            raise
        except Exception as reason:  # the schema's readers do not verify what they follow
            raise IntegrityError(f"{path} is damaged: {type(reason).__name__}: {reason}.") from reason


INSPECTOR = TFLiteInspector()


def _list(graph: StoredGraph, path: Path, size_bytes: int, kept: dict[str, Array] | None) -> Listing:
    constants = _constants(graph, kept)
    operations = _operations(graph, constants)
    macs = sum(operation.macs for operation in operations)
    integer = sum(operation.macs for operation in operations if operation.arithmetic == "integer")
    others = len(graph.model.subgraphs) - 1
    return Listing(
        path=str(path),
        format="tflite",
        sha256=sha256(path),
        size_bytes=size_bytes,
        inputs=tuple(_value(graph, int(index)) for index in graph.graph.inputs),
        outputs=tuple(_value(graph, int(index)) for index in graph.graph.outputs),
        operations=operations,
        constants=tuple(constants.values()),
        metadata=_metadata(graph),
        versions={"schema": str(graph.model.version), **_operator_versions(graph)},
        integer_mac_share=integer / macs if macs else None,
        method="types of the tensors on both sides of an operator, by which LiteRT chooses kernels",
        notes=(f"{others} more subgraphs (control flow or other signatures) are not listed.",) if others else (),
    )


def _constants(graph: StoredGraph, kept: dict[str, Array] | None) -> dict[int, Constant]:
    found = {}
    for index in range(len(graph.graph.tensors)):
        data = graph.model.buffers[graph.graph.tensors[index].buffer].data
        if data is None or len(data) == 0:
            continue
        values, grid = graph.values(index), graph.grid(index)
        if values is None:
            continue
        found[index] = constant_of(
            graph.name(index),
            values,
            dtype=graph.dtype(index),
            size_bytes=len(data),
            granularity="" if grid is None else grid.granularity,
            grid=None if grid is None else {"scale": grid.scale, "zero_point": grid.zero_point},
            kept=kept,
        )
    return found


def _operations(graph: StoredGraph, constants: dict[int, Constant]) -> tuple[Operation, ...]:
    kernels = {kernel.name: kernel for kernel in graph.kernels()}
    found = []
    for operator in graph.graph.operators:
        reads = [int(index) for index in (operator.inputs if operator.inputs is not None else ()) if index >= 0]
        made = [int(index) for index in (operator.outputs if operator.outputs is not None else ())]
        name = graph.name(made[0]) if made else ""
        kernel = kernels.get(name)
        arithmetic: Arithmetic = kernel.arithmetic if kernel else ""
        found.append(
            Operation(
                name=name,
                op=_kind(graph, operator),
                inputs=tuple(graph.name(index) for index in reads),
                outputs=tuple(_value(graph, index) for index in made),
                macs=kernel.macs if kernel else 0,
                arithmetic=arithmetic,
                fused=_ACTIVATIONS.get(int(getattr(operator.builtinOptions, "fusedActivationFunction", 0) or 0), "?"),
            )
        )
    return with_sizes(found, {constant.name: constant for constant in constants.values()})


def _kind(graph: StoredGraph, operator: Any) -> str:
    kind = graph.kind(operator)
    if kind != "CUSTOM":
        return kind
    code = graph.model.operatorCodes[operator.opcodeIndex].customCode
    return f"CUSTOM {bytes(code or b'').decode('utf-8', 'replace')}".strip()


def _value(graph: StoredGraph, index: int) -> Value:
    tensor, grid = graph.graph.tensors[index], graph.grid(index)
    signature = tensor.shapeSignature
    sizes = graph.shape(index) if signature is None or len(signature) == 0 else tuple(int(size) for size in signature)
    whole = grid is not None and grid.scale.size == 1
    return Value(
        name=graph.name(index),
        shape=tuple(None if size < 0 else size for size in sizes),
        dtype=graph.dtype(index),
        scale=float(grid.scale[0]) if grid is not None and whole else None,
        zero_point=int(grid.zero_point[0]) if grid is not None and whole else None,
    )


def _metadata(graph: StoredGraph) -> dict[str, str]:
    """The description, signatures, and metadata buffers that are text."""
    found = {"description": bytes(graph.model.description or b"").decode("utf-8", "replace")}
    for signature in graph.model.signatureDefs or ():
        key = bytes(signature.signatureKey or b"").decode("utf-8", "replace")
        found[f"signature {key}"] = f"{_names(signature.inputs)} -> {_names(signature.outputs)}"
    for entry in graph.model.metadata or ():
        name, data = bytes(entry.name or b"").decode("utf-8", "replace"), graph.model.buffers[entry.buffer].data
        raw = b"" if data is None else np.asarray(data, np.uint8).tobytes()
        try:
            text = raw.rstrip(b"\0").decode("utf-8")
        except UnicodeDecodeError:
            text = ""
        readable = text.replace("\n", "").isprintable()
        found[name] = text[:_SHOWN_METADATA] if readable and text else f"({len(raw)} bytes)"
    return {name: value for name, value in found.items() if value}


def _names(tensors: Any) -> str:
    return ", ".join(bytes(tensor.name or b"").decode("utf-8", "replace") for tensor in tensors or ())


def _operator_versions(graph: StoredGraph) -> dict[str, str]:
    """Highest version of any operator, which decides what runtime the file needs."""
    versions = [int(code.version) for code in graph.model.operatorCodes or ()]
    return {"highest operator version": str(max(versions))} if versions else {}
