"""Every tensor of an ``.mlpackage``, by the reference executor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgekit.core.provenance import TracedFile, TracedOperation
from edgekit.runtimes.coreml import program as mil

if TYPE_CHECKING:
    from edgekit.core.tensors import Array
    from edgekit.runtimes.coreml.executor import Executable

__all__ = ["trace_package"]


def trace_package(executable: Executable, program: mil.Program, inputs: Mapping[str, Array]) -> TracedFile:
    """Run a package and keep every value.

    Args:
        executable: The compiled program.
        program: The program.
        inputs: Input name -> ``[S, *shape]``.
    """
    count = len(next(iter(inputs.values())))
    rows = []
    for at in range(count):
        fed = {name: torch.from_numpy(np.array(values[at], order="C")) for name, values in inputs.items()}
        rows.append(
            executable.trace({name: value.float() if value.is_floating_point() else value for name, value in fed.items()})
        )
    found = {name: np.stack([row[name].numpy() for row in rows]) for name in rows[0] if _alike([row.get(name) for row in rows])}
    return TracedFile(
        operations=tuple(_operation(operation, program) for operation in program.operations),
        values={**inputs, **found},
        grids={name: grid for operation in program.operations for name, grid in _grid(operation, program) if name in found},
        inputs={spec.name: spec.name for spec in program.inputs},
        outputs={spec.name: spec.name for spec in program.outputs},
        method="edgekit's Core ML reference executor",
        constants=_constants(program),
    )


def _alike(values: list[torch.Tensor | None]) -> bool:
    """Whether a tensor was computed for every sample, in one shape; one that depends on the data may not be."""
    shapes = {None if value is None else tuple(value.shape) for value in values}
    return len(shapes) == 1 and None not in shapes


def _operation(operation: mil.Operation, program: mil.Program) -> TracedOperation:
    bound = [(argument, value) for argument, values in operation.inputs.items() for value in values]
    reads = tuple(value if isinstance(value, str) else _literal_name(operation, argument) for argument, value in bound)
    texts = {argument: program.constants.get(value) for argument, value in bound if isinstance(value, str)}
    options = {argument: text for argument, text in texts.items() if isinstance(text, str)}
    return TracedOperation(operation.name, operation.type, reads, tuple(output.name for output in operation.outputs), options)


def _literal_name(operation: mil.Operation, argument: str) -> str:
    return f"{operation.label}/{argument}"


def _constants(program: mil.Program) -> dict[str, Array]:
    """Constants by name, those written into an argument by operation and argument; texts left out."""
    found = {
        _literal_name(operation, argument): value.value
        for operation in program.operations
        for argument, values in operation.inputs.items()
        for value in values
        if isinstance(value, mil.Literal)
    }
    return {name: np.asarray(value) for name, value in {**program.constants, **found}.items() if not isinstance(value, str)}


def _grid(operation: mil.Operation, program: mil.Program) -> list[tuple[str, tuple[float, int]]]:
    """Scale and zero point of what a quantize operation with one scale makes."""
    if operation.type != "quantize":
        return []
    scale, zero_point = (_constant(operation, argument, program) for argument in ("scale", "zero_point"))
    if scale is None or scale.size != 1:
        return []
    shift = 0 if zero_point is None else int(zero_point.reshape(-1)[0])
    return [(operation.outputs[0].name, (float(scale.reshape(-1)[0]), shift))]


def _constant(operation: mil.Operation, argument: str, program: mil.Program) -> Array | None:
    for bound in operation.inputs.get(argument, ()):
        value = bound.value if isinstance(bound, mil.Literal) else program.constants.get(bound)
        return np.asarray(value) if value is not None else None
    return None
