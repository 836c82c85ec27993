"""Is a sentence positive or negative? A bidirectional LSTM on sentences that people rated.

::

    edgekit compress examples/bilstm/task.py --recipe int8 -o runs/bilstm
"""

from __future__ import annotations

from pathlib import Path

import data
import numpy as np
import train
import trained
from model import SentenceLSTM
from torch import nn

import edgekit


def trained_model() -> nn.Module:
    """The trained net; trains it first where that was not done yet (half a minute on one core)."""
    return trained.load_or_train(SentenceLSTM, train.train, folder=Path(__file__).resolve().parent, threads=train.THREADS)


task = edgekit.Task(
    name="bilstm",
    model=trained_model,
    example_inputs=np.full((1, data.LENGTH), data.UNKNOWN, np.int32),
    calibration=data.calibration,
    evaluation=data.evaluation,
    labels=data.LABELS,
    preprocessing={"length": data.LENGTH, "padding": data.PADDING, "unknown": data.UNKNOWN, "case": "lower"},
)
