"""Matrix products."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edgekit.core.errors import IntegrityError
from edgekit.runtimes.coreml.ops.elementwise import torch_dtype
from edgekit.runtimes.coreml.ops.table import Call, Kernel, register

__all__: list[str] = []


@register("linear")
def linear(call: Call) -> Kernel:
    """``x weight.T + bias``: ``weight [D_out, D_in]``; from iOS 17 on one side may hold integers and the other floats."""
    if _same_kind(call, "x", "weight"):
        return Kernel(functional.linear, "x", "weight", "bias")
    dtype = torch_dtype(call.outputs[0].dtype)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(dtype)

    return Kernel(run, "x", "weight", "bias")


def _same_kind(call: Call, first: str, second: str) -> bool:
    return torch_dtype(call.dtype(first)) is torch_dtype(call.dtype(second))


@register("matmul")
def matmul(call: Call) -> Kernel:
    """Batched matrix product, numpy broadcasting, either side transposed on request; integers and floats as in ``linear``."""
    transpose_x = call.flag("transpose_x") and len(call.shape("x")) > 1
    transpose_y = call.flag("transpose_y") and len(call.shape("y")) > 1

    def run(x: Tensor, y: Tensor) -> Tensor:
        return torch.matmul(x.transpose(-1, -2) if transpose_x else x, y.transpose(-1, -2) if transpose_y else y)

    if _same_kind(call, "x", "y"):
        return Kernel(run, "x", "y")
    dtype = torch_dtype(call.outputs[0].dtype)
    return Kernel(lambda x, y: run(x.float(), y.float()).to(dtype), "x", "y")


@register("einsum")
def einsum(call: Call) -> Kernel:
    """Einstein summation."""
    equation = call.text("equation", "")
    if not equation:
        raise IntegrityError(f"{call}: argument 'equation' is missing.")
    return Kernel(lambda *values: torch.einsum(equation, *values), "values")
