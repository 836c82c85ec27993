"""What an ``.onnx`` file says of its image inputs, in ONNX's own words (docs/MetadataProps.md, docs/TypeDenotation.md).

These words know the order of colours and a few ranges of values. Everything (mean and std, resize, crop) stands in the
property ``preprocessing`` beside them, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgekit.core.pictures import ImagePreprocessing
from edgekit.core.preprocessing import read_preprocessing

if TYPE_CHECKING:
    import onnx

__all__ = ["denote_images", "image_properties", "read_properties"]

_FORMATS = {"rgb": "Rgb8", "bgr": "Bgr8", "grey": "Gray8"}
_RANGES = {(0.0, 255.0): "NominalRange_0_255", (0.0, 1.0): "Normalized_0_1", (-1.0, 1.0): "Normalized_1_1"}
_DENOTATIONS = {
    "NCHW": ("DATA_BATCH", "DATA_CHANNEL", "DATA_FEATURE", "DATA_FEATURE"),
    "NHWC": ("DATA_BATCH", "DATA_FEATURE", "DATA_FEATURE", "DATA_CHANNEL"),
}


def image_properties(described: Mapping[str, Any]) -> dict[str, str]:
    """Metadata properties for a model with one image input; empty for others, whose inputs one set cannot describe."""
    images = [record for record in read_preprocessing(described).values() if isinstance(record, ImagePreprocessing)]
    if len(images) != 1:
        return {}
    (image,) = images
    found = {"Image.BitmapPixelFormat": _FORMATS[image.colour], "Image.ColorSpaceGamma": "SRGB"}
    lows, highs = image.bounds()
    ends = {(round(low, 4), round(high, 4)) for low, high in zip(lows, highs, strict=True)}
    name = _RANGES.get(next(iter(ends))) if len(ends) == 1 else None
    return found | ({"Image.NominalPixelRange": name} if name else {})


def denote_images(proto: onnx.ModelProto, described: Mapping[str, Any]) -> None:
    """Mark image inputs and their axes."""
    records = read_preprocessing(described)
    for value in proto.graph.input:
        record = records.get(value.name)
        axes = value.type.tensor_type.shape.dim
        if isinstance(record, ImagePreprocessing) and len(axes) == 4:
            value.type.denotation = "IMAGE"
            for axis, word in zip(axes, _DENOTATIONS[record.layout], strict=True):
                axis.denotation = word


def read_properties(data: bytes) -> tuple[dict[str, Any], tuple[str, ...], dict[str, str]]:
    """Preprocessing, labels and all properties of a file's bytes."""
    import onnx

    stored = {entry.key: entry.value for entry in onnx.load_model_from_string(data).metadata_props}
    return json.loads(stored.get("preprocessing", "{}")), tuple(json.loads(stored.get("labels", "[]"))), stored
