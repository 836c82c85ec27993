"""Weights that are only stored small, beside float activations: rounded in training as the lowering rounds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from edgekit.compression.quantize.grid import covering_scales, half_weights
from edgekit.compression.quantize.precision import block_count
from edgekit.compression.quantize.training.fake_quantize import Constant
from edgekit.compression.quantize.weights import integer_range

if TYPE_CHECKING:
    from edgekit.compression.quantize.plan import Kernel

__all__ = ["FakeStored"]


class FakeStored(Constant):
    """A weight with the values its stored form restores to.

    Args:
        weight: Float weight.
        kernel: Its layer: precision, and which axis the channels are on.
    """

    def __init__(self, weight: nn.Parameter, kernel: Kernel) -> None:
        super().__init__()
        self.weight = weight
        self.is_half = kernel.precision.weights == "float16"
        self.layer = kernel.layer or kernel.node.name
        self.limits = integer_range(kernel)
        groups: Any = kernel.node.args[6] if kernel.family.name == "conv" and len(kernel.node.args) > 6 else 1
        self.blocks = block_count(weight, kernel.precision, family=kernel.family.name, groups=int(groups), layer=self.layer)
        self.channel_axis = kernel.family.channel_axis or 0

    def compute(self) -> torch.Tensor:
        """The weight's shape, float32."""
        with torch.no_grad():
            stored = self._restored(self.weight.detach())
        return _Straight.apply(self.weight, stored)  # type: ignore[no-any-return, no-untyped-call]

    def _restored(self, weight: torch.Tensor) -> torch.Tensor:
        if self.is_half:
            return half_weights(weight, layer=self.layer).float()
        moved = weight.movedim(self.channel_axis, 0)
        rows = moved.flatten(1) if self.blocks is None else weight.reshape(weight.shape[0] * self.blocks, -1)
        low, high = self.limits
        scales = torch.from_numpy(covering_scales(rows.cpu(), minimum=low, maximum=high)).to(weight.device).unsqueeze(1)
        integers = torch.round(rows.double() / scales.double()).clamp(low, high).float()
        restored = integers * scales
        return restored.reshape(weight.shape) if self.blocks else restored.reshape(moved.shape).movedim(0, self.channel_axis)


class _Straight(torch.autograd.Function):
    """Forward the second tensor, backward to the first: the straight-through estimator."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, stored: torch.Tensor) -> torch.Tensor:
        del ctx, weight
        return stored

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        del ctx
        return gradients[0], None
