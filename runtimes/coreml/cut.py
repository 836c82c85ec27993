"""A package whose quantized layers stand alone: cut at every integer activation.

Each named integer tensor ``T`` is taken apart. What its operation computes leaves the model as output ``T_own``; what its
readers see enters as input ``T_given``. Both are int32, the only integer type a Core ML model can be given before iOS 26::

    conv ── quantize ── T ── dequantize        conv ── quantize ── T ── cast ── T_own
                                         ==>
                                               T_given ── cast ── T_forced ── dequantize
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgekit.core.errors import ContractError
from edgekit.core.files import write_bytes
from edgekit.runtimes.coreml.messages import model_messages
from edgekit.runtimes.coreml.package import choose_function, function_description, model_file
from edgekit.runtimes.coreml.program import Variable

__all__ = ["GIVEN", "OWN", "cut_package"]

GIVEN = "_given"
"""Suffix of the input that stands for a tensor."""
OWN = "_own"
"""Suffix of the output that holds a tensor's own value."""

_FORCED = "_forced"
_FEATURE_INT32 = 131104  # ArrayFeatureType.INT32 of FeatureTypes.proto
_TYPES = {"int8": "INT8", "uint8": "UINT8", "int32": "INT32", "str": "STRING"}


def cut_package(source: Path, destination: Path, *, tensors: Iterable[str], variables: Mapping[str, Variable]) -> None:
    """Write a copy of a package that is cut at some of its integer tensors.

    Args:
        source: The ``.mlpackage`` folder.
        destination: Where the copy goes; must not exist.
        tensors: Names of int8 or uint8 tensors.
        variables: The program's variables, which say the tensors' types.

    Raises:
        ContractError: A tensor is not in the program, or is no static int8 or uint8 tensor.
    """
    shutil.copytree(source, destination)
    file = model_file(destination)
    model = model_messages().Model()
    model.ParseFromString(file.read_bytes())
    name = choose_function(model)
    function, description = model.mlProgram.functions[name], function_description(model, name)
    cut = [_integers(name, variables) for name in tensors]
    _cut_block(function.block_specializations[function.opset], cut)
    for variable in cut:
        _declare(function.inputs.add(), variable.name + GIVEN, "int32", variable)
        _describe(description.input.add(), variable.name + GIVEN, variable)
        _describe(description.output.add(), variable.name + OWN, variable)
    write_bytes(file, model.SerializeToString(deterministic=True))


def _integers(name: str, variables: Mapping[str, Variable]) -> Variable:
    variable = variables.get(name)
    if variable is None or variable.dtype not in {"int8", "uint8"} or None in variable.shape:
        found = "not in the package" if variable is None else f"{variable.dtype} {list(variable.shape)}"
        raise ContractError(f"Tensor '{name}' cannot be cut: it is {found}; expected a static int8 or uint8 tensor.")
    return variable


def _cut_block(block: Any, cut: list[Variable]) -> None:
    _rename(block, {variable.name for variable in cut})
    body = list(block.operations)
    del block.operations[:]
    for variable in cut:
        _add_cast(block, variable, variable.name + GIVEN, variable.name + _FORCED, dtype=variable.dtype)
    block.operations.extend(body)
    for variable in cut:
        _add_cast(block, variable, variable.name, variable.name + OWN, dtype="int32")
        block.outputs.append(variable.name + OWN)


def _rename(block: Any, names: set[str]) -> None:
    """Let every reader of some tensors, those in nested blocks too, read what stands for them."""
    for operation in block.operations:
        for argument in operation.inputs.values():
            for binding in argument.arguments:
                if binding.WhichOneof("binding") == "name" and binding.name in names:
                    binding.name += _FORCED
        for nested in operation.blocks:
            _rename(nested, names)
            nested.outputs[:] = [name + _FORCED if name in names else name for name in nested.outputs]


def _add_cast(block: Any, variable: Variable, source: str, target: str, *, dtype: str) -> None:
    """``target = cast(x=source, dtype=dtype)``, its parameter a constant of its own as coremltools writes it."""
    parameter = f"{target}_dtype"
    constant = block.operations.add(type="const")
    _declare(constant.outputs.add(), parameter, "str", None)
    _text(constant.attributes["val"], dtype)
    _text(constant.attributes["name"], parameter)
    cast = block.operations.add(type="cast")
    cast.inputs["x"].arguments.add().name = source
    cast.inputs["dtype"].arguments.add().name = parameter
    _declare(cast.outputs.add(), target, dtype, variable)
    _text(cast.attributes["name"], target)


def _declare(named: Any, name: str, dtype: str, variable: Variable | None) -> None:
    named.name = name
    tensor = named.type.tensorType
    tensor.dataType = _type_number(tensor, dtype)
    for size in variable.shape if variable is not None else ():
        tensor.dimensions.add().constant.size = size
    tensor.rank = len(tensor.dimensions)


def _text(value: Any, text: str) -> None:
    value.type.tensorType.dataType = _type_number(value.type.tensorType, "str")
    value.immediateValue.tensor.strings.values.append(text)


def _type_number(tensor: Any, dtype: str) -> int:
    values = tensor.DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_name
    return int(values[_TYPES[dtype]].number)


def _describe(feature: Any, name: str, variable: Variable) -> None:
    feature.name = name
    feature.type.multiArrayType.dataType = _FEATURE_INT32
    feature.type.multiArrayType.shape.extend(int(size) for size in variable.shape if size is not None)
