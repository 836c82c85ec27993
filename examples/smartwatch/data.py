"""Smartwatch recordings -> windows, split by person.

140 recordings of seven shoulder exercises by ten people (Burns et al., "Shoulder physiotherapy exercise recognition:
machine learning the inertial signals from a smartwatch", Physiological Measurement 39, 2018). Each has six channels at
50 Hz: acceleration x, y, z and angular velocity x, y, z.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[1]))  # examples/, for assets.py
import assets

CHANNELS = ("ax", "ay", "az", "wx", "wy", "wz")
LABELS = (
    "pendulum",
    "abduction",
    "forward elevation",
    "internal rotation",
    "external rotation",
    "trapezius extension",
    "upright row",
)
HELD_OUT_SUBJECTS = (8, 9, 10)  # the last three people; nothing else about them decided it
WINDOW = 200  # samples, 4 s
STEP = 50  # samples, 1 s

# Mean and standard deviation of each channel over the training people's windows (a test recomputes them).
MEAN = (-0.0065, 0.3878, -0.1403, 0.0174, -0.0042, 0.0159)
STD = (0.9286, 0.5045, 0.5663, 1.0292, 2.5947, 1.122)

Windows = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]


def load_windows() -> Windows:
    """All windows in the order of the recordings.

    Returns:
        Signals ``[N, 6, 200]`` as recorded, class ``[N]``, and person ``[N]`` (1 to 10).
    """
    file = assets.find("smartwatch") / "watch_dataset.npy"
    # A pickle can run code when it is read. find() has just checked that this one is the published file, byte for byte.
    recordings: dict[str, Any] = np.load(file, allow_pickle=True, encoding="latin1").item()
    signals, classes, subjects = [], [], []
    for series, label, subject in zip(recordings["X"], recordings["y"], recordings["subject"], strict=True):
        for start in range(0, len(series) - WINDOW + 1, STEP):
            signals.append(series[start : start + WINDOW].T)
            classes.append(label)
            subjects.append(subject)
    return np.stack(signals).astype(np.float32), np.array(classes, np.int64), np.array(subjects, np.int64)


def normalise(signals: NDArray[np.float32]) -> NDArray[np.float32]:
    """Centre and scale each channel of ``[N, 6, 200]``."""
    mean, std = np.array(MEAN, np.float32)[:, None], np.array(STD, np.float32)[:, None]
    return (signals - mean) / std


def training_set() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Normalised windows ``[N, 6, 200]`` and classes ``[N]`` of the people that are trained on."""
    signals, classes, subjects = load_windows()
    chosen = ~np.isin(subjects, HELD_OUT_SUBJECTS)
    return normalise(signals[chosen]), classes[chosen]


def evaluation(batch_size: int = 64) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Batches of the held-out people's windows, normalised, with their classes."""
    signals, classes, subjects = load_windows()
    chosen = np.isin(subjects, HELD_OUT_SUBJECTS)
    signals, classes = normalise(signals[chosen]), classes[chosen]
    for start in range(0, len(classes), batch_size):
        yield signals[start : start + batch_size], classes[start : start + batch_size]


def evaluation_people(*_evaluation: object) -> NDArray[np.int64]:
    """Who each of :func:`evaluation`'s windows is from, ``[N]``."""
    _, _, subjects = load_windows()
    return subjects[np.isin(subjects, HELD_OUT_SUBJECTS)]


def calibration(count: int = 256, batch_size: int = 32) -> Iterator[NDArray[np.float32]]:
    """Batches of ``count`` windows spread evenly over the training people's recordings."""
    signals, _ = training_set()
    chosen = signals[np.linspace(0, len(signals) - 1, count).astype(int)]
    for start in range(0, count, batch_size):
        yield chosen[start : start + batch_size]
