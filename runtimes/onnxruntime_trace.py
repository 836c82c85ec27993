"""Every tensor of an ``.onnx`` file, and pieces of one.

All values become outputs and the optimiser stays off, so that each operator of the file runs as it is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.core.errors import IntegrityError
from edgekit.core.files import write_bytes
from edgekit.core.provenance import TracedFile, TracedOperation

if TYPE_CHECKING:
    import onnx

    from edgekit.core.tensors import Array

__all__ = ["cut_model", "read_model", "trace_model", "with_all_outputs"]


def read_model(data: bytes, source: str) -> onnx.ModelProto:
    """Parse a file.

    Raises:
        IntegrityError: The bytes are no ONNX model.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(data)
    except Exception as reason:  # protobuf's own, which has no typed name
        raise IntegrityError(
            f"{source} is no .onnx file: {reason}. An .ort file shows no tensors; give the .onnx it came from."
        ) from reason
    if not model.graph.output:
        raise IntegrityError(f"{source} is no .onnx file: it holds no graph. Export again.")
    return model


def with_all_outputs(model: onnx.ModelProto) -> bytes:
    """The model with every computed value among its outputs."""
    import onnx

    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    known = {value.name for value in changed.graph.output}
    for node in changed.graph.node:
        for name in node.output:
            if name and name not in known:
                known.add(name)
                changed.graph.output.append(onnx.ValueInfoProto(name=name))  # ONNX Runtime infers the type itself
    data: bytes = changed.SerializeToString()
    return data


def trace_model(session: Any, model: onnx.ModelProto, inputs: Mapping[str, Array], *, method: str) -> TracedFile:
    """Run a session whose outputs are all values of ``model``.

    Args:
        session: An ``onnxruntime.InferenceSession`` of :func:`with_all_outputs`.
        model: The file.
        inputs: Input name -> ``[S, *shape]``.
        method: How the session runs, in words.
    """
    import onnx.numpy_helper

    names = [output.name for output in session.get_outputs()]
    count = len(next(iter(inputs.values())))
    rows = [session.run(names, {name: values[at] for name, values in inputs.items()}) for at in range(count)]
    found = {name: np.stack([row[at] for row in rows]) for at, name in enumerate(names) if isinstance(rows[0][at], np.ndarray)}
    return TracedFile(
        operations=tuple(_operation(node) for node in model.graph.node),
        values={**inputs, **found},
        grids=_grids(model),
        inputs={name: name for name in inputs},
        outputs={output.name: output.name for output in model.graph.output},
        method=method,
        constants={tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer},
    )


def cut_model(model: onnx.ModelProto, *, reads: Mapping[str, Array], writes: Sequence[str], destination: Path) -> Path:
    """The operators between some tensors as a model of its own, ``part.onnx``; see :class:`~edgekit.core.provenance.Tracer`."""
    import onnx
    import onnx.helper

    producers = {name: node for node in model.graph.node for name in node.output}
    kept: dict[int, onnx.NodeProto] = {}
    pending = list(writes)
    while pending:
        name = pending.pop()
        node = producers.get(name)
        if node is None or name in reads or id(node) in kept:
            continue
        kept[id(node)] = node
        pending.extend(source for source in node.input if source)
    nodes = [node for node in model.graph.node if id(node) in kept]
    used = {name for node in nodes for name in node.input}
    graph = onnx.helper.make_graph(
        nodes,
        model.graph.name or "part",
        [_typed(name, value) for name, value in reads.items()],
        [onnx.ValueInfoProto(name=name) for name in writes],
        [tensor for tensor in model.graph.initializer if tensor.name in used],
    )
    part = onnx.helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    path = destination / "part.onnx"
    write_bytes(path, part.SerializeToString(deterministic=True))
    return path


def _typed(name: str, value: Array) -> onnx.ValueInfoProto:
    import onnx.helper

    kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
    return onnx.helper.make_tensor_value_info(name, kind, list(value.shape))


def _operation(node: onnx.NodeProto) -> TracedOperation:
    import onnx.helper

    reads, writes = (tuple(name for name in names if name) for names in (node.input, node.output))
    options = {attribute.name: str(onnx.helper.get_attribute_value(attribute)) for attribute in node.attribute}
    return TracedOperation(name=node.name, type=node.op_type, reads=reads, writes=writes, options=options)


def _grids(model: onnx.ModelProto) -> dict[str, tuple[float, int]]:
    """Scale and zero point of what every QuantizeLinear with one scale makes, and of integer inputs."""
    import onnx.numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    inputs = {value.name for value in model.graph.input}
    found: dict[str, tuple[float, int]] = {}
    for node in model.graph.node:
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear"} or node.input[1] not in constants:
            continue
        scale = onnx.numpy_helper.to_array(constants[node.input[1]])
        given = node.input[2] if len(node.input) > 2 else ""
        zero_point = onnx.numpy_helper.to_array(constants[given]) if given in constants else np.zeros(1)
        tensor = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
        if scale.size == 1 and (node.op_type == "QuantizeLinear" or tensor in inputs):
            found[tensor] = (float(scale.reshape(-1)[0]), int(zero_point.reshape(-1)[0]))
    return found
