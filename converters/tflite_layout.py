"""Transposes: those that change nothing go, those that remain are counted and placed.

TFLite computes on ``[N, H, W, C]``, programs on ``[N, C, H, W]``. litert_torch keeps whole regions in TFLite's order; what
is left is a transpose at each edge of such a region.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit.converters.tflite_flatbuffer import Graph

__all__ = ["describe_transposes", "remove_idle_transposes"]

_RESHAPES = {"RESHAPE", "SQUEEZE", "EXPAND_DIMS"}
_EDGE_KINDS = _RESHAPES | {"QUANTIZE", "DEQUANTIZE", "CAST"}


def remove_idle_transposes(graph: Graph) -> None:
    """Let means and reshapes read past a transpose that does not matter to them, and reshapes past reshapes."""
    producers = graph.producers()
    for operator in graph.operators:
        maker = producers.get(int(operator.inputs[0])) if len(operator.inputs) else None
        if maker is None or not len(maker.inputs):  # some operators make a value from nothing
            continue
        kind, made_by = graph.kind(operator), graph.kind(maker)
        source = int(maker.inputs[0])
        if kind == "TRANSPOSE" and made_by == "TRANSPOSE":
            if _undoes(graph, operator, maker):
                _skip(graph, operator, source)
        elif kind == "MEAN" and made_by == "TRANSPOSE":
            _mean_before_transpose(graph, operator, maker)
        elif kind == "RESHAPE" and (made_by in _RESHAPES or (made_by == "TRANSPOSE" and _keeps_order(graph, maker))):
            graph.redirect(int(operator.inputs[0]), source, operators=[operator])


def _undoes(graph: Graph, second: Any, first: Any) -> bool:
    """Whether two transposes in a row change nothing."""
    later, earlier = (graph.constant(int(operator.inputs[1])) for operator in (second, first))
    return later is not None and earlier is not None and earlier[later].tolist() == list(range(later.size))


def _skip(graph: Graph, operator: Any, source: int) -> None:
    """Let the readers of an operator's result read ``source``; a result that is an output stays."""
    result = int(operator.outputs[0])
    if result not in graph.outputs:
        graph.redirect(result, source, operators=graph.readers().get(result, []))


def _mean_before_transpose(graph: Graph, mean: Any, transpose: Any) -> None:
    """``mean(transpose(x), axes)`` is ``mean(x, permuted axes)`` where the axes that remain keep their order."""
    import numpy as np

    axes, order = graph.constant(int(mean.inputs[1])), graph.constant(int(transpose.inputs[1]))
    if axes is None or order is None or mean.builtinOptions is None or mean.builtinOptions.keepDims:
        return
    gone = [int(axis) % order.size for axis in axes.ravel()]
    left = [int(order[place]) for place in range(order.size) if place not in gone]
    if left != sorted(left):
        return
    moved = graph.add_tensor("axes", like=int(mean.inputs[1]))
    graph.set_constant(moved, np.asarray(sorted(int(order[axis]) for axis in gone), np.int32))
    mean.inputs = [int(transpose.inputs[0]), moved]


def _keeps_order(graph: Graph, transpose: Any) -> bool:
    """Whether only axes of size 1 change places."""
    order = graph.constant(int(transpose.inputs[1]))
    if order is None:
        return False
    shape = graph.shape(int(transpose.inputs[0]))
    moved = [int(axis) for axis in order if shape[int(axis)] != 1]
    return moved == sorted(moved)


def describe_transposes(graph: Graph) -> str:
    """One sentence for the artifact's notes; empty where there are none."""
    transposes = [operator for operator in graph.operators if graph.kind(operator) == "TRANSPOSE"]
    producers, readers = graph.producers(), graph.readers()
    at_input = [operator for operator in transposes if _reads_input(graph, operator, producers)]
    at_output = [operator for operator in transposes if operator not in at_input and _makes_output(graph, operator, readers)]
    inside = [graph.name(int(found.inputs[0])) for found in transposes if found not in at_input and found not in at_output]
    words = []
    if at_input:
        words.append(f"{len(at_input)} transpose(s) from the program's [N, C, ...] to TFLite's [N, ..., C] at the inputs")
    if at_output:
        words.append(f"{len(at_output)} transpose(s) back at the outputs")
    if inside:
        words.append(f"{len(inside)} transpose(s) inside, after {', '.join(inside[:5])}{', ...' if len(inside) > 5 else ''}")
    return "; ".join(words)


def _reads_input(graph: Graph, operator: Any, producers: Mapping[int, Any]) -> bool:
    current = int(operator.inputs[0])
    while current in producers and graph.kind(producers[current]) in _EDGE_KINDS:
        current = int(producers[current].inputs[0])
    return current in graph.inputs


def _makes_output(graph: Graph, operator: Any, readers: Mapping[int, list[Any]]) -> bool:
    current = int(operator.outputs[0])
    while len(readers.get(current, ())) == 1 and graph.kind(readers[current][0]) in _EDGE_KINDS:
        current = int(readers[current][0].outputs[0])
    return current in graph.outputs
