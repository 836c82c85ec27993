"""A small residual net of depthwise-separable convolutions, as phones like them: 35 thousand parameters."""

from __future__ import annotations

import torch
from torch import nn


def conv(channels_in: int, channels_out: int, *, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch-norm, ReLU6."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU6(),
    )


class Separable(nn.Module):
    """Filter each channel, then mix them (Howard et al., MobileNets, 2017); added to its input where the shapes allow."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = conv(channels_in, channels_in, kernel=3, stride=stride, groups=channels_in)
        self.pointwise = nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out))
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[N, C, H, W]`` -> ``[N, C', H / stride, W / stride]``."""
        mixed = self.pointwise(self.depthwise(x))
        return x + mixed if self.residual else mixed


class FashionNet(nn.Module):
    """28 x 28 grey picture -> one of ten kinds of clothes."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv(1, 24, kernel=3, stride=2),  # [N, 24, 14, 14]
            Separable(24, 24),
            Separable(24, 48, stride=2),  # [N, 48, 7, 7]
            Separable(48, 48),
            conv(48, 96),
            Separable(96, 96),
            conv(96, 128),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(128, classes)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """``[N, 1, 28, 28]`` normalised picture -> ``[N, 10]`` logits."""
        return self.classifier(self.pool(self.features(picture)).flatten(1))
