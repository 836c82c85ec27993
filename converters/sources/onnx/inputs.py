"""What a graph takes: inputs with all their sizes known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.converters.sources.onnx.tensors import torch_type
from edgekit.core.errors import IntegrityError, UnsupportedOpError, UsageError, nearest
from edgekit.core.source import OpenInput, SourceOptions, settle_inputs
from edgekit.core.tensors import TensorSpec

if TYPE_CHECKING:
    import onnx

__all__ = ["EDGE_TYPES", "fix_constants", "inputs_of"]

EDGE_TYPES = ("bool", "float16", "float32", "float64", "int16", "int32", "int64", "int8", "uint8")
"""Element types of inputs and outputs."""


def fix_constants(graph: onnx.GraphProto, *, options: SourceOptions, where: str) -> list[str]:
    """Make constants of inputs that the user gives a number for; say so.

    Raises:
        UsageError: There is no such input.
    """
    import numpy as np
    from onnx import helper, numpy_helper

    values = {value.name: value for value in graph.input}
    for name, number in options.constants.items():
        if name not in values:
            raise UsageError(f"{where} has no input '{name}'; its inputs are {', '.join(values)}.{nearest(name, values)}")
        sizes = [size or 1 for size in options.shapes.get(name, _shape(values[name]) or ())]
        dtype = helper.tensor_dtype_to_np_dtype(values[name].type.tensor_type.elem_type)
        graph.initializer.append(numpy_helper.from_array(np.full(sizes, number, dtype), name))
    return [f"Input '{name}' is {number:g} in every call." for name, number in options.constants.items()]


def inputs_of(graph: onnx.GraphProto, *, options: SourceOptions, where: str) -> tuple[tuple[TensorSpec, ...], list[str]]:
    """What the model takes, and what was fixed to say so.

    Args:
        graph: The main graph; initializers that are listed as inputs are constants.
        options: Shapes the user gives, by input.
        where: The file, for messages.

    Raises:
        UsageError: A shape is open and not given, or one given contradicts the file.
        UnsupportedOpError: An input is no tensor.
        IntegrityError: Two inputs, or two outputs, have one name.
    """
    constants = {tensor.name for tensor in graph.initializer}
    values = [value for value in graph.input if value.name not in constants]
    for kind, listed in (("inputs", [value.name for value in values]), ("outputs", [value.name for value in graph.output])):
        twice = next((name for name in listed if listed.count(name) > 1), None)
        if twice is not None:
            raise IntegrityError(f"{where} has two {kind} of the name '{twice}'. Export it again with names of their own.")
    declared = [OpenInput(name=value.name, shape=_shape(value), dtype=_dtype(value, where)) for value in values]
    return settle_inputs(declared, options=options, where=where)


def _dtype(value: onnx.ValueInfoProto, where: str) -> str:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise UnsupportedOpError(
            f"{where}: input '{value.name}' is a {kind}, not a tensor. Export the model with tensors as inputs."
        )
    name = str(torch_type(value.type.tensor_type.elem_type, f"Input '{value.name}'")).removeprefix("torch.")
    if name not in EDGE_TYPES:
        raise UnsupportedOpError(f"{where}: input '{value.name}' is {name}; edgekit takes tensors of {', '.join(EDGE_TYPES)}.")
    return name


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    """Sizes as the file has them: None for an open one, or for all where it does not say how many there are."""
    proto = value.type.tensor_type
    if not proto.HasField("shape"):
        return None
    return tuple(int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value >= 0 else None for dim in proto.shape.dim)
