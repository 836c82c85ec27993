"""What an ``.mlpackage`` holds: operations of its ML program, constants as they are stored, features and metadata."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.core.damage import explaining_damage
from edgekit.core.errors import IntegrityError
from edgekit.core.files import sha256, size_bytes
from edgekit.core.listing import Constant, Listing, Operation, Value, constant_of, with_sizes
from edgekit.runtimes.coreml.messages import model_messages
from edgekit.runtimes.coreml.package import model_file, read_package
from edgekit.runtimes.coreml.program import Literal, nested_blocks
from edgekit.runtimes.coreml.stored import list_kernels

if TYPE_CHECKING:
    from edgekit.core.tensors import Array, TensorSpec
    from edgekit.runtimes.coreml.program import Block, Program
    from edgekit.runtimes.coreml.program import Operation as MilOperation

__all__ = ["INSPECTOR", "CoreMLInspector"]

_IOS = {6: "15", 7: "16", 8: "17", 9: "18", 10: "26"}
"""``specificationVersion`` of Model.proto -> first iOS that reads it."""
_BITS = {"int4": 4, "uint4": 4, "uint6": 6, "uint3": 3, "uint2": 2, "uint1": 1}
_SMALLEST_LISTED = 2
"""Constants with fewer values are arguments (axes, epsilons), not weights."""


class CoreMLInspector:
    """Core ML packages of the type ML program."""

    name = "coreml"
    runtime = "coreml-reference"
    extra = "coreml"
    modules = ("coremltools",)
    hides = (
        "tensorflow", "keras", "onnx", "onnxruntime", "sklearn", "xgboost", "transformers", "executorch", "torchvision", "jax",
        "litert_torch", "ai_edge_litert",
    )  # fmt: skip

    def recognises(self, path: Path) -> bool:
        """Whether it is a folder with a ``Manifest.json``."""
        return path.is_dir() and (path / "Manifest.json").is_file()

    def inspect(self, path: Path, *, kept: dict[str, Array] | None = None) -> Listing:
        """List the main function.

        Raises:
            IntegrityError: The package is incomplete, damaged, or points outside itself.
            UnsupportedOpError: It is a Core ML model of another kind.
        """
        with explaining_damage(path):
            return self._list(path, kept)

    def _list(self, path: Path, kept: dict[str, Array] | None) -> Listing:
        program = read_package(path)
        description = model_messages().Model()
        description.ParseFromString(model_file(path).read_bytes())
        constants = _constants(program, kept)
        return Listing(
            path=str(path),
            format=self.name,
            sha256=sha256(path),
            size_bytes=size_bytes(path),
            inputs=tuple(_feature(spec) for spec in program.inputs),
            outputs=tuple(_feature(spec) for spec in program.outputs),
            operations=_operations(program, constants),
            constants=tuple(constants.values()),
            metadata=_metadata(description),
            versions=_versions(description, program),
            method="the saved package; whether a kernel computes in integers is decided by the device",
        )


INSPECTOR = CoreMLInspector()


def _feature(spec: TensorSpec) -> Value:
    return Value(name=spec.name, shape=spec.shape, dtype=spec.dtype)


def _constants(program: Program, kept: dict[str, Array] | None) -> dict[str, Constant]:
    """Constants of the program, and those that stand in an operation's own arguments (compressed weights)."""
    found = {}
    blocks: list[Program | Block] = [program, *nested_blocks(program.operations)]
    for block in blocks:
        for name, value in block.constants.items():
            if not isinstance(value, str) and value.size >= _SMALLEST_LISTED and name not in found:
                found[name] = _constant(name, value, block.constant_types.get(name, ""), kept)
    for operation in _every(program):
        for argument, bound in operation.inputs.items():
            for binding in bound:
                if isinstance(binding, Literal) and not isinstance(binding.value, str) and binding.value.size >= _SMALLEST_LISTED:
                    name = f"{operation.label}/{argument}"
                    found[name] = _constant(name, np.asarray(binding.value), binding.dtype, kept)
    return found


def _constant(name: str, value: Any, dtype: str, kept: dict[str, Array] | None) -> Constant:
    bits = _BITS.get(dtype)
    stored = math.ceil(value.size * bits / 8) if bits else None
    return constant_of(name, value, dtype=dtype, size_bytes=stored, kept=kept)


def _operations(program: Program, constants: Mapping[str, Constant]) -> tuple[Operation, ...]:
    kernels = {kernel.name: kernel for kernel in list_kernels(program)}
    found = []
    every = _every(program)
    variables = {*program.variables, *(made.name for operation in every for made in operation.outputs)}
    for operation in every:
        reads = _reads(operation)
        kernel = kernels.get(operation.name)
        found.append(
            Operation(
                name=operation.name,
                op=operation.type,
                inputs=tuple(name for name in reads if name in constants or name in variables),
                outputs=tuple(Value(name=made.name, shape=made.shape, dtype=made.dtype) for made in operation.outputs),
                macs=kernel.macs if kernel else 0,
                arithmetic=kernel.arithmetic if kernel else "",
            )
        )
    return with_sizes(found, constants)


def _every(program: Program) -> list[MilOperation]:
    """Every operation; those of nested blocks follow the outermost ones."""
    return [*program.operations, *(operation for block in nested_blocks(program.operations) for operation in block.operations)]


def _reads(operation: MilOperation) -> list[str]:
    """Names of what an operation reads; a literal goes by its operation's and its argument's name."""
    return [
        binding if isinstance(binding, str) else f"{operation.label}/{argument}"
        for argument, bound in operation.inputs.items()
        for binding in bound
    ]


def _metadata(model: Any) -> dict[str, str]:
    metadata = model.description.metadata
    found = {
        "description": metadata.shortDescription,
        "author": metadata.author,
        "license": metadata.license,
        "version": metadata.versionString,
        **dict(metadata.userDefined),
    }
    return {name: str(value) for name, value in found.items() if value}


def _versions(model: Any, program: Program) -> dict[str, str]:
    version = int(model.specificationVersion)
    if version < 1:
        raise IntegrityError("The package says no specification version; it is damaged.")
    return {"specification": str(version), "minimum iOS": _IOS.get(version, "?"), "operator set": program.opset}
