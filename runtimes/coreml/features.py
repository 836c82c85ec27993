"""Features of a package that are no plain arrays: images, and the name of a class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from edgekit.core.errors import IntegrityError, UnsupportedOpError
from edgekit.core.tensors import TensorSpec
from edgekit.runtimes.coreml.program import Classifier

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CLASSIFY", "as_variable", "image_inputs", "image_spec", "read_classifier"]

CLASSIFY = "classify"
_COLOUR_SPACES = {10: "GRAYSCALE", 20: "RGB", 30: "BGR"}
"""``ImageFeatureType.ColorSpace`` of FeatureTypes.proto."""


def image_spec(feature: Any) -> TensorSpec:
    """An image input as callers give it: bytes ``[1, H, W, C]``.

    Raises:
        UnsupportedOpError: Its pixels are no bytes.
    """
    image = feature.type.imageType
    space = _COLOUR_SPACES.get(image.colorSpace)
    if space is None:
        raise UnsupportedOpError(
            f"image '{feature.name}' has colour space {image.colorSpace}; only RGB, BGR and GRAYSCALE can be run."
        )
    channels = 1 if space == "GRAYSCALE" else 3
    return TensorSpec(name=feature.name, shape=(1, int(image.height), int(image.width), channels), dtype="uint8")


def image_inputs(features: Iterable[Any]) -> dict[str, str]:
    """Image inputs of a description -> colour space."""
    images = (feature for feature in features if feature.type.WhichOneof("Type") == "imageType")
    return {feature.name: _COLOUR_SPACES.get(feature.type.imageType.colorSpace, "") for feature in images}


def as_variable(name: str, given: Tensor, images: Mapping[str, str]) -> Tensor:
    """An input as the program's variable: pixels ``[1, H, W, C]`` of an image become float32 ``[1, C, H, W]``."""
    space = images.get(name)
    if space is None:
        return given
    pixels = given.permute(0, 3, 1, 2).float()
    return pixels.flip(1) if space == "BGR" else pixels


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
