"""Metadata of a finished ``.tflite`` file, read back."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path

from edgekit.converters.preprocessing.stored import Stored, refuse
from edgekit.converters.preprocessing.tflite_metadata import COLOUR_SPACES, ENTRY, StoredInput, read_metadata
from edgekit.core.pictures import ImagePreprocessing
from edgekit.core.preprocessing import Preprocessing, read_preprocessing

__all__ = ["read_stored"]

_SAME = 1e-5
"""Relative; the metadata hold float32."""


def read_stored(path: Path) -> Stored:
    """Preprocessing and labels of a file; mean and std are those of its NormalizationOptions.

    Raises:
        ConversionError: The standard metadata contradict edgekit's description beside them.
    """
    data = path.read_bytes()
    entries = _entries(data)
    records = read_preprocessing(json.loads(entries.get("edgekit.preprocessing", b"{}")))
    labels = tuple(json.loads(entries.get("edgekit.labels", b"[]")))
    if ENTRY not in entries:
        return Stored(records=records, labels=labels)
    metadata = read_metadata(entries[ENTRY], data)
    inputs = {found.name: found for found in metadata.inputs}
    fed = {name: _as_stored(record, inputs[name]) if name in inputs else record for name, record in records.items()}
    return Stored(records=fed, labels=metadata.labels() or labels)


def _as_stored(record: Preprocessing, found: StoredInput) -> Preprocessing:
    """The record with the numbers an application takes from the standard metadata."""
    if isinstance(record, ImagePreprocessing):
        if found.size != record.size:
            raise refuse(found.name, "size", found.size, record.size)
        if found.colour_space != COLOUR_SPACES[record.colour]:
            raise refuse(found.name, "colour space", found.colour_space, record.colour)
    for what, stored, declared in (("mean", found.mean, record.mean), ("std", found.std, record.std)):
        expected = [value / record.scale for value in declared]
        if len(stored) != len(expected) or not all(map(_is_same, stored, expected)):
            raise refuse(found.name, what, [round(value, 4) for value in stored], [round(value, 4) for value in expected])
    return record.replace(scale=1.0, mean=found.mean, std=found.std)


def _is_same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_SAME, abs_tol=_SAME)


def _entries(data: bytes) -> dict[str, bytes]:
    """Metadata entries of a model, without decoding the rest of it."""
    schema = importlib.import_module("ai_edge_litert.schema_py_generated")
    model = schema.Model.GetRootAs(data, 0)
    found = {}
    for at in range(model.MetadataLength()):
        entry = model.Metadata(at)
        found[bytes(entry.Name()).decode()] = bytes(model.Buffers(entry.Buffer()).DataAsNumpy())
    return found
