"""Metadata of a finished ``.mlpackage``, read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgekit.converters.preprocessing.stored import Stored, refuse
from edgekit.core.errors import ConversionError
from edgekit.core.pictures import ImagePreprocessing
from edgekit.core.preprocessing import Preprocessing, read_preprocessing

__all__ = ["read_stored"]

_COLOUR_SPACES = {"grey": ("GRAYSCALE", 10), "rgb": ("RGB", 20)}
"""``ImageFeatureType.ColorSpace`` of FeatureTypes.proto, by the colours of the pictures an image input is declared to take."""


def read_stored(path: Path) -> Stored:
    """Preprocessing, labels and class names of a package.

    Raises:
        ConversionError: An image input has another size or colour space than described, or class names are not the labels.
    """
    from coremltools.proto import Model_pb2

    model: Any = Model_pb2.Model()
    model.ParseFromString((path / "Data" / "com.apple.CoreML" / "model.mlmodel").read_bytes())
    described = dict(model.description.metadata.userDefined)
    records = read_preprocessing(json.loads(described.get("edgekit.preprocessing", "{}")))
    for feature in model.description.input:
        if feature.type.WhichOneof("Type") == "imageType":
            _check_image(feature.name, feature.type.imageType, records.get(feature.name))
    return Stored(records=records, labels=tuple(json.loads(described.get("edgekit.labels", "[]"))), classes=_classes(model))


def _check_image(name: str, image: Any, record: Preprocessing | None) -> None:
    if not isinstance(record, ImagePreprocessing):
        raise ConversionError(f"Input '{name}' is an image, but the package does not say how pictures are prepared for it.")
    if (image.height, image.width) != record.size:
        raise refuse(name, "size", (image.height, image.width), record.size)
    if image.colorSpace != _COLOUR_SPACES[record.colour][1]:
        raise refuse(name, "colour space", image.colorSpace, record.colour)


def _classes(model: Any) -> tuple[str, ...]:
    """Class names of a package that names classes."""
    if not model.description.predictedFeatureName:
        return ()
    function = model.mlProgram.functions["main"]
    block = function.block_specializations[function.opset]
    for operation in block.operations:
        if operation.type == "classify":
            bound = operation.inputs["classes"].arguments[0]
            by_name = {made.outputs[0].name: made.attributes["val"] for made in block.operations if made.type == "const"}
            value = bound.value if bound.WhichOneof("binding") == "value" else by_name[bound.name]
            return tuple(text for part in value.immediateValue.list.values for text in part.immediateValue.tensor.strings.values)
    return ()
