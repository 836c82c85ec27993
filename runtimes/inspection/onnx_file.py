"""What an ``.onnx`` holds: nodes, initializers, metadata; and the kernels ONNX Runtime makes of it by its own fusions."""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.core.damage import explaining_damage
from edgekit.core.errors import EdgekitError, IntegrityError
from edgekit.core.files import sha256
from edgekit.core.listing import Arithmetic, Constant, Listing, Operation, Value, constant_of, with_sizes
from edgekit.runtimes.onnxruntime_stored import FAMILY_OF, read_file

if TYPE_CHECKING:
    import onnx

    from edgekit.core.stored import StoredFile
    from edgekit.core.tensors import Array

__all__ = ["INSPECTOR", "OnnxInspector"]

_PRODUCTS = {"Gemm": 1, "MatMul": 1, "MatMulInteger": 1, "QLinearMatMul": 3, "Conv": 1, "ConvInteger": 1, "QLinearConv": 3}
"""Operators, and the place of their weight."""
_LARGEST_PROTO = 2**31 - 1


class OnnxInspector:
    """ONNX models."""

    name = "onnx"
    runtime = "onnxruntime"
    extra = "onnx"
    modules = ("onnx", "onnxruntime")
    hides = ("torch", "tensorflow", "keras", "coremltools", "litert_torch", "ai_edge_litert", "jax")

    def recognises(self, path: Path) -> bool:
        """Whether the name ends in ``.onnx``: the format has no identifier of its own."""
        return path.suffix == ".onnx" and path.is_file()

    def inspect(self, path: Path, *, kept: dict[str, Array] | None = None) -> Listing:
        """List the main graph.

        Raises:
            IntegrityError: The bytes are no valid ONNX model, or its external data is missing or lies outside its folder.
        """
        with explaining_damage(path):
            return self._list(path, kept)

    def _list(self, path: Path, kept: dict[str, Array] | None) -> Listing:
        model = _load(path)
        inferred = _with_shapes(model)
        constants = _constants(model, kept)
        values = _values(inferred)
        held = _executed(path, model)
        macs = sum(kernel.macs for kernel in held.kernels) if held else 0
        integer = sum(kernel.macs for kernel in held.kernels if kernel.arithmetic != "float") if held else 0
        beside = sum(file.stat().st_size for file in _external_files(path, model))
        return Listing(
            path=str(path),
            format=self.name,
            sha256=sha256(path),
            size_bytes=path.stat().st_size + beside,
            inputs=tuple(values[entry.name] for entry in model.graph.input if entry.name not in constants),
            outputs=tuple(values[entry.name] for entry in model.graph.output),
            operations=_operations(model, constants, values),
            constants=tuple(constants.values()),
            metadata={entry.key: entry.value for entry in model.metadata_props} | _description(model),
            versions=_versions(model),
            kernels=dict(collections.Counter(kernel.op for kernel in held.kernels)) if held else {},
            integer_mac_share=integer / macs if macs else None,
            method=held.method if held else "",
            notes=() if held else ("ONNX Runtime could not run it on random inputs, so its kernels are not listed.",),
        )


INSPECTOR = OnnxInspector()


def _load(path: Path) -> onnx.ModelProto:
    import onnx

    if path.stat().st_size > _LARGEST_PROTO:
        raise IntegrityError(f"{path} has {path.stat().st_size / 2**30:.1f} GiB; a protobuf file holds at most 2. It is damaged.")
    try:
        onnx.checker.check_model(str(path))
        return onnx.load(str(path))
    except Exception as reason:  # protobuf's and onnx's own, which have no common base
        text = " ".join(str(reason).split())
        raise IntegrityError(f"{path} is not a valid ONNX model: {text or type(reason).__name__}") from reason


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with inferred shapes where that is possible; the model itself where it is too large or not."""
    import onnx

    try:
        return onnx.shape_inference.infer_shapes(model)
    except Exception:  # an operator of another domain, a graph above 2 GiB: shapes are then not shown
        return model


def _external_files(path: Path, model: onnx.ModelProto) -> list[Path]:
    """Files beside the model that hold weights. After loading, tensors no longer say so; the folder's own record is read."""
    import onnx

    plain = onnx.load(str(path), load_external_data=False)
    names = {
        entry.value
        for tensor in plain.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    del model
    return [path.parent / name for name in sorted(names)]


def _constants(model: onnx.ModelProto, kept: dict[str, Array] | None) -> dict[str, Constant]:
    import onnx

    grids: dict[str, dict[str, Array]] = {}
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            parts = zip(("scale", "zero_point"), node.input[1:], strict=False)
            grids[node.input[0]] = {name: stored[source] for name, source in parts if source in stored}
    return {
        tensor.name: constant_of(
            tensor.name,
            _plain(stored[tensor.name]),
            dtype=_dtype(tensor),
            size_bytes=_bytes(tensor, stored[tensor.name]),
            granularity=_granularity(grids.get(tensor.name)),
            grid=grids.get(tensor.name),
            kept=kept,
        )
        for tensor in model.graph.initializer
    }


def _plain(values: Array) -> Array:
    """int4 as int8, so that it can be sorted and compared with what other formats hold."""
    return values.astype(np.int8) if values.dtype.itemsize == 1 and values.dtype.kind == "V" else values


def _dtype(tensor: onnx.TensorProto) -> str:
    import onnx

    word = str(onnx.TensorProto.DataType.Name(tensor.data_type)).lower()
    return {"float": "float32", "double": "float64"}.get(word, word)


def _bytes(tensor: onnx.TensorProto, values: Array) -> int:
    four_bits = _dtype(tensor) in {"int4", "uint4"}
    return math.ceil(values.size / 2) if four_bits else int(values.nbytes)


def _granularity(grid: Mapping[str, Array] | None) -> str:
    if not grid or "scale" not in grid:
        return ""
    scale = grid["scale"]
    return "tensor" if scale.size == 1 else "channel" if scale.ndim == 1 else "block"


def _values(model: onnx.ModelProto) -> dict[str, Value]:
    found = {}
    for entry in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        kind = entry.type.tensor_type
        shape = None
        if kind.HasField("shape"):
            shape = tuple(int(dim.dim_value) if dim.HasField("dim_value") else None for dim in kind.shape.dim)
        found[entry.name] = Value(name=entry.name, shape=shape, dtype=_element(kind.elem_type))
    return found


def _element(number: int) -> str:
    import onnx

    word = str(onnx.TensorProto.DataType.Name(number)).lower()
    return {"float": "float32", "double": "float64", "undefined": "?"}.get(word, word)


def _operations(model: onnx.ModelProto, constants: Mapping[str, Constant], values: Mapping[str, Value]) -> tuple[Operation, ...]:
    makers = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = []
    for node in model.graph.node:
        domain = f"{node.domain}." if node.domain not in {"", "ai.onnx"} else ""
        found.append(
            Operation(
                name=node.name or (node.output[0] if node.output else ""),
                op=f"{domain}{node.op_type}",
                inputs=tuple(name for name in node.input if name),
                outputs=tuple(values.get(name, Value(name=name, shape=None, dtype="?")) for name in node.output if name),
                macs=_macs(node, constants, values, makers),
                arithmetic=_arithmetic(node, makers, readers),
            )
        )
    return with_sizes(found, constants)


def _macs(node: onnx.NodeProto, constants: Mapping[str, Constant], values: Mapping[str, Value], makers: Mapping[str, Any]) -> int:
    """Multiply-accumulates, as in :mod:`edgekit.core.program_cost`; 0 where a shape is open."""
    family = FAMILY_OF.get(node.op_type)
    if family is None or not node.output:
        return 0
    made, data = _sizes(values.get(node.output[0])), _sizes(values.get(node.input[0]))
    if family == "recurrent":
        weights = [shape for name in node.input[1:3] if (shape := _stored_shape(name, constants, makers))]
        return math.prod(data[:2]) * sum(math.prod(shape) for shape in weights) if data else 0
    if family == "product":
        flipped = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        return math.prod(made) * (data[-2] if flipped else data[-1]) if made and data else 0
    place = _PRODUCTS.get(node.op_type, 1)
    weight = _stored_shape(node.input[place], constants, makers) if len(node.input) > place else ()
    if not weight:
        return 0
    return math.prod(data if family == "transposed" else made) * math.prod(weight[1:])


def _sizes(value: Value | None) -> tuple[int, ...]:
    return () if value is None or value.shape is None else tuple(size or 0 for size in value.shape)


def _stored_shape(name: str, constants: Mapping[str, Constant], makers: Mapping[str, Any]) -> tuple[int, ...]:
    """Shape of the constant behind a value that is perhaps dequantized."""
    while name not in constants:
        maker = makers.get(name)
        if maker is None or maker.op_type not in {"DequantizeLinear", "Cast", "Identity"}:
            return ()
        name = maker.input[0]
    return constants[name].shape


def _arithmetic(node: onnx.NodeProto, makers: Mapping[str, Any], readers: Mapping[str, list[Any]]) -> Arithmetic:
    """By the nodes around it; which kernels ONNX Runtime fuses of them is listed beside (``Listing.kernels``)."""
    if node.op_type not in FAMILY_OF:
        return ""
    if "Integer" in node.op_type or "NBits" in node.op_type:
        return "dynamic"
    if node.op_type.startswith("QLinear"):
        return "integer"
    maker = makers.get(node.input[0])
    comes = maker is not None and maker.op_type == "DequantizeLinear"
    behind = readers.get(node.output[0], [])
    behind = [*behind, *(r for b in behind if b.op_type in {"Relu", "Clip"} for r in readers.get(b.output[0], []))]
    return "integer" if comes and any(reader.op_type == "QuantizeLinear" for reader in behind) else "float"


def _executed(path: Path, model: onnx.ModelProto) -> StoredFile | None:
    """The kernels of one inference on random inputs; None where it cannot be run."""
    held = {tensor.name for tensor in model.graph.initializer}
    draw = np.random.default_rng(0)
    inputs = {}
    for entry in model.graph.input:
        if entry.name in held:
            continue
        kind = entry.type.tensor_type
        shape = [dim.dim_value if dim.HasField("dim_value") else 1 for dim in kind.shape.dim]
        dtype = _element(kind.elem_type)
        drawn = draw.standard_normal(shape) if dtype.startswith("float") else draw.integers(0, 2, shape)
        inputs[entry.name] = drawn.astype(dtype)
    try:
        return read_file(path.read_bytes(), str(path), inputs)
    except EdgekitError:
        return None


def _description(model: onnx.ModelProto) -> dict[str, str]:
    return {"description": model.doc_string} if model.doc_string else {}


def _versions(model: onnx.ModelProto) -> dict[str, str]:
    sets = {f"opset {entry.domain or 'ai.onnx'}": str(entry.version) for entry in model.opset_import}
    wrote = " ".join(part for part in (model.producer_name, model.producer_version) if part)
    return {"IR": str(model.ir_version), **sets, **({"producer": wrote} if wrote else {})}
