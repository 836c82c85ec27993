"""Random numbers.

Core ML documents the distributions, not the generator: the stream here is torch's, not Apple's. A seed makes it the same
for every loaded model, from its first run on; without one (-1, the default) it is different each time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgekit.core.errors import IntegrityError
from edgekit.runtimes.coreml.ops.table import Call, Kernel, register

__all__: list[str] = []


def _generator(call: Call) -> torch.Generator:
    generator, seed = torch.Generator(), call.integer("seed", -1)
    if seed < 0:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


@register("random_uniform")
def random_uniform(call: Call) -> Kernel:
    """Values evenly from ``[low, high)``."""
    low, high, generator = call.number("low", 0.0), call.number("high", 1.0), _generator(call)

    def run(shape: Tensor) -> Tensor:
        return low + (high - low) * torch.rand(shape.tolist(), generator=generator)

    return Kernel(run, "shape")


@register("random_normal")
def random_normal(call: Call) -> Kernel:
    """Values of the normal distribution with ``mean`` and ``stddev``."""
    mean, deviation, generator = call.number("mean", 0.0), call.number("stddev", 1.0), _generator(call)
    return Kernel(lambda shape: mean + deviation * torch.randn(shape.tolist(), generator=generator), "shape")


@register("random_bernoulli")
def random_bernoulli(call: Call) -> Kernel:
    """1 with probability ``prob``, else 0, as floats."""
    share, generator = call.number("prob", 0.5), _generator(call)
    return Kernel(lambda shape: (torch.rand(shape.tolist(), generator=generator) < share).to(torch.float32), "shape")


@register("random_categorical")
def random_categorical(call: Call) -> Kernel:
    """``size`` indices drawn with replacement by the logits or probabilities in the last axis, as floats: ``[*D, size]``."""
    mode, size, generator = call.text("mode", "logits"), call.integer("size", 1), _generator(call)
    if mode not in {"logits", "probs"}:
        raise IntegrityError(f"{call}: unknown mode '{mode}'; known: logits, probs.")

    def run(x: Tensor) -> Tensor:
        chances = torch.softmax(x, -1) if mode == "logits" else x
        drawn = torch.multinomial(chances.reshape(-1, x.shape[-1]), size, replacement=True, generator=generator)
        return drawn.reshape(*x.shape[:-1], size).to(torch.float32)

    return Kernel(run, "x")
