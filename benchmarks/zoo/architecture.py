"""One architecture of the zoo: how to build the net, and what to feed it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["Architecture", "Draw", "Made", "image", "tokens"]

Draw = Callable[[np.random.Generator], Any]
"""Inputs of one call: an array, a tuple of arrays, or a dictionary by argument name."""
Made = tuple[str, Callable[[], nn.Module], Draw]
"""Name, how the net is built, and inputs for it."""

_SETTLING_PASSES = 3


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A net with random weights.

    Args:
        name: ``"mobilenet-v2"``.
        family: File it is defined in: ``"mobile"``.
        factory: Makes the net.
        draw: Makes inputs.
    """

    name: str
    family: str
    factory: Callable[[], nn.Module]
    draw: Draw

    def build(self) -> nn.Module:
        """The net in eval mode, always with the same weights.

        Statistics of batch normalisation are taken from random inputs: with those of a new layer (mean 0, variance 1) signals
        would die out or explode within a few layers, and there would be nothing left to compare.
        """
        torch.manual_seed(len(self.name))
        net = self.factory()
        norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        if norms:
            net.eval()
            for norm in norms:
                norm.train()
                norm.momentum = 0.5
                for parameter in (norm.weight, norm.bias):
                    nn.init.normal_(parameter, mean=float(parameter is norm.weight), std=0.1)
            with torch.no_grad():
                for seed in range(_SETTLING_PASSES):
                    self.call(net, self.inputs(seed))
        return net.eval()

    def inputs(self, seed: int) -> Any:
        """Inputs of one call; others for every seed."""
        return self.draw(np.random.default_rng(seed))

    @staticmethod
    def call(net: nn.Module, inputs: Any) -> Any:
        """What the net answers."""
        if isinstance(inputs, dict):
            return net(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        return net(*(torch.from_numpy(array) for array in (inputs if isinstance(inputs, tuple) else (inputs,))))


def image(*shape: int) -> Draw:
    """Draws smooth float noise ``[1, *shape]``, such as pictures and signals have: neighbours are alike."""

    def draw(generator: np.random.Generator) -> np.ndarray:
        noise = generator.standard_normal((1, *shape))
        for axis in range(2, noise.ndim):
            noise = noise + np.roll(noise, 1, axis)
        return (noise / 2 ** ((noise.ndim - 2) / 2)).astype(np.float32)

    return draw


def tokens(length: int, vocabulary: int = 64, *, low: int = 1) -> Draw:
    """Draws token numbers ``[1, length]``, int64."""
    return lambda generator: generator.integers(low, vocabulary, (1, length)).astype(np.int64)
