"""The preprocessing of a whole model: one record for each input that has one, however it was written down.

A task may also give a description of its own as a plain mapping, which is carried into every artifact and not applied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.core.errors import TaskError, nearest
from edgekit.core.pictures import ImagePreprocessing
from edgekit.core.raw_data import Preprocessing
from edgekit.core.sounds import AudioPreprocessing
from edgekit.core.tensors import TensorSpec

__all__ = [
    "AudioPreprocessing",
    "ImagePreprocessing",
    "Preprocessing",
    "check_shapes",
    "describe",
    "for_file",
    "read_preprocessing",
    "statistics",
]

_KINDS: dict[str, type[Preprocessing]] = {"image": ImagePreprocessing, "audio": AudioPreprocessing}


def describe(declared: Any, inputs: Sequence[str]) -> dict[str, Any]:
    """What a task declares, as plain data: input name -> record, or the task's own mapping as it is.

    Args:
        declared: A record, a mapping from input names to records, or any mapping.
        inputs: Names of the model's inputs.

    Raises:
        TaskError: It names an input the model does not have, or none where there are several.
    """
    if isinstance(declared, Preprocessing):
        declared = {declared.input: declared}
    if not isinstance(declared, Mapping):
        raise TaskError(
            f"preprocessing is a {type(declared).__name__}; give an ImagePreprocessing, AudioPreprocessing or mapping."
        )
    records = {name: value for name, value in declared.items() if isinstance(value, Preprocessing)}
    if not records:
        return dict(declared)
    if len(records) < len(declared):
        raise TaskError(f"preprocessing mixes records and other things ({', '.join(map(str, declared))}); give records only.")
    named = {}
    for key, record in records.items():
        name = key or record.input or (inputs[0] if len(inputs) == 1 else "")
        if name not in inputs or record.input not in {"", name}:
            wanted = name if name not in inputs else record.input
            raise TaskError(
                f"preprocessing is for input '{wanted}', but the model's inputs are {', '.join(inputs)}.{nearest(wanted, inputs)}"
            )
        named[name] = record.replace(input=name).model_dump(mode="json")
    return named


def read_preprocessing(described: Mapping[str, Any]) -> dict[str, Preprocessing]:
    """Records by input name of what :func:`describe` made; empty for a task's own mapping.

    Raises:
        TaskError: A record has a field that is unknown or wrong.
    """
    found = {}
    for name, value in described.items():
        kind = _KINDS.get(str(value.get("kind"))) if isinstance(value, Mapping) else None
        if kind is None:
            return {}
        found[name] = kind.parse(dict(value), source=f"preprocessing of input '{name}'")
    return found


def for_file(described: Mapping[str, Any], inputs: Sequence[TensorSpec]) -> dict[str, Any]:
    """A description for a file that has some inputs in another axis order than the program (``is_channels_last``)."""
    turned = {spec.name for spec in inputs if spec.is_channels_last}
    return {name: {**value, "layout": "NHWC"} if name in turned else value for name, value in described.items()}


def statistics(described: Mapping[str, Any]) -> dict[str, Any]:
    """The same as ``range``, ``mean`` and ``std`` by input, which the examination of calibration data compares with."""
    return {
        name: {"range": sorted(limit * record.scale for limit in record.limits), "mean": record.mean, "std": record.std}
        for name, record in read_preprocessing(described).items()
    } or dict(described)


def check_shapes(records: Mapping[str, Preprocessing], inputs: Sequence[TensorSpec]) -> None:
    """Refuse a declaration that gives other shapes than the model takes.

    Raises:
        TaskError: Names the input, its shape, and what was declared.
    """
    specs = {spec.name: spec for spec in inputs}
    for name, record in records.items():
        found, spec = record.shape, specs[name]
        if spec.dtype != record.output_dtype or spec.shape[1:] != found:
            raise TaskError(
                f"Input '{name}' is {spec.dtype} {list(spec.shape)}, but its preprocessing gives {record.output_dtype}"
                f" {['N', *found]}. Correct size, colour and layout of the declaration."
            )
