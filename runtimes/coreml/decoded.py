"""The weights of a package as its operations will see them: palettes, scales, masks and blocks decoded as documented."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit.runtimes.coreml.executor import ProgramCompiler
from edgekit.runtimes.coreml.package import read_package

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["decoded_weights"]

_FEWEST_AXES = 2


def decoded_weights(path: Path) -> dict[str, Array]:
    """Every float weight of a package with two axes or more, by name, in the file's layout.

    Args:
        path: The ``.mlpackage`` folder.

    Raises:
        IntegrityError: The package is damaged, or a weight cannot be decoded.
        UnsupportedOpError: A weight is stored in a way the reference executor does not know.
    """
    program = read_package(path)
    compiler = ProgramCompiler(program, "declared")
    found = {
        name: value.astype(np.float32)
        for name, value in program.constants.items()
        if not isinstance(value, str) and value.dtype.kind == "f"
    }
    for operation in program.operations:
        if not operation.type.startswith("constexpr_"):
            continue
        compiler.add(operation)
        for bound in operation.inputs.values():
            for name in bound:
                found.pop(str(name), None)  # a palette or a scale is part of a weight
        output = operation.outputs[0].name
        value = compiler.constant(compiler.slot(output))
        if value is not None:
            found[output] = value.numpy().astype(np.float32)
    return {name: value for name, value in found.items() if value.ndim >= _FEWEST_AXES}
