"""Attributes of a node as Python values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgekit.converters.sources.onnx.tensors import read_tensor
from edgekit.core.errors import UnsupportedOpError

if TYPE_CHECKING:
    import onnx

__all__ = ["read_attributes", "with_outer"]


def read_attributes(
    node: onnx.NodeProto | onnx.FunctionProto, outer: Mapping[str, Any], *, items: Sequence[onnx.AttributeProto] | None = None
) -> dict[str, Any]:
    """Numbers, strings, tuples of them, torch tensors and graphs, by name.

    Args:
        node: Where they stand.
        outer: Attributes of the call of the function the node stands in, for those that refer to one.
        items: The attributes, where they are not the node's.
    """
    values: dict[str, Any] = {}
    for item in node.attribute if items is None else items:
        if item.ref_attr_name:
            if item.ref_attr_name in outer:
                values[item.name] = outer[item.ref_attr_name]
        else:
            values[item.name] = _read(item, node.name)
    return values


def _read(item: onnx.AttributeProto, node: str) -> Any:
    from onnx import AttributeProto

    match item.type:
        case AttributeProto.INT:
            return int(item.i)
        case AttributeProto.FLOAT:
            return float(item.f)
        case AttributeProto.STRING:
            return item.s.decode("utf-8", "replace")
        case AttributeProto.INTS:
            return tuple(int(number) for number in item.ints)
        case AttributeProto.FLOATS:
            return tuple(float(number) for number in item.floats)
        case AttributeProto.STRINGS:
            return tuple(text.decode("utf-8", "replace") for text in item.strings)
        case AttributeProto.TENSOR:
            return read_tensor(item.t, f"Attribute '{item.name}' of node '{node}'")
        case AttributeProto.GRAPH:
            return item.g
        case AttributeProto.TYPE_PROTO:
            return item.tp
    kind = AttributeProto.AttributeType.Name(item.type)
    raise UnsupportedOpError(f"Attribute '{item.name}' of node '{node}' is a {kind}, which has no counterpart in torch.")


def with_outer(node: onnx.NodeProto, outer: Mapping[str, Any]) -> onnx.NodeProto:
    """A copy of a node of a function's body, with the call's own numbers and strings in place of references to them."""
    import onnx

    if not any(item.ref_attr_name for item in node.attribute):
        return node
    made = onnx.NodeProto()
    made.CopyFrom(node)
    del made.attribute[:]
    for item in node.attribute:
        if not item.ref_attr_name:
            made.attribute.append(item)
        elif isinstance(outer.get(item.ref_attr_name), int | float | str | tuple):
            made.attribute.append(onnx.helper.make_attribute(item.name, outer[item.ref_attr_name]))
    return made
