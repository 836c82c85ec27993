"""Metadata of a finished ``.onnx`` file, read back."""

from __future__ import annotations

from pathlib import Path

from edgekit.converters.preprocessing.onnx_metadata import image_properties, read_properties
from edgekit.converters.preprocessing.stored import Stored, refuse
from edgekit.core.preprocessing import read_preprocessing

__all__ = ["read_stored"]


def read_stored(path: Path) -> Stored:
    """Preprocessing and labels of a file, once its image properties were found to say the same.

    Raises:
        ConversionError: They contradict each other.
    """
    described, labels, properties = read_properties(path.read_bytes())
    for key, expected in image_properties(described).items():
        if properties.get(key) != expected:
            raise refuse(next(iter(described)), key, properties.get(key), expected)
    return Stored(records=read_preprocessing(described), labels=labels)
