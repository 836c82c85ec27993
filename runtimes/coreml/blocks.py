"""Blocks of MIL operations decoded into plain values: types, constants, bindings, and the blocks nested in control flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgekit.core.errors import IntegrityError, UnsupportedOpError
from edgekit.runtimes.coreml.features import CLASSIFY
from edgekit.runtimes.coreml.program import Block, Literal, Operation, Variable
from edgekit.runtimes.coreml.weights import DTYPES, WeightFiles, decode_value

if TYPE_CHECKING:
    from edgekit.runtimes.coreml.program import Kind, Value

__all__ = ["read_block", "read_value", "read_variable"]


def read_block(block: Any, weights: WeightFiles) -> Block:
    """Decode a ``Block`` message and those nested in it.

    Args:
        block: The message.
        weights: Where its constants lie.

    Raises:
        IntegrityError: A constant and its type do not fit each other.
        UnsupportedOpError: It holds a value of a type the executor does not know.
    """
    constants: dict[str, Value] = {}
    types: dict[str, str] = {}
    operations: list[Operation] = []
    for message in block.operations:
        if message.type == CLASSIFY:
            continue
        if message.type == "const":
            variable = read_variable(message.outputs[0])
            if variable.name in constants:
                raise IntegrityError(f"the constant '{variable.name}' is defined twice; a program assigns each name once.")
            constants[variable.name] = read_value(message.attributes["val"], weights)
            types[variable.name] = variable.dtype
        else:
            operations.append(_operation(message, weights))
    inputs = tuple(read_variable(declared) for declared in block.inputs)
    return Block(inputs, tuple(block.outputs), tuple(operations), constants, types)


def _operation(message: Any, weights: WeightFiles) -> Operation:
    outputs = tuple(read_variable(declared) for declared in message.outputs)
    if "name" in message.attributes:
        name = str(read_value(message.attributes["name"], weights))
    else:
        name = outputs[0].name if outputs else message.type
    # constexpr operations up to iOS 17 keep their parameters as attributes, later ones as inputs
    inputs: dict[str, tuple[str | Literal, ...]] = {
        key: (_literal(value, weights),) for key, value in message.attributes.items() if key != "name"
    }
    inputs |= {argument: _bindings(bound, weights) for argument, bound in message.inputs.items()}
    blocks = tuple(read_block(nested, weights) for nested in message.blocks)
    return Operation(type=message.type, name=name, inputs=inputs, outputs=outputs, blocks=blocks)


def _bindings(argument: Any, weights: WeightFiles) -> tuple[str | Literal, ...]:
    return tuple(
        binding.name if binding.WhichOneof("binding") == "name" else _literal(binding.value, weights)
        for binding in argument.arguments
    )


def _literal(message: Any, weights: WeightFiles) -> Literal:
    return Literal(read_value(message, weights), _type(message.type)[0])


def read_value(message: Any, weights: WeightFiles) -> Value:
    """Decode a ``Value`` message: a constant.

    Args:
        message: The message.
        weights: Where it may lie.

    Raises:
        IntegrityError: Type, shape and stored data do not fit each other.
        UnsupportedOpError: Its type is none the executor knows.
    """
    dtype, shape, _ = _type(message.type)
    static = tuple(size for size in shape if size is not None)
    if len(static) != len(shape):
        raise IntegrityError("a constant has a shape that is not static.")
    return decode_value(message, dtype=dtype, shape=static, weights=weights)


def read_variable(declared: Any) -> Variable:
    """Decode a ``NamedValueType`` message.

    Raises:
        UnsupportedOpError: Its type is none the executor knows.
    """
    dtype, shape, kind = _type(declared.type)
    return Variable(name=declared.name, dtype=dtype, shape=shape, kind=kind)


def _type(message: Any) -> tuple[str, tuple[int | None, ...], Kind]:
    """Element type, shape and kind of a ``ValueType``; of a list, those of its elements."""
    kind = message.WhichOneof("type")
    if kind == "listType":
        return (*_tensor_type(message.listType.type), "list")
    if kind == "stateType":
        return (*_tensor_type(message.stateType.wrappedType), "state")
    return (*_tensor_type(message), "tensor")


def _tensor_type(message: Any) -> tuple[str, tuple[int | None, ...]]:
    kind = message.WhichOneof("type")
    if kind != "tensorType":
        raise UnsupportedOpError(f"the program holds a value of type '{kind}', which edgekit's Core ML executor does not run.")
    tensor = message.tensorType
    enumeration = tensor.DESCRIPTOR.fields_by_name["dataType"].enum_type
    name = enumeration.values_by_number[tensor.dataType].name
    if name not in DTYPES:
        raise UnsupportedOpError(f"the program holds a tensor of type {name}, which edgekit's Core ML executor does not know.")
    sizes = (d.constant.size if d.WhichOneof("dimension") == "constant" else None for d in tensor.dimensions)
    return DTYPES[name], tuple(sizes)
