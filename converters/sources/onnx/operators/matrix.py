"""Products of matrices."""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812

from edgekit.converters.sources.onnx.call import Call
from edgekit.converters.sources.onnx.operators.table import MICROSOFT, operator

__all__: list[str] = []


@operator("MatMul")
def matmul(call: Call) -> torch.Tensor:
    """Product; by a constant matrix it is a linear layer, whose weight is ``[out, in]``."""
    values = call.tensor(0)
    if call.known(1) is not None and len(call.shape(1)) == 2 and values.dtype.is_floating_point and values.dim() > 1:
        return F.linear(values, call.changed(1, "weight", torch.t))
    return torch.matmul(values, call.weight(1))


@operator("Linear", domain="edgekit")
def linear(call: Call) -> torch.Tensor:
    """A product by a constant matrix and the addition of a constant vector after it; see :mod:`…onnx.fusion`."""
    return F.linear(call.tensor(0), call.changed(1, "weight", torch.t), call.weight(2, "bias"))


@operator("Gemm")
def gemm(call: Call) -> torch.Tensor:
    """``alpha A B + beta C``, each of A and B transposed or not."""
    alpha, beta = call.attribute("alpha", 1.0), call.attribute("beta", 1.0)
    a = call.tensor(0).t() if call.attribute("transA", 0) else call.tensor(0)
    turned = bool(call.attribute("transB", 0))
    plain = alpha == 1 and a.dtype.is_floating_point
    vector = not call.has(2) or (beta == 1 and call.known(2) is not None and len(call.shape(2)) == 1)
    if plain and vector:
        weight = call.weight(1) if turned else call.changed(1, "weight", torch.t)
        if not call.has(2):
            return F.linear(a, weight)
        if call.shape(2)[0] == int(weight.shape[0]):
            return F.linear(a, weight, call.weight(2, "bias"))
    product = torch.matmul(a, call.tensor(1).t() if turned else call.tensor(1))
    product = product * alpha if alpha != 1 else product
    if not call.has(2):
        return product
    rest = call.tensor(2)
    result = product + (rest * beta if beta != 1 else rest)
    narrowed: torch.Tensor = result.to(a.dtype)
    return narrowed


@operator("FusedMatMul", domain=MICROSOFT)
def fused_matmul(call: Call) -> torch.Tensor:
    """Product of matrices that are transposed, times a number."""
    a, b = call.tensor(0), call.tensor(1)
    a = a.transpose(-1, -2) if call.attribute("transA", 0) else a
    b = b.transpose(-1, -2) if call.attribute("transB", 0) else b
    return torch.matmul(a, b) * call.attribute("alpha", 1.0)


@operator("Einsum")
def einsum(call: Call) -> torch.Tensor:
    """Einstein's sum; ``ii`` takes a diagonal."""
    return torch.einsum(call.attribute("equation", ""), *(call.tensor(index) for index in range(call.input_count)))


@operator("Det")
def det(call: Call) -> torch.Tensor:
    """Determinant."""
    result: torch.Tensor = torch.linalg.det(call.tensor(0))
    return result
