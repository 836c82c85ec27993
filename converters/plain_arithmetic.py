"""Quantized programs in operators that every version of torch and every compiler knows.

The Q/DQ operators of PyTorch 2 export are registered from Python: a script or a compiled function that runs elsewhere cannot
call them. Their definition in plain operators gives the same numbers::

    quantize      clamp(round(x * (1 / scale)) + zero_point, minimum, maximum) as integers
    dequantize    (integers - zero_point) * scale
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from edgekit.converters.program_edit import ProgramEdit
from edgekit.core.errors import UnsupportedOpError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["plain_arithmetic"]


def plain_arithmetic(program: ExportedProgram, *, target: str) -> ExportedProgram:
    """The program without operators of ``quantized_decomposed``; itself where it has none.

    Args:
        program: Left as it is.
        target: For the message.

    Raises:
        UnsupportedOpError: It holds one that has no plain form here.
    """
    edit = ProgramEdit(program)
    found = sorted({str(node.target) for node in edit.graph.nodes if str(node.target).startswith("quantized_decomposed.")})
    if not found:
        return program
    for name in found:
        if name not in _FORMS:
            raise UnsupportedOpError(
                f"Target {target} cannot take operator '{name}': layers that quantize their inputs at run time need a vendor's"
                " kernels. Export to onnx or tflite, or compress with another recipe."
            )
        for node in edit.find(name):
            edit.replace(node, _FORMS[name])
    return edit.finish()


def _quantize(
    values: torch.Tensor, scale: float, zero_point: int, minimum: int, maximum: int, dtype: torch.dtype
) -> torch.Tensor:
    steps = torch.round(values * (1.0 / scale)) + zero_point
    return torch.clamp(steps, minimum, maximum).to(dtype)


def _dequantize(
    integers: torch.Tensor,
    scale: float,
    zero_point: int,
    minimum: int,  # noqa: ARG001  the operator's own arguments
    maximum: int,  # noqa: ARG001
    dtype: torch.dtype,  # noqa: ARG001
    *,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    return (integers.to(out_dtype or torch.float32) - zero_point) * scale


def _dequantize_per_channel(
    integers: torch.Tensor,
    scales: torch.Tensor,
    zero_points: torch.Tensor | None,
    axis: int,
    minimum: int,  # noqa: ARG001  the operator's own arguments
    maximum: int,  # noqa: ARG001
    dtype: torch.dtype,  # noqa: ARG001
    *,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    shape = [1] * integers.ndim
    shape[axis] = -1
    values = integers.to(out_dtype or torch.float32)
    if zero_points is not None:
        values = values - zero_points.reshape(shape)
    return values * scales.reshape(shape)


def _dequantize_per_group(
    integers: torch.Tensor,
    scales: torch.Tensor,
    zero_points: torch.Tensor | None,
    minimum: int,  # noqa: ARG001  the operator's own arguments
    maximum: int,  # noqa: ARG001
    dtype: torch.dtype,  # noqa: ARG001
    group_size: int,
    output_dtype: torch.dtype,
) -> torch.Tensor:
    grouped = integers.to(output_dtype).reshape(scales.shape[0], -1, group_size)
    if zero_points is not None:
        grouped = grouped - zero_points.reshape(scales.shape[0], -1, 1)
    return (grouped * scales.reshape(scales.shape[0], -1, 1)).reshape(integers.shape)


_FORMS: dict[str, Callable[..., Any]] = {
    "quantized_decomposed.quantize_per_tensor.default": _quantize,
    "quantized_decomposed.dequantize_per_tensor.default": _dequantize,
    "quantized_decomposed.dequantize_per_channel.default": _dequantize_per_channel,
    "quantized_decomposed.dequantize_per_channel_group.default": _dequantize_per_group,
}
