"""Activations."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F  # noqa: N812

from edgekit.converters.sources.onnx.call import Call
from edgekit.converters.sources.onnx.operators.table import MICROSOFT, operator

__all__: list[str] = []


@operator("Relu")
def relu(call: Call) -> torch.Tensor:
    """``max(x, 0)``."""
    return torch.relu(call.tensor(0))


@operator("Sigmoid")
def sigmoid(call: Call) -> torch.Tensor:
    """``1 / (1 + exp(-x))``."""
    return torch.sigmoid(call.tensor(0))


@operator("Tanh")
def tanh(call: Call) -> torch.Tensor:
    """Hyperbolic tangent."""
    return torch.tanh(call.tensor(0))


@operator("LeakyRelu")
def leaky_relu(call: Call) -> torch.Tensor:
    """``x`` above zero, ``alpha x`` below."""
    return F.leaky_relu(call.tensor(0), call.attribute("alpha", 0.01))


@operator("PRelu")
def prelu(call: Call) -> torch.Tensor:
    """``x`` above zero, ``slope x`` below; one slope, or one for each channel, in torch's own operator."""
    values, shape, slope = call.tensor(0), call.shape(0), call.shape(1)
    sizes = [size for size in slope if size != 1]
    channels_first = len(shape) >= 2 and len(slope) == len(shape) - 1 and sizes == [shape[1]] and slope[0] == shape[1]
    if call.known(1) is not None and len(shape) >= 2 and (not sizes or channels_first):
        return F.prelu(values, call.changed(1, "weight", lambda weight: weight.reshape(-1)))
    return torch.where(values >= 0, values, values * call.tensor(1))


@operator("Elu")
def elu(call: Call) -> torch.Tensor:
    """``alpha (exp(x) - 1)`` below zero."""
    return F.elu(call.tensor(0), call.attribute("alpha", 1.0))


@operator("Selu")
def selu(call: Call) -> torch.Tensor:
    """Scaled ELU with ONNX's own constants, or others."""
    values = call.tensor(0)
    alpha, gamma = call.attribute("alpha", 1.6732632423543772), call.attribute("gamma", 1.0507009873554805)
    return F.elu(values, alpha) * gamma


@operator("Celu")
def celu(call: Call) -> torch.Tensor:
    """``max(0, x) + min(0, alpha (exp(x / alpha) - 1))``, with ELU, which every target has."""
    values, alpha = call.tensor(0), call.attribute("alpha", 1.0)
    return F.elu(values / alpha, 1.0) * alpha


@operator("ThresholdedRelu")
def thresholded_relu(call: Call) -> torch.Tensor:
    """``x`` above a threshold, 0 elsewhere."""
    values = call.tensor(0)
    return torch.where(values > call.attribute("alpha", 1.0), values, torch.zeros_like(values))


@operator("HardSigmoid")
def hard_sigmoid(call: Call) -> torch.Tensor:
    """``clip(alpha x + beta, 0, 1)``."""
    values, alpha, beta = call.tensor(0), call.attribute("alpha", 0.2), call.attribute("beta", 0.5)
    if beta == 0.5 and math.isclose(alpha, 1 / 6, rel_tol=1e-6):
        return F.hardsigmoid(values)
    return torch.clamp(values * alpha + beta, 0, 1)


@operator("HardSwish")
def hard_swish(call: Call) -> torch.Tensor:
    """``x clip(x / 6 + 1 / 2, 0, 1)``."""
    return F.hardswish(call.tensor(0))


@operator("Softplus")
def softplus(call: Call) -> torch.Tensor:
    """``log(1 + exp(x))``."""
    return F.softplus(call.tensor(0))


@operator("Softsign")
def softsign(call: Call) -> torch.Tensor:
    """``x / (1 + |x|)``."""
    values = call.tensor(0)
    return values / (values.abs() + 1)


@operator("Mish")
def mish(call: Call) -> torch.Tensor:
    """``x tanh(softplus(x))``."""
    return F.mish(call.tensor(0))


@operator("Swish")
def swish(call: Call) -> torch.Tensor:
    """``x sigmoid(alpha x)``."""
    values, alpha = call.tensor(0), call.attribute("alpha", 1.0)
    return F.silu(values) if alpha == 1 else values * torch.sigmoid(values * alpha)


@operator("QuickGelu", domain=MICROSOFT)
def quick_gelu(call: Call) -> torch.Tensor:
    """``x sigmoid(alpha x)``, with GELU's alpha."""
    values = call.tensor(0)
    return values * torch.sigmoid(values * call.attribute("alpha", 1.702))


@operator("Gelu")
def gelu(call: Call) -> torch.Tensor:
    """``x Phi(x)``, exactly or by a tangent."""
    return F.gelu(call.tensor(0), approximate=call.attribute("approximate", "none"))


@operator("Gelu", "BiasGelu", "FastGelu", domain=MICROSOFT)
def microsoft_gelu(call: Call) -> torch.Tensor:
    """GELU, with a bias added before; ``FastGelu`` is the one by a tangent."""
    values = call.tensor(0)
    if call.has(1):
        values = values + call.weight(1, "bias")
    return F.gelu(values, approximate="tanh" if call.operator == "FastGelu" else "none")


@operator("Shrink")
def shrink(call: Call) -> torch.Tensor:
    """Values near zero become zero, others move towards it."""
    values, limit, bias = call.tensor(0), call.attribute("lambd", 0.5), call.attribute("bias", 0.0)
    zero = torch.zeros_like(values)
    return torch.where(values < -limit, values + bias, torch.where(values > limit, values - bias, zero)).to(values.dtype)


@operator("Softmax", "LogSoftmax", "Hardmax")
def softmax(call: Call) -> torch.Tensor:
    """Over one axis; before opset 13 over all axes from one on."""
    values, rank = call.tensor(0), len(call.shape(0))
    axis = call.attribute("axis", -1 if call.version >= 13 else 1)
    axis = axis + rank if axis < 0 else axis
    shape = call.shape(0)
    if call.version < 13 and axis != rank - 1:
        flat = values.reshape(math.prod(shape[:axis]), math.prod(shape[axis:]))
        return _softmax(call.operator, flat, 1).reshape(shape)
    return _softmax(call.operator, values, axis)


def _softmax(name: str, values: torch.Tensor, axis: int) -> torch.Tensor:
    if name == "Softmax":
        return torch.softmax(values, axis)
    if name == "LogSoftmax":
        return torch.log_softmax(values, axis)
    largest = torch.argmax(values, axis, keepdim=True)
    length = values.shape[axis]
    positions = torch.arange(length).reshape([length if at == axis % values.dim() else 1 for at in range(values.dim())])
    return (largest == positions).to(values.dtype)
