"""Layers that several families share."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

__all__ = ["Attention", "Block", "ConvNorm", "SqueezeExcite", "head"]


class ConvNorm(nn.Sequential):
    """Convolution, batch normalisation, activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        groups: int = 1,
        dilation: int = 1,
        act: type[nn.Module] | None = nn.ReLU,
    ) -> None:
        padding = dilation * (kernel // 2)
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation=dilation, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        super().__init__(*layers, *([act()] if act else []))


class SqueezeExcite(nn.Module):
    """Channels weighed by what a small net makes of their means (Hu et al., 2018)."""

    def __init__(self, channels: int, *, act: type[nn.Module] = nn.ReLU, gate: type[nn.Module] = nn.Sigmoid) -> None:
        super().__init__()
        hidden = max(channels // 4, 4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.gate = nn.Sequential(nn.Conv2d(channels, hidden, 1), act(), nn.Conv2d(hidden, channels, 1), gate())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return x * self.gate(self.pool(x))


class Attention(nn.Module):
    """Multi-head self-attention ``[N, S, C]`` with one projection for queries, keys and values."""

    def __init__(self, width: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.mix, self.leave = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        n, length, width = x.shape
        q, k, v = self.mix(x).reshape(n, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.leave(y.transpose(1, 2).reshape(n, length, width))


class Block(nn.Module):
    """Pre-norm transformer block (Vaswani et al., 2017; Dosovitskiy et al., 2021)."""

    def __init__(self, width: int, heads: int, *, causal: bool = False, act: type[nn.Module] = nn.GELU) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, causal=causal)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), act(), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def head(channels: int, classes: int = 10) -> nn.Sequential:
    """Global mean and classifier."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
