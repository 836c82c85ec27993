"""Which piece of clothing is it? A depthwise-separable residual net on Fashion-MNIST.

::

    edgekit compress examples/fashion/task.py --recipe int8 -o runs/fashion
"""

from __future__ import annotations

from pathlib import Path

import data
import numpy as np
import train
import trained
import training
from model import FashionNet
from torch import nn

import edgekit


def trained_model() -> nn.Module:
    """The trained net; trains it first where that was not done yet (about two minutes on two cores)."""
    return trained.load_or_train(FashionNet, train.train, folder=Path(__file__).resolve().parent, threads=train.THREADS)


task = edgekit.Task(
    name="fashion",
    model=trained_model,
    example_inputs=np.zeros((1, 1, 28, 28), np.float32),
    calibration=data.calibration,
    evaluation=data.evaluation,
    training=training.training,
    validation=training.validation,
    loss=nn.CrossEntropyLoss(label_smoothing=0.05),
    labels=data.LABELS,
    preprocessing=edgekit.ImagePreprocessing(size=(28, 28), colour="grey", mean=data.MEAN, std=data.STD),
)
