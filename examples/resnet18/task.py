"""ResNet18 with random weights on photographs: latency, kernels, size and exactness of the architecture, no accuracy.

::

    edgekit compress examples/resnet18/task.py --recipe int8 -o runs/resnet18
"""

from __future__ import annotations

from pathlib import Path

import data
import numpy as np
import train
import trained
from model import ResNet18
from torch import nn

import edgekit


def random_model() -> nn.Module:
    """Seeded random weights with batch-norm statistics of real photographs; made once (seconds) and kept."""
    return trained.load_or_train(ResNet18, train.train, folder=Path(__file__).resolve().parent, threads=train.THREADS)


task = edgekit.Task(
    name="resnet18",
    model=random_model,
    example_inputs=np.zeros((1, 3, data.SIZE, data.SIZE), np.float32),
    calibration=data.calibration,
    evaluation=data.evaluation,
    metric=edgekit.agreement,
    preprocessing={"size": data.SIZE, "range": (0, 1), "mean": data.MEAN, "std": data.STD, "layout": "NCHW", "colours": "RGB"},
)
