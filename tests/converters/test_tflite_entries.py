"""Entries of an export's own in a TFLite file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgekit import pipeline
from edgekit.converters.tflite import CONVERTER
from edgekit.core.artifact import ExportOptions
from edgekit.core.task import Task


def test_metadata_is_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    samples = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    task = Task(name="line", model=nn.Linear(6, 3), example_inputs=samples[:1], calibration=[samples])
    options = ExportOptions(metadata={"author": "Ann Lee", "description": "A line."})
    artifact = CONVERTER.convert(pipeline.compress(task, recipe="none"), output=tmp_path, options=options)
    from edgekit.converters.tflite_flatbuffer import Graph

    model = Graph(artifact.path.read_bytes()).model
    entries = {entry.name: bytes(model.buffers[entry.buffer].data) for entry in model.metadata}
    assert entries[b"author"] == b"Ann Lee"
    assert model.description == b"A line."
