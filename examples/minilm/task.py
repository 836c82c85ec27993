"""The sentence encoder MiniLM-L6: how often does a quantized query find the same sentence as the float one?

::

    edgekit compress examples/minilm/task.py --recipe int8 -o runs/minilm
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import data
import model
import numpy as np
import torch
from numpy.typing import NDArray

import edgekit


@functools.cache
def library() -> NDArray[np.float32]:
    """Directions of the library's sentences ``[512, 384]`` by the float net: the index is made once, the queries on devices."""
    net = model.pretrained()
    with torch.inference_mode():
        return np.concatenate([net(part).numpy() for part in torch.from_numpy(data.library()).split(16)])


def nearest_sentence(outputs: Mapping[str, Any]) -> NDArray[np.int64]:
    """The library's sentence nearest to each query, ``[N]``, by cosine."""
    queries = next(iter(outputs.values()))
    return np.argmax(queries @ library().T, axis=1)


def same_sentence(outputs: Mapping[str, Any], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """1 where the nearest sentence is the float model's, else 0; ``[N]``."""
    return (nearest_sentence(outputs) == targets).astype(np.float64)


task = edgekit.Task(
    name="minilm",
    model=model.pretrained,
    example_inputs=np.full((1, data.LENGTH), data.PADDING + 1, np.int32),
    calibration=data.calibration,
    evaluation=data.evaluation,
    metric=edgekit.Metric(
        name="same nearest sentence as float", score=same_sentence, predict=nearest_sentence, against_float=True
    ),
    preprocessing={"length": data.LENGTH, "padding": data.PADDING, "vocabulary": "BERT uncased", "case": "lower"},
)
