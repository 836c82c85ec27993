"""Is a sentence positive or negative? A two-layer transformer on sentences that people rated.

::

    edgekit compress examples/sentiment/task.py --recipe int8 -o runs/sentiment
"""

from __future__ import annotations

from pathlib import Path

import data
import numpy as np
import train
import trained
from model import SentimentTransformer
from torch import nn

import edgekit


def trained_model() -> nn.Module:
    """The trained net; trains it first where that was not done yet (about a minute on one core)."""
    return trained.load_or_train(SentimentTransformer, train.train, folder=Path(__file__).resolve().parent, threads=train.THREADS)


task = edgekit.Task(
    name="sentiment",
    model=trained_model,
    example_inputs=np.full((1, data.LENGTH), data.UNKNOWN, np.int32),
    calibration=data.calibration,
    evaluation=data.evaluation,
    labels=data.LABELS,
    preprocessing={"length": data.LENGTH, "padding": data.PADDING, "unknown": data.UNKNOWN, "case": "lower"},
)
