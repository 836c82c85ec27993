"""Activation functions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from edgekit.core.errors import IntegrityError
from edgekit.runtimes.coreml.ops.table import Call, Kernel, register

__all__: list[str] = []

_PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "relu6": functional.relu6,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "softplus": functional.softplus,
    "softsign": functional.softsign,
}

_GELU: dict[str, Callable[[Tensor], Tensor]] = {
    "EXACT": functional.gelu,
    "TANH_APPROXIMATION": lambda x: functional.gelu(x, approximate="tanh"),
    "SIGMOID_APPROXIMATION": lambda x: x * torch.sigmoid(1.702 * x),
}


@register(*_PLAIN)
def plain(call: Call) -> Kernel:
    """Activations without parameters."""
    return Kernel(_PLAIN[call.operation.type], "x")


@register("gelu")
def gelu(call: Call) -> Kernel:
    """Gaussian error linear unit, exact or approximated as ``mode`` says."""
    mode = call.text("mode", "EXACT")
    if mode not in _GELU:
        raise IntegrityError(f"{call}: unknown mode '{mode}'; known: {', '.join(_GELU)}.")
    return Kernel(_GELU[mode], "x")


@register("softmax")
def softmax(call: Call) -> Kernel:
    """``exp(x) / sum(exp(x))`` along ``axis``."""
    axis = call.integer("axis", -1)
    return Kernel(lambda x: torch.softmax(x, axis), "x")


@register("elu")
def elu(call: Call) -> Kernel:
    """``x`` where positive, else ``alpha * (exp(x) - 1)``."""
    alpha = call.number("alpha")
    return Kernel(lambda x: functional.elu(x, alpha), "x")


@register("leaky_relu")
def leaky_relu(call: Call) -> Kernel:
    """``x`` where positive, else ``alpha * x``."""
    alpha = call.number("alpha")
    return Kernel(lambda x: functional.leaky_relu(x, alpha), "x")


@register("prelu")
def prelu(call: Call) -> Kernel:  # noqa: ARG001
    """``x`` where positive, else ``alpha[c] * x``, channels on axis 1."""
    return Kernel(functional.prelu, "x", "alpha")


@register("thresholded_relu")
def thresholded_relu(call: Call) -> Kernel:
    """``x`` where ``x >= alpha``, else 0."""
    alpha = call.number("alpha")
    return Kernel(lambda x: torch.where(x >= alpha, x, torch.zeros_like(x)), "x")


@register("clamped_relu")
def clamped_relu(call: Call) -> Kernel:
    """``min(beta, x)`` where ``x >= 0``, else ``min(beta, alpha * x)``."""
    alpha, beta = call.number("alpha"), call.number("beta")
    return Kernel(lambda x: torch.where(x >= 0, x, alpha * x).clamp(max=beta), "x")


@register("linear_activation")
def linear_activation(call: Call) -> Kernel:
    """``alpha * x + beta``."""
    alpha, beta = call.number("alpha"), call.number("beta")
    return Kernel(lambda x: alpha * x + beta, "x")


@register("scaled_tanh")
def scaled_tanh(call: Call) -> Kernel:
    """``alpha * tanh(beta * x)``."""
    alpha, beta = call.number("alpha"), call.number("beta")
    return Kernel(lambda x: alpha * torch.tanh(beta * x), "x")


@register("sigmoid_hard")
def sigmoid_hard(call: Call) -> Kernel:
    """``alpha * x + beta`` limited to ``[0, 1]``."""
    alpha, beta = call.number("alpha"), call.number("beta")
    return Kernel(lambda x: torch.clamp(alpha * x + beta, 0.0, 1.0), "x")


@register("softplus_parametric")
def softplus_parametric(call: Call) -> Kernel:
    """``alpha[c] * log(1 + exp(beta[c] * x))``, channels on axis 1."""
    channels = (1, -1, *[1] * (len(call.shape("x")) - 2))

    def run(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        return alpha.reshape(channels) * functional.softplus(x * beta.reshape(channels))

    return Kernel(run, "x", "alpha", "beta")
