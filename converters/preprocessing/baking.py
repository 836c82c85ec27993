"""Make the declared preprocessing part of a program: the artifact then takes raw pixels ``[N, H, W, C]`` or samples.

Quantized programs keep their contract: what is put in front is float arithmetic before the input's own quantize node.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from edgekit.converters.preprocessing.prefix import Prefix
from edgekit.converters.program_edit import ProgramEdit
from edgekit.core.compressed import Compressed, Golden
from edgekit.core.errors import ConversionError
from edgekit.core.preprocessing import ImagePreprocessing, Preprocessing, read_preprocessing
from edgekit.core.program import answer_samples
from edgekit.core.tensors import TensorSpec

if TYPE_CHECKING:
    from edgekit.core.artifact import ExportOptions
    from edgekit.core.tensors import Array

__all__ = ["bake", "baking_notes"]

RawDType = Literal["float32", "uint8", "int16"]

_TIE = 1e-4
"""Steps of the input's grid. Four float32 operations move a value by at most a third of that."""


def bake(compressed: Compressed, *, target: str, options: ExportOptions) -> Compressed:
    """The program with its preprocessing in front, as the options ask; itself where they ask for a description only.

    Args:
        compressed: Any compressed program.
        target: Name of the converter. Core ML has no inputs of bytes but images: else it is given whole numbers as float32.
        options: ``preprocessing="bake"``, or ``image_inputs`` (Core ML).

    Raises:
        ConversionError: The task declares no preprocessing that edgekit can apply.
    """
    images = options.image_inputs and target == "coreml"
    if options.preprocessing != "bake" and not images:
        return compressed
    records = read_preprocessing(compressed.record.preprocessing)
    if not records:
        raise ConversionError(
            f"Task '{compressed.name}' declares no preprocessing that can be part of the file. Declare it with"
            " Task(preprocessing=edgekit.ImagePreprocessing(...)), or export with preprocessing='describe'."
        )
    if options.preprocessing != "bake":
        records = {name: record for name, record in records.items() if isinstance(record, ImagePreprocessing)}
    edit = ProgramEdit(compressed.program)
    specs, remaining, inputs = {}, dict[str, Preprocessing](), dict(compressed.golden.inputs)
    for name, record in records.items():
        floats = target == "coreml" and not (images and isinstance(record, ImagePreprocessing))
        left, spec = _raw_input(compressed, record, floats=floats)
        prefix = Prefix(record, framing=_takes_framing(record))
        edit.feed(_node_of(compressed, name), torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype)), prefix)
        remaining[name], specs[name] = left, spec
        inputs[name] = _raw_samples(record, left, inputs[name], compressed.golden.raw.get(name))
    program = edit.finish()
    outputs = answer_samples(program, inputs, [spec.name for spec in compressed.record.outputs])
    described = {**compressed.record.preprocessing, **{name: left.model_dump(mode="json") for name, left in remaining.items()}}
    record_of_all = compressed.record.replace(
        inputs=tuple(specs.get(spec.name, spec) for spec in compressed.record.inputs),
        preprocessing=described,
        baked={name: record.model_dump(mode="json") for name, record in records.items()},
    )
    return dataclasses.replace(compressed, program=program, record=record_of_all, golden=Golden(inputs=inputs, outputs=outputs))


def _takes_framing(record: Preprocessing) -> bool:
    return isinstance(record, ImagePreprocessing) and record.raw_size is not None and record.frames


def _raw_input(compressed: Compressed, record: Preprocessing, *, floats: bool) -> tuple[Preprocessing, TensorSpec]:
    """What is left to do outside, and the input as the file will have it."""
    dtype: RawDType = "float32" if floats else "int16" if record.raw_dtype == "int16" else "uint8"
    dtype = "float32" if record.raw_dtype == "float32" else dtype
    left = record.remaining(dtype=dtype)
    if isinstance(left, ImagePreprocessing) and _takes_framing(record):
        left = left.without_framing()
    batch = next(spec.shape[0] for spec in compressed.record.inputs if spec.name == record.input)
    return left, TensorSpec(name=record.input, shape=(batch, *left.shape), dtype=dtype)


def _raw_samples(record: Preprocessing, left: Preprocessing, prepared: Array, known: Array | None) -> Array:
    """Raw golden inputs: what the prepared ones were made of, or synthetic ones where that is not known."""
    if _takes_framing(record) and known is not None:
        return np.stack([left.prepare(sample) for sample in known])
    if _takes_framing(record) and isinstance(left, ImagePreprocessing):
        return np.stack([_pictures(left, count=prepared.shape[1], seed=seed) for seed in range(len(prepared))])
    return np.stack([left.prepare(record.recover(sample)[0]) for sample in prepared])


def _pictures(left: ImagePreprocessing, *, count: int, seed: int) -> Array:
    """Smooth pictures with a little noise ``[count, H, W, C]``: channels, rows and columns are all different."""
    return left.prepare(left.synthetic(count, seed=seed))


def _node_of(compressed: Compressed, name: str) -> str:
    nodes = zip(compressed.record.inputs, compressed.program.graph_signature.user_inputs, strict=True)
    return next(str(node) for spec, node in nodes if spec.name == name)


def baking_notes(compressed: Compressed) -> tuple[str, ...]:
    """For each baked 8-bit input: do all raw values become the same integers as by preprocessing outside the file?

    Every runtime rounds to the same integer unless a value lies at a rounding tie, which only some of 256 values can.
    """
    declared, notes = read_preprocessing(compressed.record.baked), []
    for entry in compressed.contract.activations:
        record = declared.get(entry.name) if entry.role == "input" else None
        if record is None or record.raw_dtype != "uint8":
            continue
        pixels = np.repeat(np.arange(256, dtype=np.uint8)[:, None], record.channel_count, 1)
        steps = record.normalise(pixels) * (np.float32(1) / np.float32(entry.scale[0]))
        margin = np.abs(np.abs(steps - np.floor(steps)) - 0.5)
        near = int((margin < _TIE).sum())
        notes.append(
            f"Input '{entry.name}': all {steps.size} raw values become the integers that preprocessing outside the file gives;"
            f" the nearest rounding tie is {margin.min():.2g} steps away."
            if not near
            else f"Input '{entry.name}': {near} of {steps.size} raw values lie at a rounding tie and may be one step off."
        )
    return tuple(notes)
