"""A 1-D convolutional net for four seconds of motion: 34 thousand parameters."""

from __future__ import annotations

import torch
from torch import nn


def conv(channels_in: int, channels_out: int, *, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch-norm, ReLU; the length shrinks by ``stride``."""
    return nn.Sequential(
        nn.Conv1d(channels_in, channels_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm1d(channels_out),
        nn.ReLU(),
    )


class Residual(nn.Module):
    """``relu(x + pointwise(depthwise(x)))``."""

    def __init__(self, channels: int, *, kernel: int) -> None:
        super().__init__()
        self.depthwise = conv(channels, channels, kernel=kernel, groups=channels)
        self.pointwise = nn.Sequential(nn.Conv1d(channels, channels, 1, bias=False), nn.BatchNorm1d(channels))
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[N, C, L]`` -> ``[N, C, L]``."""
        return self.relu(x + self.pointwise(self.depthwise(x)))


class MotionNet(nn.Module):
    """Six motion channels -> one of seven exercises."""

    def __init__(self, channels: int = 6, classes: int = 7) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv(channels, 32, kernel=7, stride=2),  # [N, 32, 100]
            conv(32, 48, kernel=5, stride=2),  # [N, 48, 50]
            Residual(48, kernel=5),
            conv(48, 64, kernel=5, stride=2),  # [N, 64, 25]
            Residual(64, kernel=5),
        )
        self.pool = nn.AdaptiveAvgPool1d(1)
        self.dropout = nn.Dropout(0.3)
        self.classifier = nn.Linear(64, classes)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        """``[N, 6, 200]`` normalised motion -> ``[N, 7]`` logits."""
        features = self.pool(self.features(signal)).flatten(1)
        return self.classifier(self.dropout(features))
