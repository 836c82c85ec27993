"""What recipes that train learn from: the training people's windows, disturbed as in ``train.py``; some recordings held back."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import data
import numpy as np
from numpy.typing import NDArray

BATCH_SIZE = 64
JITTER = 0.1  # standard deviation of the random gain and offset of each channel, as train.py has it
HELD_BACK = 10  # of the training people's recordings, each tenth

Batch = tuple[NDArray[np.float32], NDArray[np.int64]]


@functools.cache
def split() -> tuple[Batch, Batch]:
    """(windows, classes) to learn from, and those of the recordings held back: windows overlap, so recordings are not divided."""
    signals, classes, subjects = data.load_windows()
    recording = np.concatenate([[0], np.cumsum((np.diff(classes) != 0) | (np.diff(subjects) != 0))])
    chosen = ~np.isin(subjects, data.HELD_OUT_SUBJECTS)
    numbers = np.unique(recording[chosen], return_inverse=True)[1]
    signals, classes = data.normalise(signals[chosen]), classes[chosen]
    back = numbers % HELD_BACK == HELD_BACK - 1
    return (signals[~back], classes[~back]), (signals[back], classes[back])


def training() -> Iterator[Batch]:
    """One epoch in an order, and with gains and offsets, from NumPy's global generator; without a last short batch."""
    signals, classes = split()[0]
    order = np.random.permutation(len(classes))  # noqa: NPY002  the trainer seeds the global generator before each epoch
    for start in range(0, len(classes) - BATCH_SIZE + 1, BATCH_SIZE):
        chosen = order[start : start + BATCH_SIZE]
        gain, offset = JITTER * np.random.standard_normal((2, BATCH_SIZE, 6, 1)).astype(np.float32)  # noqa: NPY002  as above
        yield signals[chosen] * (1 + gain) + offset, classes[chosen]


def validation() -> Iterator[Batch]:
    """The recordings held back, as they are."""
    signals, classes = split()[1]
    for start in range(0, len(classes), BATCH_SIZE):
        yield signals[start : start + BATCH_SIZE], classes[start : start + BATCH_SIZE]
