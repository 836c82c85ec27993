"""Integers and back, on activations.

``quantize``: ``clip(round(x / scale) + zero_point)`` with round half to even, as coremltools' own value inference computes it.
``dequantize``: ``scale * (q - zero_point)``.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edgekit.core.errors import IntegrityError
from edgekit.runtimes.coreml.ops.table import Call, Kernel, register

__all__: list[str] = []

_RANGES = {"int8": (-128, 127), "uint8": (0, 255)}
_DTYPES = {"int8": torch.int8, "uint8": torch.uint8}


def _grid(call: Call) -> tuple[Tensor, Tensor | None]:
    """Scale and zero point as float32, shaped to broadcast along ``axis``; no zero point means 0."""
    scale = call.array("scale").astype(np.float32)
    zero = call.array("zero_point").astype(np.float32) if call.has("zero_point") else None
    if scale.ndim:
        rank = len(call.shape("input"))
        shape = [1] * rank
        shape[call.integer("axis") % rank] = scale.size
        scale, zero = scale.reshape(shape), None if zero is None else zero.reshape(shape)
    return torch.from_numpy(scale.copy()), None if zero is None or not zero.any() else torch.from_numpy(zero.copy())


@register("quantize")
def quantize(call: Call) -> Kernel:
    """Float to int8 or uint8."""
    name = call.text("output_dtype", call.outputs[0].dtype)
    if name not in _RANGES:
        raise IntegrityError(f"{call}: output_dtype is '{name}'; expected int8 or uint8.")
    (low, high), dtype = _RANGES[name], _DTYPES[name]
    scale, zero = _grid(call)

    def run(x: Tensor) -> Tensor:
        steps = torch.div(x, scale).round_()
        if zero is not None:
            steps.add_(zero)
        return steps.clamp_(low, high).to(dtype)

    return Kernel(run, "input")


@register("dequantize")
def dequantize(call: Call) -> Kernel:
    """int8 or uint8 to float."""
    scale, zero = _grid(call)

    def run(q: Tensor) -> Tensor:
        values = q.to(torch.float32)
        if zero is not None:
            values.sub_(zero)
        return values.mul_(scale)

    return Kernel(run, "input")
