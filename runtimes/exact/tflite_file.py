"""A ``.tflite`` file as a graph of exact kernels, and an interpreter that runs it.

Operators are read by the schema (``tensorflow/lite/schema/schema.fbs``); fused activations become limits of the integers, as
TFLite's ``CalculateActivationRangeQuantized`` makes them (``tensorflow/lite/kernels/kernel_util.cc``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.runtimes.exact.executor import run
from edgekit.runtimes.exact.graph import Graph, Operation, Tensor
from edgekit.runtimes.exact.tflite_operators import TRANSLATORS, Node
from edgekit.runtimes.litert_stored import StoredGraph

if TYPE_CHECKING:
    from edgekit.core.tensors import Array
    from edgekit.runtimes.exact.rules import Rules

__all__ = ["TFLiteInterpreter", "read_graph"]


def read_graph(data: bytes) -> Graph:
    """The first subgraph of a file.

    Args:
        data: The .tflite file; a runtime has accepted it (the schema's readers do not verify).
    """
    return _Reader(data).graph


class TFLiteInterpreter:
    """Answers as ``ai_edge_litert.interpreter.Interpreter`` does, with exact kernels and chosen rounding rules.

    Args:
        data: The .tflite file; a runtime has accepted it.
        rules: The rounding rules.
    """

    def __init__(self, data: bytes, rules: Rules) -> None:
        reader = _Reader(data)
        self.graph = reader.graph
        self._names, self._rules, self._blank = reader.names, rules, reader.blank
        self._places = {name: index for index, name in enumerate(self._names)}
        self._values: dict[str, Array] = {}

    def get_input_details(self) -> list[dict[str, int]]:
        """Place of each input."""
        return [{"index": self._places[name]} for name in self.graph.inputs]

    def get_output_details(self) -> list[dict[str, int]]:
        """Place of each output."""
        return [{"index": self._places[name]} for name in self.graph.outputs]

    def set_tensor(self, index: int, value: Array) -> None:
        """Give an input its value."""
        self._values[self._names[index]] = value

    def invoke(self) -> None:
        """Compute every tensor that has exact kernels; see :func:`~edgekit.runtimes.exact.executor.unanswered`."""
        self._values |= run(self.graph, self._values, self._rules)

    def get_tensor(self, index: int) -> Array:
        """A tensor's value; zeros where it was not computed."""
        name = self._names[index]
        return self._values[name] if name in self._values else self._blank(index)


class _Reader:
    """Turns operators into operations."""

    def __init__(self, data: bytes) -> None:
        self._file = StoredGraph(data)
        count = len(self._file.graph.tensors)
        plain = [self._file.name(index) for index in range(count)]
        counts = {name: plain.count(name) for name in set(plain)}
        self.names = [name if name and counts[name] == 1 else f"{name}#{index}" for index, name in enumerate(plain)]
        self._tensors = {self.names[index]: self._tensor(index) for index in range(count)}
        operations = tuple(self._operation(operator) for operator in self._file.graph.operators)
        edges = [tuple(self.names[int(index)] for index in side) for side in (self._file.graph.inputs, self._file.graph.outputs)]
        self.graph = Graph(self._tensors, operations, *edges)

    def blank(self, index: int) -> Array:
        """Zeros of a tensor's shape and type."""
        return np.zeros(self._file.shape(index), self._file.dtype(index))

    def _tensor(self, index: int) -> Tensor:
        grid, constant = self._file.grid(index), self._file.values(index)
        quantization = self._file.graph.tensors[index].quantization
        return Tensor(
            name=self.names[index],
            dtype=self._file.dtype(index),
            scale=None if grid is None or grid.block_size else grid.scale,
            zero_point=None if grid is None else grid.zero_point,
            axis=int(getattr(quantization, "quantizedDimension", 0) or 0),
            constant=constant,
        )

    def _operation(self, operator: Any) -> Operation:
        kind = self._file.kind(operator)
        reads = tuple(self.names[int(index)] if index >= 0 else "" for index in operator.inputs)
        writes = tuple(self.names[int(index)] for index in operator.outputs)
        translate = TRANSLATORS.get(kind)
        if translate is None:
            return Operation(kind, "", reads, writes, reason="no runtime's rounding of it is modelled")
        return translate(Node(self._file, self._tensors, operator, kind, reads, writes))
