"""What recipes that train learn from: 55,000 training pictures; the last 5,000 are held back to choose by."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import data
import numpy as np
from numpy.typing import NDArray

BATCH_SIZE = 128
HELD_BACK = 5_000

Batch = tuple[NDArray[np.float32], NDArray[np.int64]]


@functools.cache
def pictures() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The training pictures and their classes, read once."""
    return data.load("train")


def training() -> Iterator[Batch]:
    """One epoch, in an order from NumPy's global generator; without a last short batch."""
    values, classes = pictures()
    order = np.random.permutation(len(classes) - HELD_BACK)  # noqa: NPY002  the trainer seeds it before each epoch
    for start in range(0, len(order) - BATCH_SIZE + 1, BATCH_SIZE):
        chosen = order[start : start + BATCH_SIZE]
        yield data.normalise(values[chosen]), classes[chosen]


def validation() -> Iterator[Batch]:
    """The pictures held back."""
    values, classes = pictures()
    for start in range(len(classes) - HELD_BACK, len(classes), BATCH_SIZE):
        yield data.normalise(values[start : start + BATCH_SIZE]), classes[start : start + BATCH_SIZE]
