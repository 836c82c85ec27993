"""Keras 3 (``.keras``): read with the torch backend, traced, and brought into the form a plain ``nn.Module`` would have.

Keras keeps pictures as ``[N, H, W, C]``: the model's inputs and outputs stay so, while convolutions in between become torch's
own (:mod:`~edgekit.converters.sources.channels`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.converters.sources.archives import check_archive
from edgekit.core.errors import CaptureError, IntegrityError, UnsupportedOpError
from edgekit.core.file_kinds import KERAS, kind_of
from edgekit.core.source import ImportedModel, OpenInput, SourceOptions, read_samples, settle_inputs

if TYPE_CHECKING:
    import torch

__all__ = ["SOURCE", "KerasSource"]


class KerasSource:
    """A model as ``model.save("model.keras")`` writes it."""

    name = "keras"
    extra = "tensorflow"
    modules = ("keras", "torch")
    hides = ("tensorflow", "jax", "coremltools", "onnx", "onnxruntime", "litert_torch", "ai_edge_litert")

    def recognises(self, path: Path) -> bool:
        """Whether the file is a zip with a Keras configuration."""
        return path.suffix == ".keras" and path.is_file() and kind_of(path) is KERAS

    def read(self, path: Path, *, options: SourceOptions) -> ImportedModel:
        """Read the model and trace it.

        Raises:
            IntegrityError: The archive is damaged or hostile, or a layer holds Python code.
            UnsupportedOpError: A layer's class is not known to Keras.
            UsageError: Shapes are missing.
        """
        from edgekit.converters.sources.cleaning import clean
        from edgekit.converters.sources.trace import output_specs, trace_module

        check_archive(path)
        os.environ["KERAS_BACKEND"] = "torch"
        model = _load(path)
        if not getattr(model, "inputs", None):
            raise CaptureError(
                f"{path} holds a subclassed model that does not say what its inputs are. Write it with model.export('folder'),"
                " which makes a SavedModel, and export that."
            )
        inputs, notes = settle_inputs(_declared(model), options=options, where=str(path))
        program, _ = trace_module(_positional(model), inputs, where=str(path))
        arguments = program.example_inputs[0] if program.example_inputs else ()
        program = clean(program, arguments)
        outputs = output_specs(program, arguments, _output_names(model))
        return ImportedModel(
            program=program, inputs=inputs, outputs=outputs, samples=read_samples(options, inputs), notes=tuple(notes)
        )


SOURCE = KerasSource()


def _load(path: Path) -> Any:
    import keras

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as reason:
        words = str(reason)
        first = next((line.strip() for line in words.splitlines() if line.strip()), "")
        if "lambda" in words.lower():
            raise IntegrityError(
                f"{path} has a layer that holds Python code (a Lambda): reading it would run what the file's author wrote. Write"
                " that layer with keras.ops or as a class of your own, and save the model with model.export('folder')."
            ) from reason
        if "Could not locate class" in words or "unknown" in words.lower() or "custom_objects" in words:
            raise UnsupportedOpError(
                f"{path}: {first} Classes of your own are not in the file: write the model with model.export('folder'), which"
                " makes a SavedModel of operators alone, and export that."
            ) from reason
        raise IntegrityError(
            f"{path} is no model Keras {keras.__version__} can read: {type(reason).__name__}: {first}"
        ) from reason


def _declared(model: Any) -> list[OpenInput]:
    return [OpenInput(name=str(one.name), shape=tuple(one.shape), dtype=str(one.dtype)) for one in model.inputs]


def _output_names(model: Any) -> list[str]:
    """The layers that make the outputs; numbered where one makes several."""
    names = [str(one._keras_history.operation.name) for one in model.outputs]
    return [name if names.count(name) == 1 else f"{name}_{names[:at].count(name)}" for at, name in enumerate(names)]


def _positional(model: Any) -> torch.nn.Module:
    import keras
    import torch

    class Positional(torch.nn.Module):
        """Takes the inputs in order and returns a tensor or a flat tuple, however the model nests them."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *arrays: torch.Tensor) -> Any:
            given = arrays[0] if len(arrays) == 1 else keras.tree.pack_sequence_as(model.input, list(arrays))
            result = keras.tree.flatten(self.model(given, training=False))
            return result[0] if len(result) == 1 else tuple(result)

    return Positional().eval()
