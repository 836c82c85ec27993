"""A piece of an ``.mlpackage``: the operations between some of its tensors, as a package of their own."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.core.errors import ContractError
from edgekit.core.files import write_bytes
from edgekit.runtimes.coreml.messages import model_messages
from edgekit.runtimes.coreml.package import choose_function, function_description, model_file, read_package

if TYPE_CHECKING:
    from edgekit.core.tensors import Array
    from edgekit.runtimes.coreml.program import Variable

__all__ = ["cut_piece"]

_FEATURES = {"float16": 65552, "float32": 65568, "int8": 131080, "uint8": 131080, "int32": 131104}
"""``ArrayFeatureType.ArrayDataType`` of FeatureTypes.proto; a package with an int8 edge runs on iOS 26 and later only."""


def cut_piece(path: Path, destination: Path, *, reads: Mapping[str, Array], writes: Sequence[str]) -> Path:
    """Write a copy of a package that holds only what computes ``writes`` from ``reads``.

    Args:
        path: The ``.mlpackage`` folder.
        destination: Where the copy goes; replaced if it exists.
        reads: Tensors that become inputs.
        writes: Tensors that become outputs.

    Raises:
        ContractError: A tensor is not in the package.
    """
    variables = read_package(path).variables
    missing = [name for name in (*reads, *writes) if name not in variables]
    if missing:
        raise ContractError(f"{path} has no tensor '{missing[0]}'.")
    shutil.rmtree(destination, ignore_errors=True)
    shutil.copytree(path, destination)
    file = model_file(destination)
    model = model_messages().Model()
    model.ParseFromString(file.read_bytes())
    name = choose_function(model)
    function, description = model.mlProgram.functions[name], function_description(model, name)
    types = {value.name: value.type for value in function.inputs}
    block = function.block_specializations[function.opset]
    types |= {value.name: value.type for operation in block.operations for value in operation.outputs}
    types = {name: _copied(kind) for name, kind in types.items() if name in {*reads, *writes}}
    _keep(block, set(reads), list(writes))
    states = [_copied(value) for value in function.inputs if value.type.WhichOneof("type") == "stateType"]
    del function.inputs[:]
    function.inputs.extend(states)
    for name in reads:
        function.inputs.add(name=name).type.CopyFrom(types[name])
    _describe(description.input, [variables[name] for name in reads])
    _describe(description.output, [variables[name] for name in writes])
    write_bytes(file, model.SerializeToString(deterministic=True))
    return destination


def _copied(kind: Any) -> Any:
    copy = type(kind)()
    copy.CopyFrom(kind)
    return copy


def _keep(block: Any, reads: set[str], writes: list[str]) -> None:
    """Leave only the operations that ``writes`` need."""
    needed, kept = set(writes), []
    for operation in reversed(block.operations):
        computes = any(output.name in needed and output.name not in reads for output in operation.outputs)
        if computes or _writes_state(operation, needed):
            kept.append(_copied(operation))
            needed |= _read(operation)
    del block.operations[:]
    block.operations.extend(reversed(kept))
    del block.outputs[:]
    block.outputs.extend(writes)


def _writes_state(operation: Any, needed: set[str]) -> bool:
    """Whether an operation writes to a state that is read after it."""
    return operation.type == "write_state" and any(bound.name in needed for bound in operation.inputs["input"].arguments)


def _read(operation: Any) -> set[str]:
    """Names an operation reads, its nested blocks included."""
    names = {bound.name for argument in operation.inputs.values() for bound in argument.arguments if bound.name}
    for block in operation.blocks:
        names |= {*block.outputs, *(name for inner in block.operations for name in _read(inner))}
    return names


def _describe(features: Any, variables: Sequence[Variable]) -> None:
    del features[:]
    for variable in variables:
        feature = features.add(name=variable.name)
        feature.type.multiArrayType.dataType = _FEATURES.get(variable.dtype, _FEATURES["float32"])
        feature.type.multiArrayType.shape.extend(int(size) for size in variable.shape if size is not None)
