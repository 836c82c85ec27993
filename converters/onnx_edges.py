"""The edges of an ONNX model: names of inputs and outputs, integer inputs and outputs, names of nodes, metadata."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgekit.converters.onnx_graph import activation_dequantize, numpy_of
from edgekit.core.errors import ConversionError
from edgekit.core.tensors import DType, TensorSpec

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgekit.core.compressed import CompressedRecord

__all__ = ["Edges", "check_names", "describe", "make_edges_integer", "name_edges", "name_nodes"]

_SCOPES = "pkg.torch.onnx.name_scopes"
_CLASSES = "pkg.torch.onnx.class_hierarchy"


@dataclasses.dataclass(frozen=True)
class Edges:
    """Inputs and outputs as they ended up.

    Args:
        inputs: What the file takes.
        outputs: What the file returns.
        renamed: Tensor that became an edge -> the edge's name.
        notes: Edges that were asked to be integers and could not be.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    renamed: dict[str, str]
    notes: tuple[str, ...] = ()


def check_names(record: CompressedRecord) -> None:
    """Refuse what ONNX forbids: an input and an output of the same name.

    Raises:
        ConversionError: Names it.
    """
    for name in {spec.name for spec in record.inputs} & {spec.name for spec in record.outputs}:
        raise ConversionError(
            f"'{name}' is an input and an output of '{record.name}'; in ONNX every tensor has a name of its own."
            " Rename the key of the model's output."
        )


def name_edges(graph: ir.Graph, record: CompressedRecord) -> dict[str, str]:
    """Give inputs and outputs the names of ``record``; every output becomes a value of its own.

    Returns:
        Inner values that had such a name -> their new name.
    """
    _separate_outputs(graph)
    wanted = {spec.name for spec in (*record.inputs, *record.outputs)}
    edges = [*graph.inputs, *graph.outputs]
    moved: dict[str, str] = {}
    for value in [*graph.initializers.values(), *(output for node in graph for output in node.outputs)]:
        if value.name in wanted and value not in edges:
            moved[value.name] = f"{value.name}_inner"
            _rename(graph, value, moved[value.name])
    for number, value in enumerate(edges):  # in two rounds, because two edges may swap names
        value.name = f"edgekit_edge_{number}"
    for value, spec in zip(edges, (*record.inputs, *record.outputs), strict=True):
        value.name = spec.name
    return moved


def _separate_outputs(graph: ir.Graph) -> None:
    """An output that is also an input, a constant or another output gets an Identity: names must differ."""
    import onnx_ir as ir

    seen: set[str] = set()
    for position, value in enumerate(list(graph.outputs)):
        if value.producer() is None or str(value.name) in seen:
            copy = ir.val(f"{value.name}_output_{position}", dtype=value.dtype, shape=value.shape)
            graph.append(ir.node("Identity", [value], outputs=[copy], name=str(copy.name)))
            graph.outputs[position] = copy
        seen.add(str(value.name))


def _rename(graph: ir.Graph, value: ir.Value, name: str) -> None:
    if value.is_initializer():
        graph.initializers.pop(str(value.name))
        value.name = name
        graph.initializers.add(value)
    else:
        value.name = name


def make_edges_integer(graph: ir.Graph, record: CompressedRecord) -> Edges:
    """Take away the QuantizeLinear of each input and the DequantizeLinear of each output, where there is one."""
    renamed: dict[str, str] = {}
    notes: list[str] = []
    for position, value in enumerate(list(graph.inputs)):
        if not _integer_input(graph, position, value, renamed) and _is_float(value):
            notes.append(f"Input '{value.name}' stays float32: it is not quantized, or on more than one grid.")
    for position, value in enumerate(list(graph.outputs)):
        if not _integer_output(graph, position, value, renamed) and _is_float(value):
            notes.append(f"Output '{value.name}' stays float32: no quantized tensor is made for it alone.")
    edges = describe(graph, record)
    return dataclasses.replace(edges, renamed=renamed, notes=tuple(notes))


def _is_float(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.name == "FLOAT"


def _integer_input(graph: ir.Graph, position: int, value: ir.Value, renamed: dict[str, str]) -> bool:
    import onnx_ir as ir

    users = list(value.consumers())
    if len(users) != 1 or users[0].op_type != "QuantizeLinear" or users[0].outputs[0].is_graph_output():
        return False
    integers = users[0].outputs[0]
    name = str(value.name)
    fresh = ir.val(name, dtype=integers.dtype, shape=value.shape)
    integers.replace_all_uses_with(fresh)
    graph.remove(users[0], safe=True)
    graph.inputs[position] = fresh
    renamed[str(integers.name)] = name
    return True


def _integer_output(graph: ir.Graph, position: int, value: ir.Value, renamed: dict[str, str]) -> bool:
    node = activation_dequantize(value)
    integers = node.inputs[0] if node is not None else None
    if node is None or integers is None or integers.is_graph_input() or integers.is_graph_output() or list(value.consumers()):
        return False
    name = str(value.name)
    graph.outputs[position] = integers
    graph.remove(node, safe=True)
    value.name = f"{name}_float"
    renamed[str(integers.name)] = name
    integers.name = name
    return True


def describe(graph: ir.Graph, record: CompressedRecord) -> Edges:
    """Specs of the graph's inputs and outputs, with scale and zero point where they are integers of a grid."""
    inputs = tuple(_spec(value, spec) for value, spec in zip(graph.inputs, record.inputs, strict=True))
    outputs = tuple(_spec(value, spec) for value, spec in zip(graph.outputs, record.outputs, strict=True))
    return Edges(inputs=inputs, outputs=outputs, renamed={})


def _spec(value: ir.Value, spec: TensorSpec) -> TensorSpec:
    grid = _grid(value)
    if grid is None:
        return spec
    return spec.replace(dtype=grid[2], scale=grid[0], zero_point=grid[1])


def _grid(value: ir.Value) -> tuple[float, int, DType] | None:
    """Scale, zero point and type of an integer edge, from the node that quantizes it or the one that restores it."""
    maker = value.producer()
    while maker is not None and maker.op_type in {"Clip", "Pad"} and maker.inputs[0] is not None:
        maker = maker.inputs[0].producer()
    readers = list(value.consumers())
    padded = [reader for node in readers if node.op_type in {"Clip", "Pad"} for reader in node.outputs[0].consumers()]
    nodes: Sequence[ir.Node] = [node for node in (maker, *readers, *padded) if node is not None]
    if value.dtype is None or value.dtype.name not in {"INT8", "UINT8"}:
        return None
    for node in nodes:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            scale, zero_point = numpy_of(node.inputs[1]), numpy_of(node.inputs[2])
            if scale is not None and zero_point is not None:
                return float(scale), int(zero_point), "int8" if value.dtype.name == "INT8" else "uint8"
    return None


def name_nodes(graph: ir.Graph) -> None:
    """Call each node after the layer it came from (``features.3.conv/conv2d_5``): profiles and errors then say where."""
    taken: set[str] = set()
    for node in graph:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            node.name = None  # fused away, and there are many
            node.metadata_props.clear()
            continue
        layer = _layer(node)
        own = str(node.outputs[0].name)
        name = f"{layer}/{own}" if layer else own
        while name in taken:
            name += "_"
        taken.add(name)
        node.name = name
        node.metadata_props.clear()
        for output in node.outputs:
            output.metadata_props.clear()


def _layer(node: ir.Node) -> str:
    """Module path as torch recorded it, without the wrapper that capture puts around some models."""
    try:
        scopes, classes = (json.loads(node.metadata_props.get(key, "[]").replace("'", '"')) for key in (_SCOPES, _CLASSES))
    except json.JSONDecodeError:
        return ""
    layer = next((str(scope) for scope in reversed(scopes[:-1]) if scope), "")
    return layer.removeprefix("model").removeprefix(".") if classes and str(classes[0]).endswith("_Plain") else layer
