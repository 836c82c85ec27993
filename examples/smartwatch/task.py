"""Which shoulder exercise is it? The demo: real recordings, a small net trained here, judged on people it has not met.

::

    edgekit compress examples/smartwatch/task.py --recipe int8 -o runs/watch
"""

from __future__ import annotations

from pathlib import Path

import data
import numpy as np
import train
import trained
import training
from model import MotionNet
from torch import nn

import edgekit


def trained_model() -> nn.Module:
    """The trained net; trains it first where that was not done yet (about 20 seconds on two cores)."""
    return trained.load_or_train(MotionNet, train.train, folder=Path(__file__).resolve().parent, threads=train.THREADS)


task = edgekit.Task(
    name="smartwatch",
    model=trained_model,
    example_inputs=np.zeros((1, 6, data.WINDOW), np.float32),
    calibration=data.calibration,
    evaluation=data.evaluation,
    slices={"person": data.evaluation_people},
    training=training.training,
    validation=training.validation,
    loss=nn.CrossEntropyLoss(label_smoothing=0.1),
    labels=data.LABELS,
    preprocessing={
        "channels": data.CHANNELS,
        "sampling_rate_hz": 50,
        "window_samples": data.WINDOW,
        "mean": data.MEAN,
        "std": data.STD,
    },
)
