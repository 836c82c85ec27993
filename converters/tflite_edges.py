"""The edges of a ``.tflite`` graph: input and output names, order, axis order and types; and readable names inside.

litert_torch calls inputs ``args_0`` and outputs ``output_0``, and makes both int8 where the program quantizes them at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgekit.core.errors import ConversionError

if TYPE_CHECKING:
    from edgekit.converters.tflite_flatbuffer import Graph
    from edgekit.core.artifact import ExportOptions
    from edgekit.core.tensors import TensorSpec

__all__ = ["is_turned", "name_tensors", "set_edges"]

_INTEGERS = {"int8", "int16"}
_TO_FIRST, _TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


def is_turned(spec: TensorSpec, options: ExportOptions) -> bool:
    """Whether the file has an input or output ``[N, H, W, C]`` that is ``[N, C, H, W]`` in the program."""
    return options.image_layout == "channels-last" and len(spec.shape) == len(_TO_LAST) and spec.dtype == "float32"


def set_edges(graph: Graph, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], *, options: ExportOptions) -> None:
    """Give inputs and outputs the program's names and order, and float32 where the program has float32.

    Args:
        graph: Straight from litert_torch.
        inputs: The program's inputs.
        outputs: The program's outputs.
        options: With integer inputs and outputs no QUANTIZE and DEQUANTIZE is added; with channels last a TRANSPOSE is, or one
            that is there is left out.

    Raises:
        ConversionError: The file has another number of inputs or outputs.
    """
    found_inputs, found_outputs = _numbered(graph)
    for what, found, specs in (("inputs", found_inputs, inputs), ("outputs", found_outputs, outputs)):
        if len(found) != len(specs):
            raise ConversionError(
                f"The TFLite file has {len(found)} {what}, the program {len(specs)} ({', '.join(spec.name for spec in specs)})."
                " An input that nothing reads, or an output that is an input, cannot be kept: remove it from the model."
            )
    front: list[int] = []
    for index, spec in zip(found_inputs, inputs, strict=True):
        turned = _turned_input(graph, index) if is_turned(spec, options) else index
        front.append(_float_input(graph, turned, spec, integer_io=options.integer_io))
    back: list[int] = []
    for index, spec in zip(found_outputs, outputs, strict=True):
        turned = _turned_output(graph, index) if is_turned(spec, options) else index
        made = _float_output(graph, turned, spec, integer_io=options.integer_io)
        back.append(_copy(graph, made) if made in {*front, *back} else made)
    graph.set_edges(
        [(spec.name, index) for spec, index in zip(inputs, front, strict=True)],
        [(spec.name, index) for spec, index in zip(outputs, back, strict=True)],
        signature=options.signature,
    )


def _turned_input(graph: Graph, index: int) -> int:
    """A tensor ``[N, H, W, C]`` from which ``index`` is made."""
    edge = _transposed_like(graph, index, _TO_LAST)
    graph.operators.insert(0, _transpose(graph, edge, index, _TO_FIRST))
    return edge


def _turned_output(graph: Graph, index: int) -> int:
    """A tensor ``[N, H, W, C]`` of the values of ``index``: what it was transposed from, where it was."""
    maker = graph.producers().get(index)
    order = graph.constant(int(maker.inputs[1])) if maker is not None and graph.kind(maker) == "TRANSPOSE" else None
    if maker is not None and order is not None and tuple(order.tolist()) == _TO_FIRST:
        return int(maker.inputs[0])
    edge = _transposed_like(graph, index, _TO_LAST)
    graph.operators.append(_transpose(graph, index, edge, _TO_LAST))
    return edge


def _transposed_like(graph: Graph, index: int, order: tuple[int, ...]) -> int:
    shape = graph.shape(index)
    return graph.add_tensor("turned", like=index, shape=[shape[axis] for axis in order])


def _transpose(graph: Graph, source: int, result: int, order: tuple[int, ...]) -> Any:
    import numpy as np

    axes = graph.add_constant(np.asarray(order, np.int32), scales=())
    return graph.make_operator("TRANSPOSE", reads=[source, axes], writes=[result])


def _copy(graph: Graph, index: int) -> int:
    """The same values in a tensor of its own: an input, or another output, cannot be an output too."""
    import numpy as np

    shape = graph.add_tensor("shape", like=index, dtype="int32")
    graph.set_constant(shape, np.asarray(graph.shape(index), np.int32))
    copy = graph.add_tensor("copy", like=index)
    graph.operators.append(graph.make_operator("RESHAPE", reads=[index, shape], writes=[copy]))
    return copy


def name_tensors(graph: Graph, entries: Mapping[str, int]) -> None:
    """Edges get their signature names, contract entries their own, everything else its operator's name and a number.

    Args:
        graph: With edges set.
        entries: Contract entry -> tensor index.
    """
    names = graph.edge_names()
    taken = set(names.values())
    for entry, index in entries.items():
        if index not in names:
            names[index] = _free(entry if entry not in taken else f"{entry}/int8", taken)
    producers = graph.producers()
    for index in range(len(graph.subgraph.tensors)):
        if index not in names:
            names[index] = _free(graph.kind(producers[index]).lower() if index in producers else "constant", taken)
        graph.set_name(index, names[index])


def _free(stem: str, taken: set[str]) -> str:
    name, count = stem, 1
    while name in taken:
        name, count = f"{stem}_{count}", count + 1
    taken.add(name)
    return name


def _numbered(graph: Graph) -> tuple[list[int], list[int]]:
    """Tensors of ``args_0, args_1, ...`` and ``output_0, ...`` in the order of their numbers."""
    inputs, outputs = ([(int(name.rsplit("_", 1)[-1]), index) for name, index in side] for side in graph.signature())
    return [index for _, index in sorted(inputs)], [index for _, index in sorted(outputs)]


def _float_input(graph: Graph, index: int, spec: TensorSpec, *, integer_io: bool) -> int:
    if integer_io or graph.dtype(index) not in _INTEGERS or spec.dtype != "float32":
        return index
    edge = graph.add_tensor(spec.name, like=index, dtype="float32")
    graph.operators.insert(0, graph.make_operator("QUANTIZE", reads=[edge], writes=[index]))
    return edge


def _float_output(graph: Graph, index: int, spec: TensorSpec, *, integer_io: bool) -> int:
    if integer_io or graph.dtype(index) not in _INTEGERS or spec.dtype != "float32":
        return index
    edge = graph.add_tensor(spec.name, like=index, dtype="float32")
    graph.operators.append(graph.make_operator("DEQUANTIZE", reads=[index], writes=[edge]))
    return edge
