"""The program's inputs as a file takes them: raw where the file prepares them itself, in its own types and axis order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.core.errors import DataError
from edgekit.core.pictures import ImagePreprocessing
from edgekit.core.preprocessing import read_preprocessing
from edgekit.core.preprocessing_evidence import WHOLE
from edgekit.core.tensors import to_stored

if TYPE_CHECKING:
    from edgekit.core.artifact import Artifact
    from edgekit.core.compressed import CompressedRecord
    from edgekit.core.raw_data import Preprocessing
    from edgekit.core.tensors import Array, Arrays

__all__ = ["RAW", "to_file"]

RAW = "raw/"
"""Prefix of raw pictures that travel beside prepared inputs, under the input's name."""


def to_file(inputs: Arrays, edges: Artifact | CompressedRecord) -> dict[str, Array]:
    """One call's inputs for a file.

    Args:
        inputs: Input name -> values as the program takes them; a name the file does not know is passed on. Raw pictures may
            stand beside them under ``raw/<name>``, for files that resize.
        edges: Says how the file's inputs look, and what it does itself before the program.

    Raises:
        DataError: The file takes raw values, and these were made of none: undoing the declared preprocessing gives no whole
            pixels or samples, or a resize is in the way.
    """
    baked, left = read_preprocessing(edges.baked), read_preprocessing(edges.preprocessing)
    specs = {spec.name: spec for spec in edges.inputs}
    found: dict[str, Array] = {}
    for name, values in inputs.items():
        if name.startswith(RAW):
            continue
        if name in baked:
            found[name] = left[name].prepare(_raw(baked[name], values, inputs.get(f"{RAW}{name}")))
        else:
            found[name] = to_stored(values, specs[name]) if name in specs else values
    return found


def _raw(record: Preprocessing, prepared: Array, known: Array | None) -> Array:
    if isinstance(record, ImagePreprocessing) and record.raw_size is not None and record.frames:
        if known is not None:
            return known
        raise DataError(
            f"The file resizes input '{record.input}' itself, so it cannot be fed with data that were resized before. Give the"
            " task raw data, with data='raw', or declare no raw_size."
        )
    raw, distance = record.recover(prepared)
    if distance > WHOLE:
        raise DataError(
            f"The file takes raw values for input '{record.input}', but the data were made of none: undoing the declared"
            f" preprocessing leaves values {distance:.2g} steps beside whole ones. Give the task raw data, with data='raw'."
        )
    return raw
