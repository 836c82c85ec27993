"""Small nets with every pattern the quantizer must recognise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.core.task import Task


class Residual(nn.Module):
    """Inverted residual of MobileNetV2 (Sandler et al., 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.conv = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(inplace=True),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(inplace=True),
            nn.Conv2d(wide, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x)


class ImageNet(nn.Module):
    """Depthwise 2-D CNN: stem, residual, pooling, head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.block = Residual(8)
        self.head = nn.Linear(8, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(self.stem(image)).mean([2, 3]))


def randomize(model: nn.Module) -> nn.Module:
    """Give batch norms statistics and gains, so that folding them matters."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.3)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
            nn.init.normal_(layer.running_mean, std=0.1)
    return model


@pytest.fixture
def make_task() -> Callable[..., Task]:
    """``make_task(model, (1, 3, 16, 16))``: a task with seeded random calibration data."""

    def make(model: nn.Module, *shapes: tuple[int, ...], samples: int = 16, **changes: Any) -> Task:
        torch.manual_seed(0)
        rng = np.random.default_rng(0)
        batch = tuple(rng.normal(size=(samples, *shape[1:])).astype(np.float32) for shape in shapes)
        example = tuple(np.zeros(shape, np.float32) for shape in shapes)
        fields: dict[str, Any] = {
            "name": "small",
            "model": randomize(model),
            "example_inputs": example if len(example) > 1 else example[0],
            "calibration": [batch if len(batch) > 1 else batch[0]],
        }
        return Task(**(fields | changes))

    return make


@pytest.fixture
def image_task(make_task: Callable[..., Task]) -> Task:
    torch.manual_seed(0)
    return make_task(ImageNet(), (1, 3, 16, 16))
