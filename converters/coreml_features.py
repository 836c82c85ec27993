"""What kind of values a Core ML package is given and gives: arrays, images, and the name of a class.

An image input takes what a camera or a photo library gives; Core ML scales it to the input's size and brings it into the
input's colour space. In an ML program coremltools writes an image's scale and bias as operations of the graph. The declared
normalisation is part of the graph already when it comes here, value by value as declared, so scale is 1 and bias 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgekit.converters.coreml_shapes import shape_of
from edgekit.core.errors import ConversionError
from edgekit.core.preprocessing import ImagePreprocessing, read_preprocessing

if TYPE_CHECKING:
    import torch

    from edgekit.core.artifact import ExportOptions
    from edgekit.core.compressed import Compressed
    from edgekit.core.tensors import TensorSpec

__all__ = ["CLASS_FEATURE", "class_labels", "image_inputs", "input_types", "with_image_entries"]

CLASS_FEATURE = "classLabel"
"""Output that names the most likely class; what Xcode's templates call it."""


def image_inputs(compressed: Compressed, options: ExportOptions) -> tuple[str, ...]:
    """Names of the inputs that become images.

    Raises:
        ConversionError: Images were asked for, and an input takes several at once or none of them is a picture.
    """
    if not options.image_inputs:
        return ()
    records = read_preprocessing(compressed.record.baked)
    names = tuple(name for name, record in records.items() if isinstance(record, ImagePreprocessing))
    if not names:
        raise ConversionError(
            f"'{compressed.name}' has no input that is declared as a picture, so none can be an image. Declare it with"
            " Task(preprocessing=edgekit.ImagePreprocessing(...)), or export without image inputs."
        )
    for spec in compressed.record.inputs:
        if spec.name in names and spec.shape[0] != 1:
            raise ConversionError(
                f"Input '{spec.name}' takes {spec.shape[0]} pictures at once; a Core ML image is one. Capture the model with a"
                " batch of 1, or export without image inputs."
            )
    return names


def with_image_entries(compressed: Compressed, names: Sequence[str]) -> Compressed:
    """The program with ``float32 [1, C, H, W]`` where the named inputs were ``uint8 [1, H, W, C]``: what images arrive as."""
    if not names:
        return compressed
    import torch

    from edgekit.converters.program_edit import ProgramEdit

    edit = ProgramEdit(compressed.program)
    for spec, node in zip(compressed.record.inputs, compressed.program.graph_signature.user_inputs, strict=True):
        if spec.name in names:
            shape = (spec.shape[0], spec.shape[3], *spec.shape[1:3])
            edit.feed(str(node), torch.zeros(shape), _ChannelsLast())
    return dataclasses.replace(compressed, program=edit.finish())


class _ChannelsLast:
    """Front of an image entry: the axes the program's own front expects."""

    constants: list[torch.Tensor] = []

    def build(self, raw: torch.Tensor, *constants: torch.Tensor) -> torch.Tensor:
        del constants
        return raw.permute(0, 2, 3, 1)


def input_types(specs: Sequence[TensorSpec], images: Sequence[str]) -> list[Any]:
    """The description coremltools wants of each input."""
    import coremltools
    import numpy as np

    found: list[Any] = []
    for spec in specs:
        if spec.name in images:
            batch, height, width, channels = spec.shape
            colours = coremltools.colorlayout.GRAYSCALE if channels == 1 else coremltools.colorlayout.RGB
            found.append(
                coremltools.ImageType(name=spec.name, shape=(batch, channels, height, width), color_layout=colours, scale=1.0)
            )
        else:
            found.append(coremltools.TensorType(name=spec.name, shape=shape_of(spec), dtype=np.dtype(spec.dtype).type))
    return found


def class_labels(compressed: Compressed, options: ExportOptions) -> Any:
    """The configuration of a classifier; None where no class labels were asked for.

    Raises:
        ConversionError: The task has no labels, or no single output has one value for each.
    """
    if not options.class_labels:
        return None
    labels = compressed.record.labels
    if not labels:
        raise ConversionError(
            f"Class labels were asked for, but task '{compressed.name}' has none. Give Task(labels=[...]) and compress again, or"
            " export without class labels."
        )
    if len(set(labels)) < len(labels):
        raise ConversionError(f"The labels of '{compressed.name}' are not all different; Core ML looks classes up by name.")
    fits = [spec for spec in compressed.record.outputs if spec.shape == (1, len(labels)) and spec.dtype == "float32"]
    if len(fits) != 1:
        found = ", ".join(f"'{spec.name}' {list(spec.shape)}" for spec in compressed.record.outputs)
        raise ConversionError(
            f"'{compressed.name}' has {len(labels)} labels, but {'no' if not fits else 'more than one'} output of shape"
            f" [1, {len(labels)}] (outputs: {found}). Give one label for each value of one output."
        )
    import coremltools

    return coremltools.ClassifierConfig(
        list(labels), predicted_feature_name=CLASS_FEATURE, predicted_probabilities_output=fits[0].name
    )
