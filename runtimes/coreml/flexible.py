"""Packages with open axes: compiled anew for each shape they are given.

Kernels are built for the shapes the program declares. Where it leaves sizes open, the first run with new sizes goes through
the operations one by one, notes the shape of each result, and compiles the program with these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from edgekit.core.errors import IntegrityError
from edgekit.runtimes.coreml.executor import Executable, Precision, ProgramCompiler, compile_program

if TYPE_CHECKING:
    from torch import Tensor

    from edgekit.runtimes.coreml import program as mil

__all__ = ["FlexibleExecutable", "with_shapes"]

_MOST_KEPT = 16


class FlexibleExecutable:
    """A program with open axes, in the place of an :class:`~edgekit.runtimes.coreml.executor.Executable`.

    Args:
        program: As the package declares it.
        threads: Threads torch may use.
        precision: Where to round to float16.
    """

    def __init__(self, program: mil.Program, *, threads: int, precision: Precision) -> None:
        self._program = program
        self._threads = threads
        self._precision: Precision = precision
        self._made: dict[tuple[tuple[int, ...], ...], Executable] = {}

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs by name for inputs by name; see :meth:`Executable.run`."""
        return self.compiled_for(inputs).run(inputs)

    def compiled_for(self, inputs: Mapping[str, Tensor]) -> Executable:
        """The program compiled for the shapes of these inputs; the last few are kept.

        Raises:
            UnsupportedOpError: An operation has no kernel.
            IntegrityError: An operation cannot run on these shapes.
        """
        key = tuple(tuple(inputs[spec.name].shape) for spec in self._program.inputs)
        if key not in self._made:
            if len(self._made) >= _MOST_KEPT:
                del self._made[next(iter(self._made))]
            fixed = with_shapes(self._program, inputs, precision=self._precision)
            self._made[key] = compile_program(fixed, threads=self._threads, precision=self._precision)
        return self._made[key]


def with_shapes(program: mil.Program, inputs: Mapping[str, Tensor], *, precision: Precision = "declared") -> mil.Program:
    """The program with the shapes that these inputs give every variable."""
    variables = dict(program.variables)
    for name, tensor in inputs.items():
        variables[name] = dataclasses.replace(variables[name], shape=tuple(tensor.shape))
    fixed = dataclasses.replace(program, variables=variables)  # the compiler sees what is noted below
    compiler = ProgramCompiler(fixed, precision)
    values = {compiler.slot(name): tensor for name, tensor in inputs.items()}
    with torch.inference_mode():
        for operation in program.operations:
            step = compiler.add(operation)
            if step is None:
                continue
            try:
                result = step.function(*[values.get(source, compiler.constant(source)) for source in step.sources])
            except (RuntimeError, ValueError, TypeError, IndexError) as reason:
                raise IntegrityError(f"Operation '{operation.name}' ({operation.type}) cannot run: {reason}") from reason
            parts = (result,) if len(step.targets) == 1 else tuple(result)
            for variable, target, part in zip(operation.outputs, step.targets, parts, strict=True):
                values[target] = part
                variables[variable.name] = dataclasses.replace(variable, shape=tuple(part.shape))
    return fixed
