"""Operators that ONNX itself defines in terms of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from edgekit.converters.sources.onnx.tensors import TORCH_TYPES
from edgekit.converters.sources.onnx.values import Value

if TYPE_CHECKING:
    import onnx

__all__ = ["body_of"]


def body_of(node: onnx.NodeProto, inputs: Sequence[Any], version: int) -> onnx.FunctionProto | None:
    """The body that the ONNX standard gives an operator, or None where it is a primitive one.

    Args:
        node: The call.
        inputs: Its values; shapes and dtypes decide about some bodies.
        version: Opset version of its domain.
    """
    import onnx

    try:
        schema: Any = onnx.defs.get_schema(node.op_type, version, "" if node.domain == "ai.onnx" else node.domain)
    except onnx.defs.SchemaError:
        return None
    since = max((number for number in schema.function_opset_versions if number <= version), default=0)
    if since:
        body = onnx.FunctionProto()
        body.ParseFromString(schema.get_function_with_opset_version(since))
        return _with_defaults(body, schema)
    numbers = [number for number in schema.context_dependent_function_opset_versions if number <= version]
    if not numbers:
        return None
    types = [_type_of(value).SerializeToString() for value in inputs]
    data = schema.get_context_dependent_function_with_opset_version(max(numbers), node.SerializeToString(), types)
    body = onnx.FunctionProto()
    body.ParseFromString(data)
    return _with_defaults(body, schema) if body.node else None


def _with_defaults(body: onnx.FunctionProto, schema: Any) -> onnx.FunctionProto:
    """The body with the operator's own defaults for attributes that a call may leave out."""
    for name, attribute in schema.attributes.items():
        if attribute.default_value.name:
            body.attribute_proto.append(attribute.default_value)
            if name in body.attribute:
                body.attribute.remove(name)
    return body


def _type_of(value: Any) -> onnx.TypeProto:
    import onnx

    if not isinstance(value, Value):
        return onnx.TypeProto()
    names = {dtype: name for name, dtype in reversed(TORCH_TYPES.items())}
    number = onnx.TensorProto.DataType.Value(names.get(value.tensor.dtype, "FLOAT"))
    proto: onnx.TypeProto = onnx.helper.make_tensor_type_proto(number, [int(size) for size in _shape(value.tensor)])
    return proto


def _shape(tensor: torch.Tensor) -> Sequence[int]:
    return tuple(tensor.shape)
