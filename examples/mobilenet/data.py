"""Photographs, prepared as ImageNet models expect them. They have no ImageNet labels: what is judged is agreement with float."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[1]))  # examples/, for assets.py
import assets

SIZE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as the weights were trained with
CALIBRATION_COUNT = 64


def split() -> tuple[list[Path], list[Path]]:
    """Calibration and evaluation photographs: 64 spread evenly over the sorted list, and all the others."""
    folder = assets.find("pictures")
    photographs = [folder / path for path in sorted(assets.ASSETS["pictures"].checksums())]
    chosen = {int(index) for index in np.linspace(0, len(photographs) - 1, CALIBRATION_COUNT)}
    calibration_set = [path for index, path in enumerate(photographs) if index in chosen]
    return calibration_set, [path for index, path in enumerate(photographs) if index not in chosen]


def load(path: Path) -> NDArray[np.float32]:
    """One photograph over white, shorter side resized to 224, centre cut out, normalised: ``[3, 224, 224]``."""
    with Image.open(path) as stored:
        picture = stored.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    picture = Image.alpha_composite(white, picture).convert("RGB")
    scale = SIZE / min(picture.size)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
    left, top = (picture.width - SIZE) // 2, (picture.height - SIZE) // 2
    values = np.asarray(picture.crop((left, top, left + SIZE, top + SIZE)), np.float32) / 255
    return ((values - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).transpose(2, 0, 1)


def _batches(paths: list[Path], batch_size: int) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(paths), batch_size):
        yield np.stack([load(path) for path in paths[start : start + batch_size]])


def calibration(batch_size: int = 8) -> Iterator[NDArray[np.float32]]:
    """Batches ``[N, 3, 224, 224]`` of the 64 calibration photographs."""
    yield from _batches(split()[0], batch_size)


def evaluation(batch_size: int = 8) -> Iterator[tuple[NDArray[np.float32], None]]:
    """Batches of the other photographs, without labels."""
    for batch in _batches(split()[1], batch_size):
        yield batch, None
