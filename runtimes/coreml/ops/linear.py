"""Matrix products."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edgekit.core.errors import IntegrityError
from edgekit.runtimes.coreml.ops.table import Call, Kernel, register

__all__: list[str] = []


@register("linear")
def linear(call: Call) -> Kernel:  # noqa: ARG001
    """``x weight.T + bias``: ``weight [D_out, D_in]``."""
    return Kernel(functional.linear, "x", "weight", "bias")


@register("matmul")
def matmul(call: Call) -> Kernel:
    """Batched matrix product, numpy broadcasting, either side transposed on request."""
    transpose_x = call.flag("transpose_x") and len(call.shape("x")) > 1
    transpose_y = call.flag("transpose_y") and len(call.shape("y")) > 1

    def run(x: Tensor, y: Tensor) -> Tensor:
        return torch.matmul(x.transpose(-1, -2) if transpose_x else x, y.transpose(-1, -2) if transpose_y else y)

    return Kernel(run, "x", "y")


@register("einsum")
def einsum(call: Call) -> Kernel:
    """Einstein summation."""
    equation = call.text("equation", "")
    if not equation:
        raise IntegrityError(f"{call}: argument 'equation' is missing.")
    return Kernel(lambda *values: torch.einsum(equation, *values), "values")
