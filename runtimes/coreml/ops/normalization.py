"""Normalization layers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edgekit.runtimes.coreml.ops.table import Call, Kernel, register

__all__: list[str] = []


@register("batch_norm")
def batch_norm(call: Call) -> Kernel:
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta``, channels on axis 1."""
    epsilon = call.number("epsilon", 1e-5)

    def run(x: Tensor, mean: Tensor, variance: Tensor, gamma: Tensor | None, beta: Tensor | None) -> Tensor:
        return functional.batch_norm(x, mean, variance, gamma, beta, False, 0.0, epsilon)

    return Kernel(run, "x", "mean", "variance", "gamma", "beta")


@register("instance_norm")
def instance_norm(call: Call) -> Kernel:
    """Each channel of each sample by its own mean and variance."""
    epsilon = call.number("epsilon", 1e-5)
    return Kernel(lambda x, gamma, beta: functional.instance_norm(x, weight=gamma, bias=beta, eps=epsilon), "x", "gamma", "beta")


@register("layer_norm")
def layer_norm(call: Call) -> Kernel:
    """Mean and variance over ``axes``; ``gamma`` and ``beta`` have the sizes of those axes."""
    shape = call.shape("x")
    rank, epsilon = len(shape), call.number("epsilon", 1e-5)
    axes = sorted(axis % rank for axis in call.integers("axes", tuple(range(rank))))
    sizes = [shape[axis] for axis in axes]
    if axes == list(range(rank - len(axes), rank)):
        return Kernel(lambda x, gamma, beta: functional.layer_norm(x, sizes, gamma, beta, epsilon), "x", "gamma", "beta")
    spread = [size if axis in axes else 1 for axis, size in enumerate(shape)]

    def run(x: Tensor, gamma: Tensor | None, beta: Tensor | None) -> Tensor:
        variance, mean = torch.var_mean(x, axes, unbiased=False, keepdim=True)
        result = (x - mean) / torch.sqrt(variance + epsilon)
        result = result if gamma is None else result * gamma.reshape(spread)
        return result if beta is None else result + beta.reshape(spread)

    return Kernel(run, "x", "gamma", "beta")


@register("l2_norm")
def l2_norm(call: Call) -> Kernel:
    """``x / sqrt(sum(x * x) + epsilon)`` over the last three axes."""
    epsilon = call.number("epsilon", 1e-6)
    return Kernel(lambda x: x / torch.sqrt((x * x).sum((-3, -2, -1), keepdim=True) + epsilon), "x")


@register("local_response_norm")
def local_response_norm(call: Call) -> Kernel:
    """``x / (k + alpha / size * sum of squares over size neighbouring channels) ** beta``; channels on axis 1."""
    size, alpha = call.integer("size"), call.number("alpha", 1e-4)
    beta, k = call.number("beta", 0.75), call.number("k", 1.0)
    return Kernel(lambda x: functional.local_response_norm(x, size, alpha, beta, k), "x")
