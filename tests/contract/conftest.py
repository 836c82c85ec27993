"""One small run, exported once to every target; each contract test asks all implementations the same questions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit import pipeline, registry
from edgekit.core.compressed import Compressed, load_golden
from edgekit.core.run import RunFolder
from edgekit.core.task import Task


class Small(nn.Module):
    """A residual depthwise CNN with pooling, a concat and two outputs' worth of heads in one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.pointwise = nn.Conv2d(8, 8, 1)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(16, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.stem(image)
        y = torch.relu(x + self.pointwise(torch.relu(self.depthwise(x))))
        z = torch.cat([self.pool(y), self.pool(x)], dim=1)
        return self.head(z.mean([2, 3]))


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with int8 artifacts and float baselines for every registered target at the edge."""
    torch.manual_seed(0)
    images = np.random.default_rng(0).normal(size=(16, 3, 16, 20)).astype(np.float32)
    task = Task(
        name="small",
        model=Small(),
        example_inputs=images[:1],
        calibration=[images],
        evaluation=[(images, np.zeros(16, np.int64))],
        labels=list("abcde"),
        preprocessing={"scale": 1.0},
    )
    folder = tmp_path_factory.mktemp("contract") / "run"
    pipeline.compress(task, recipe="int8", output=folder)
    pipeline.export(folder, targets=registry.targets())
    return RunFolder(folder)


@pytest.fixture(scope="session")
def compressed(run: RunFolder) -> Compressed:
    return Compressed.load(run.compressed)


@pytest.fixture(scope="session")
def golden_inputs(run: RunFolder) -> dict[str, np.ndarray]:
    return dict(load_golden(run.compressed).inputs)


def artifact_folder(run: RunFolder, target: str, precision: str) -> Path:
    return run.artifacts / (target if precision == "int8" else f"{target}-float32")
