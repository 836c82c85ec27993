"""Fashion-MNIST: pictures of clothes, 28 x 28 (Xiao, Rasul and Vollgraf, arXiv:1708.07747, 2017)."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[1]))  # examples/, for assets.py
import assets

LABELS = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")

# Mean and standard deviation of the training pictures' values in [0, 1] (a test recomputes them).
MEAN, STD = 0.286, 0.353


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of bytes: two zeros, type 8, number of axes, each size as big-endian int32, then the values."""
    data = gzip.decompress(path.read_bytes())
    axes = data[3]
    shape = np.frombuffer(data, ">i4", count=axes, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def load(split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures ``[N, 28, 28]`` and classes ``[N]`` of ``"train"`` (60,000) or ``"t10k"`` (10,000)."""
    folder = assets.find("fashion")
    classes = read_idx(folder / f"{split}-labels-idx1-ubyte.gz").astype(np.int64)
    return read_idx(folder / f"{split}-images-idx3-ubyte.gz"), classes


def normalise(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Bytes ``[N, 28, 28]`` -> centred and scaled floats ``[N, 1, 28, 28]``."""
    scaled = (pictures[:, None].astype(np.float32) / 255 - MEAN) / STD
    return scaled.astype(np.float32)


def evaluation(batch_size: int = 200) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """The 10,000 test pictures with their classes."""
    pictures, classes = load("t10k")
    for start in range(0, len(classes), batch_size):
        yield normalise(pictures[start : start + batch_size]), classes[start : start + batch_size]


def calibration(count: int = 256, batch_size: int = 32) -> Iterator[NDArray[np.float32]]:
    """The first ``count`` training pictures (the set is shuffled as published)."""
    pictures, _ = load("train")
    for start in range(0, count, batch_size):
        yield normalise(pictures[start : start + batch_size])
