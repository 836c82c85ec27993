"""A small residual net of full convolutions: strides, projected shortcuts, additions, a global mean. 47 thousand parameters."""

from __future__ import annotations

import torch
from torch import nn


class Block(nn.Module):
    """Two 3 x 3 convolutions added to their input (He et al., arXiv:1512.03385, figure 5; a projection where shapes change)."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[N, C, H, W]`` -> ``[N, C', H / stride, W / stride]``."""
        mixed = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        return self.relu(mixed + self.shortcut(x))


class ResidualNet(nn.Module):
    """28 x 28 grey picture -> one of ten kinds of clothes."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, 2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())  # [N, 16, 14, 14]
        self.blocks = nn.Sequential(
            Block(16, 16),
            Block(16, 24, stride=2),  # [N, 24, 7, 7]
            Block(24, 48, stride=2),  # [N, 48, 4, 4]
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(48, classes)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """``[N, 1, 28, 28]`` normalised picture -> ``[N, 10]`` logits."""
        return self.classifier(self.pool(self.blocks(self.stem(picture))).flatten(1))
