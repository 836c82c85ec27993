"""What an ``.mlpackage`` holds: compressed weights, grids, and the operations between them.

Which unit computes an operation, and whether in integers, Core ML decides when it loads the package on a device; the file can
only prove what is stored and that integers stand on both sides of an operation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit.core.stored import Grid, Kernel, StoredConstant, StoredFile
from edgekit.runtimes.coreml.package import read_package
from edgekit.runtimes.coreml.program import Literal

if TYPE_CHECKING:
    from edgekit.core.tensors import Array
    from edgekit.runtimes.coreml.program import Operation, Program

__all__ = ["list_kernels", "read_file"]

_COMPRESSED = {"constexpr_affine_dequantize": "quantized_data", "constexpr_blockwise_shift_scale": "data"}
_SEEN_THROUGH = {"cast": "x", "transpose": "x", "reshape": "x", "expand_dims": "x", "squeeze": "x"}
_WEIGHT = {"conv": "weight", "linear": "weight", "conv_transpose": "weight", "matmul": "y"}


def read_file(path: Path) -> StoredFile:
    """Read a package back.

    Args:
        path: The ``.mlpackage`` folder.

    Raises:
        IntegrityError: The package is damaged or incomplete.
    """
    program = read_package(path)
    return StoredFile(
        constants=tuple(_constants(program).values()),
        grids=_grids(program),
        kernels=tuple(list_kernels(program)),
        stray_dequantizes=0,  # every operation stands between a dequantize and a quantize here; the device fuses them
        method="the saved package, read without Core ML; whether a kernel computes in integers is decided by the device",
    )


def _constants(program: Program) -> dict[str, StoredConstant]:
    found = {
        name: StoredConstant(name, value, program.constant_types.get(name, str(value.dtype)))
        for name, value in program.constants.items()
        if not isinstance(value, str) and value.ndim >= 2
    }
    for operation in program.operations:
        if operation.type in _COMPRESSED:
            constant = _decoded(program, operation)
            found[constant.name] = constant
        elif operation.type == "constexpr_cast":  # stored as float16, decoded on load
            values, dtype = _argument(program, operation, "source_val")
            found[operation.outputs[0].name] = StoredConstant(operation.outputs[0].name, values, dtype)
    return found


def _decoded(program: Program, operation: Operation) -> StoredConstant:
    """A compressed weight with its grid; ``scale`` has the weight's rank where blocks are smaller than channels."""
    values, dtype = _argument(program, operation, _COMPRESSED[operation.type])
    scale, _ = _argument(program, operation, "scale")
    zero = "zero_point" if operation.type == "constexpr_affine_dequantize" else "offset"
    offset = _argument(program, operation, zero)[0] if zero in operation.inputs else np.zeros(1, np.int64)
    zeros = np.broadcast_to(offset.reshape(-1).astype(np.int64), scale.size)
    block = values.shape[1] // scale.shape[1] if scale.ndim >= 2 and scale.shape[1] > 1 else None
    grid = Grid(dtype, scale.reshape(-1).astype(np.float32), zeros, block)
    return StoredConstant(operation.outputs[0].name, values, dtype, grid)


def _argument(program: Program, operation: Operation, name: str) -> tuple[Array, str]:
    bound = operation.inputs[name][0]
    value = bound.value if isinstance(bound, Literal) else program.constants[bound]
    dtype = bound.dtype if isinstance(bound, Literal) else program.constant_types[bound]
    return np.asarray(value), dtype


def _grids(program: Program) -> dict[str, Grid]:
    found: dict[str, Grid] = {}
    for operation in program.operations:
        if operation.type not in {"quantize", "dequantize"}:
            continue
        bound = operation.inputs["input"][0]
        tensor = operation.outputs[0].name if operation.type == "quantize" else bound
        if not isinstance(tensor, str) or tensor not in program.variables:
            continue
        scale, _ = _argument(program, operation, "scale")
        zero = _argument(program, operation, "zero_point")[0] if "zero_point" in operation.inputs else np.zeros(1)
        dtype = program.variables[tensor].dtype
        found.setdefault(tensor, Grid(dtype, scale.reshape(-1).astype(np.float32), zero.reshape(-1).astype(np.int64)))
    return found


def list_kernels(program: Program) -> list[Kernel]:
    """Operations that multiply, with the stored weight of each."""
    constants = _constants(program)
    makers = {output.name: operation for operation in program.operations for output in operation.outputs}
    found = []
    for operation in program.operations:
        if operation.type not in _WEIGHT:
            continue
        weight = _constant_behind(operation, _WEIGHT[operation.type], makers, constants)
        macs = _macs(program, operation, constants.get(weight))
        found.append(Kernel(operation.name, operation.type, "device", macs, (weight,) if weight else ()))
    return found


def _constant_behind(
    operation: Operation, argument: str, makers: Mapping[str, Operation], constants: Mapping[str, StoredConstant]
) -> str:
    """The stored weight an argument is, perhaps moved; empty for a computed tensor."""
    bound = operation.inputs[argument][0]
    while isinstance(bound, str) and bound not in constants:
        maker = makers.get(bound)
        if maker is None or maker.type not in _SEEN_THROUGH:
            return ""
        bound = maker.inputs[_SEEN_THROUGH[maker.type]][0]
    return bound if isinstance(bound, str) else ""


def _macs(program: Program, operation: Operation, weight: StoredConstant | None) -> int:
    outputs = int(np.prod([size or 1 for size in operation.outputs[0].shape]))
    data = operation.inputs["x"][0]
    inputs = [size or 1 for size in program.variables[data].shape] if isinstance(data, str) and data in program.variables else [1]
    if operation.type == "matmul":
        flipped = _flag(program, operation, "transpose_x")
        return outputs * (inputs[-2] if flipped else inputs[-1])
    if weight is None:
        return 0
    per_channel = int(np.prod(weight.values.shape[1:]))
    return (int(np.prod(inputs)) if operation.type == "conv_transpose" else outputs) * per_channel


def _flag(program: Program, operation: Operation, name: str) -> bool:
    return name in operation.inputs and bool(_argument(program, operation, name)[0])
