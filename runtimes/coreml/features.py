"""Features of a package that are no plain arrays: images, and the name of a class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgekit.core.errors import IntegrityError, UnsupportedOpError
from edgekit.core.tensors import TensorSpec
from edgekit.runtimes.coreml.program import Classifier

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CLASSIFY", "as_picture", "as_variable", "image_spaces", "image_spec", "open_axes", "read_classifier"]

CLASSIFY = "classify"
_COLOUR_SPACES = {10: "GRAYSCALE", 20: "RGB", 30: "BGR", 40: "GRAYSCALE_FLOAT16"}
"""``ImageFeatureType.ColorSpace`` of FeatureTypes.proto."""


def image_spec(feature: Any) -> TensorSpec:
    """An image as callers see it, ``[1, H, W, C]``: bytes, or float16 where its colour space says so.

    Raises:
        UnsupportedOpError: It has no colour space.
    """
    image = feature.type.imageType
    space = _COLOUR_SPACES.get(image.colorSpace)
    if space is None:
        raise UnsupportedOpError(
            f"image '{feature.name}' has colour space {image.colorSpace}; only {', '.join(_COLOUR_SPACES.values())} can be run."
        )
    fields = {
        "name": feature.name,
        "shape": (1, int(image.height), int(image.width), 1 if space.startswith("GRAYSCALE") else 3),
        "dtype": "float16" if space.endswith("FLOAT16") else "uint8",
        "flexible": _open_sizes(image),
    }
    return TensorSpec.parse(fields, source=f"image '{feature.name}'")


def _open_sizes(image: Any) -> list[dict[str, Any]]:
    """Height and width, axes 1 and 2, where the caller chooses them."""
    kind = image.WhichOneof("SizeFlexibility")
    if kind == "imageSizeRange":
        return open_axes(
            [(r.lowerBound, r.upperBound) for r in (image.imageSizeRange.heightRange, image.imageSizeRange.widthRange)], 1
        )
    if kind == "enumeratedSizes":
        return open_axes([[getattr(size, side) for size in image.enumeratedSizes.sizes] for side in ("height", "width")], 1)
    return []


def open_axes(columns: Sequence[Sequence[int]], first: int = 0) -> list[dict[str, Any]]:
    """Axes whose size the caller chooses, by a (smallest, largest) or a list of sizes for each.

    Args:
        columns: One for each axis: a tuple is a range, a list holds the sizes allowed.
        first: The axis the first column stands for.
    """
    found = []
    for axis, column in enumerate(columns, start=first):
        low, high = (column[0], column[1]) if isinstance(column, tuple) else (min(column), max(column))
        if low != high:
            sizes = {} if isinstance(column, tuple) else {"sizes": sorted(set(map(int, column)))}
            found.append({"axis": axis, "minimum": int(low), "maximum": int(high), **sizes})
    return found


def image_spaces(features: Iterable[Any]) -> dict[str, str]:
    """Images among the features of a description -> colour space."""
    images = (feature for feature in features if feature.type.WhichOneof("Type") == "imageType")
    return {feature.name: _COLOUR_SPACES.get(feature.type.imageType.colorSpace, "") for feature in images}


def as_variable(name: str, given: Tensor, images: Mapping[str, str]) -> Tensor:
    """An input as the program's variable: pixels ``[1, H, W, C]`` of an image become float32 ``[1, C, H, W]``."""
    space = images.get(name)
    if space is None:
        return given
    pixels = given.permute(0, 3, 1, 2).float()
    return pixels.flip(1) if space == "BGR" else pixels


def as_picture(name: str, computed: Tensor, images: Mapping[str, str]) -> Tensor:
    """An output as callers see it: ``[1, C, H, W]`` of an image becomes ``[1, H, W, C]``, its bytes rounded and limited."""
    space = images.get(name)
    if space is None:
        return computed
    pixels = (computed.flip(1) if space == "BGR" else computed).permute(0, 2, 3, 1)
    return pixels if space.endswith("FLOAT16") else pixels.round().clamp(0, 255)


def read_classifier(description: Any, block: Any) -> Classifier | None:
    """What a package that names classes says; None for others.

    Raises:
        IntegrityError: Its description and its program do not fit each other.
    """
    if not description.predictedFeatureName:
        return None
    found = [operation for operation in block.operations if operation.type == CLASSIFY]
    if len(found) != 1:
        raise IntegrityError(f"it names classes, but its program has {len(found)} operations that choose one.")
    scores, classes = (found[0].inputs[argument].arguments[0] for argument in ("probabilities", "classes"))
    values = classes.value if classes.WhichOneof("binding") == "value" else _constant(classes.name, block)
    names = tuple(name for value in values.immediateValue.list.values for name in _labels(value.immediateValue.tensor))
    return Classifier(
        scores=scores.name,
        probabilities=description.predictedProbabilitiesName,
        label=description.predictedFeatureName,
        classes=names,
    )


def _labels(tensor: Any) -> list[str]:
    """Class names, numbers as text."""
    kind = tensor.WhichOneof("value")
    return [str(value) for value in getattr(tensor, kind).values] if kind else []


def _constant(name: str, block: Any) -> Any:
    for operation in block.operations:
        if operation.type == "const" and operation.outputs[0].name == name:
            return operation.attributes["val"]
    raise IntegrityError(f"the list of classes '{name}' is not in the program.")
