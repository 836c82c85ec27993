"""What an ``.onnx`` file holds, and which kernels ONNX Runtime runs for it after all its own optimisations.

The weights are those of the file. The kernels are those of one profiled inference: ONNX Runtime writes down the graph it
executes and each node's shapes; a node of that graph is tied to a weight by the constant it reads.

================ ======================= =========== ==============================================
kernel           operators               weight at   multiply-accumulates
================ ======================= =========== ==============================================
convolution      Conv, QLinearConv ...   1 or 3      outputs x weights of one output channel
transposed       ConvTranspose           1           inputs x weights of one input channel
matrix product   Gemm, MatMul ...        1 or 3      outputs x length of a row of the first operand
recurrent        LSTM, GRU               1 and 2     steps x samples x weights
================ ======================= =========== ==============================================
"""

from __future__ import annotations

import collections
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.core.errors import IntegrityError
from edgekit.core.stored import Arithmetic, Grid, Kernel, StoredConstant, StoredFile

if TYPE_CHECKING:
    import onnx

    from edgekit.core.tensors import Array

__all__ = ["FAMILY_OF", "read_file"]

_FAMILY = {
    "convolution": {"Conv", "FusedConv", "NhwcFusedConv", "QLinearConv", "ConvInteger"},
    "transposed": {"ConvTranspose", "QLinearConvTranspose"},
    "product": {
        "Gemm", "FusedGemm", "QGemm", "MatMul", "FusedMatMul", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul", "MatMulNBits",
    },
    "recurrent": {"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"},
}  # fmt: skip
FAMILY_OF = {op: family for family, ops in _FAMILY.items() for op in ops}
"""Operator that multiplies -> how its multiply-accumulates are counted."""
_STATIC = re.compile(r"^(QLinear|QGemm)")
_DYNAMIC = re.compile(r"Integer|DynamicQuantize")
_SEEN_THROUGH = {"DequantizeLinear", "Transpose", "Reshape", "Cast", "Identity", "Squeeze", "Unsqueeze"}


def read_file(data: bytes, source: str, inputs: Mapping[str, Array]) -> StoredFile:
    """Read a file's bytes back, and run them once.

    Args:
        data: The .onnx file.
        source: Where it came from, for messages.
        inputs: One sample, as the file wants it.

    Raises:
        IntegrityError: The bytes are no ONNX model, or ONNX Runtime cannot run it.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(data)
        executed, events = _run_once(data, inputs)
    except Exception as reason:  # protobuf's and ONNX Runtime's own, which have no common base
        raise IntegrityError(
            f"{source} is not a model ONNX Runtime can run. It says: {' '.join(str(reason).split())}"
        ) from reason
    constants = _constants(model)
    names = {constant.name for constant in constants}
    return StoredFile(
        constants=constants,
        grids=_activation_grids(model),
        kernels=_kernels(executed, events, names, _weights_by_node(model, names)),
        stray_dequantizes=_stray(executed),
        method="the graph that ONNX Runtime executes after its own optimisations, one profiled inference",
    )


def _run_once(data: bytes, inputs: Mapping[str, Array]) -> tuple[onnx.ModelProto, list[dict[str, Any]]]:
    """The graph ONNX Runtime executes, and the profile's node events in order."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory(prefix="edgekit-audit-") as scratch:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(Path(scratch, "executed.onnx"))
        options.enable_profiling, options.profile_file_prefix = True, str(Path(scratch, "profile"))
        options.log_severity_level = 4  # it warns that such a graph is for this machine only
        options.intra_op_num_threads = 1
        # Blocked layouts of float kernels rename every node; which kernels compute in integers does not depend on them.
        layouts = ["NchwcTransformer"]
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"], disabled_optimizers=layouts)
        session.run(None, dict(inputs))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        executed = onnx.load(options.optimized_model_filepath)
    return executed, [event for event in events if event.get("cat") == "Node" and "output_type_shape" in event.get("args", {})]


def _constants(model: onnx.ModelProto) -> tuple[StoredConstant, ...]:
    """Weights of the file: initializers with two axes or more, each with the grid its dequantize node gives it."""
    import onnx.numpy_helper

    held = {tensor.name: tensor for tensor in model.graph.initializer}
    values = {name: onnx.numpy_helper.to_array(tensor) for name, tensor in held.items()}
    picked = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Gather"}  # rows of a table
    grids: dict[str, Grid] = {}
    packed: list[StoredConstant] = []
    for node in model.graph.node:
        parts = [picked.get(name, name) for name in node.input]
        if node.op_type == "DequantizeLinear" and parts[0] in values and parts[1] in values:
            zero_point = values.get(node.input[2]) if len(node.input) > 2 else None
            grids[parts[0]] = _grid(values[parts[0]], values[parts[1]], zero_point, _attribute(node, "block_size"))
        elif node.op_type == "MatMulNBits" and node.input[1] in values:
            packed.append(_unpacked(node, values))
        elif node.op_type in {"MatMulInteger", "ConvInteger"} and node.input[1] in values:
            scale = _scale_after(node, model.graph, values)
            if scale is not None:
                zero_point = values.get(node.input[3]) if len(node.input) > 3 else None
                grids[node.input[1]] = _grid(values[node.input[1]], scale, zero_point, 0)
    taken = {constant.name for constant in packed}
    return tuple(packed) + tuple(
        StoredConstant(name, _plain(value), _dtype(value), grids.get(name))
        for name, value in values.items()
        if value.ndim >= 2 and name not in taken
    )


def _scale_after(node: onnx.NodeProto, graph: onnx.GraphProto, values: Mapping[str, Array]) -> Array | None:
    """Weight scales of a dynamic product: its sums are cast, then multiplied by ``scale of the input * scale of the weight``."""
    readers = {name: reader for reader in graph.node for name in reader.input}
    makers = {name: maker for maker in graph.node for name in maker.output}
    current: onnx.NodeProto | None = node
    while current is not None and current.op_type in {"MatMulInteger", "ConvInteger", "Cast"}:
        current = readers.get(current.output[0])
    if current is None or current.op_type != "Mul":
        return None
    operands = [*current.input, *(name for side in current.input if side in makers for name in makers[side].input)]
    return next((values[name] for name in operands if name in values), None)


def _grid(value: Array, scale: Array, zero_point: Array | None, block_size: int) -> Grid:
    zeros = np.zeros(scale.size, np.int64) if zero_point is None else zero_point.astype(np.int64).reshape(-1)
    return Grid(_dtype(value), scale.reshape(-1).astype(np.float32), zeros, block_size or None)


def _dtype(value: Array) -> str:
    return str(value.dtype)


def _plain(value: Array) -> Array:
    return value.astype(np.int8) if value.dtype.name in {"int4", "uint4"} else value


def _unpacked(node: onnx.NodeProto, values: Mapping[str, Array]) -> StoredConstant:
    """Integers ``[N, K]`` of a MatMulNBits node: ``[N, blocks, bytes]``, two to a byte, low half first (ContribOperators.md)."""
    rows, columns, bits = (_attribute(node, name) for name in ("N", "K", "bits"))
    block, raw = _attribute(node, "block_size"), values[node.input[1]].reshape(rows, -1)
    halves = np.stack([raw & 15, raw >> 4], axis=-1).reshape(rows, -1) if bits == 4 else raw
    integers = halves[:, :columns].astype(np.int16) - 2 ** (bits - 1)
    scale = values[node.input[2]].reshape(-1).astype(np.float32)
    grid = Grid(f"int{bits}", scale, np.zeros(scale.size, np.int64), block if block < columns else None)
    return StoredConstant(node.input[1], integers.astype(np.int8), f"int{bits}", grid)


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), 0)


def _activation_grids(model: onnx.ModelProto) -> dict[str, Grid]:
    import onnx.numpy_helper

    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer if not _is_large(tensor.dims)}
    held = {tensor.name for tensor in model.graph.initializer}
    found: dict[str, Grid] = {}
    for node in model.graph.node:
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear"} or len(node.input) < 3 or node.input[0] in held:
            continue
        scale, zero_point = values.get(node.input[1]), values.get(node.input[2])
        if scale is not None and zero_point is not None:
            tensor = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
            found.setdefault(tensor, Grid(_dtype(zero_point), scale.reshape(-1), zero_point.astype(np.int64).reshape(-1)))
    for node in model.graph.node:
        if node.op_type in {"Clip", "Pad"}:  # of integers: both sides are on one grid
            known = found.get(node.input[0]) or found.get(node.output[0])
            if known is not None:
                found.setdefault(node.input[0], known)
                found.setdefault(node.output[0], known)
    return found


def _is_large(dims: Sequence[int]) -> bool:
    return len(dims) > 1


def _weights_by_node(model: onnx.ModelProto, weights: set[str]) -> dict[str, tuple[str, ...]]:
    """Node of the file -> its weights: where ONNX Runtime decodes a weight beforehand, the node's name is all that stays."""
    producers = {output: node for node in model.graph.node for output in node.output}
    dims = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type in FAMILY_OF:
            read = [_constant_behind(name, producers, dims) for name in node.input]
            found[node.name] = tuple(name for name in read if name in weights)
    return found


def _kernels(
    executed: onnx.ModelProto,
    events: Sequence[Mapping[str, Any]],
    weights: set[str],
    by_node: Mapping[str, tuple[str, ...]],
) -> tuple[Kernel, ...]:
    """Kernels that multiply, with shapes from the profile."""
    profiled: dict[str, collections.deque[Mapping[str, Any]]] = {}
    for event in events:
        arguments = event["args"]
        name = str(event["name"]).removesuffix("_kernel_time")
        for key in (name, f"any {arguments['op_name']}"):
            profiled.setdefault(key, collections.deque()).append(arguments)
    producers = {output: node for node in executed.graph.node for output in node.output}
    dims = {tensor.name: tuple(tensor.dims) for tensor in executed.graph.initializer}
    found = []
    for node in executed.graph.node:
        if node.op_type not in FAMILY_OF:
            continue
        waiting = profiled.get(node.name) or profiled.get(f"any {node.op_type}") or ()
        if not waiting:
            continue  # folded away before it ran
        read = [_constant_behind(name, producers, dims) for name in node.input]
        macs = _macs(node, waiting.popleft(), read, dims)
        used = tuple(name for name in read if name in weights) or _by_name(node.name, by_node)
        found.append(Kernel(node.name, node.op_type, _arithmetic(node.op_type), macs, used))
    return tuple(found)


def _by_name(name: str, by_node: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Weights of the file's node that an executed one was made from: its name stays, perhaps with something behind."""
    origins = [origin for origin in by_node if origin and (name == origin or name.startswith(f"{origin}_"))]
    return by_node[max(origins, key=len)] if origins else ()


def _constant_behind(name: str, producers: Mapping[str, onnx.NodeProto], dims: Mapping[str, tuple[int, ...]]) -> str:
    """The initializer that an input is, perhaps dequantized or moved; empty for a computed tensor."""
    while name not in dims:
        node = producers.get(name)
        if node is None or node.op_type not in _SEEN_THROUGH:
            return ""
        name = node.input[0]
    return name


def _macs(node: onnx.NodeProto, event: Mapping[str, Any], read: Sequence[str], dims: Mapping[str, tuple[int, ...]]) -> int:
    kind = FAMILY_OF[node.op_type]
    made, first = _shape(event["output_type_shape"][0]), _shape(event["input_type_shape"][0])
    outputs = int(np.prod(made))
    if kind == "product":
        is_flipped = bool(_attribute(node, "transA"))
        return outputs * (first[-2] if is_flipped else first[-1])
    weights = [dims[name] for name in read if len(dims.get(name, ())) >= 2]
    if not weights:
        return 0
    if kind == "recurrent":
        return first[0] * first[1] * sum(int(np.prod(shape)) for shape in weights)
    per_channel = int(np.prod(weights[0][1:]))
    return (outputs if kind == "convolution" else int(np.prod(first))) * per_channel


def _shape(typed: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    return tuple(int(size) for size in next(iter(typed.values())))


def _arithmetic(op: str) -> Arithmetic:
    if _STATIC.match(op):
        return "integer"
    return "dynamic" if _DYNAMIC.search(op) else "float"


def _stray(executed: onnx.ModelProto) -> int:
    """Dequantize nodes of activations whose result stays inside."""
    held = {tensor.name for tensor in executed.graph.initializer}
    leaving = {value.name for value in executed.graph.output}
    nodes = [node for node in executed.graph.node if node.op_type == "DequantizeLinear"]
    return sum(node.input[0] not in held and node.output[0] not in leaving for node in nodes)
