"""Parity from pixels: what was declared is what a file gets, and every planted mistake ends the export, in each target."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgekit import pipeline, registry
from edgekit.converters import tflite
from edgekit.converters.preparation import prepare
from edgekit.converters.preprocessing import onnx_metadata
from edgekit.converters.preprocessing.baking import baking_notes
from edgekit.converters.preprocessing.tflite_metadata import with_files
from edgekit.converters.tflite_flatbuffer import Graph
from edgekit.core.artifact import Artifact, ExportOptions
from edgekit.core.compressed import Compressed
from edgekit.core.errors import ConversionError
from edgekit.core.preprocessing import ImagePreprocessing, describe
from edgekit.core.preprocessing_evidence import variants
from edgekit.core.task import Task
from edgekit.raw_parity import check_raw_parity
from edgekit.runtimes.coreml.messages import model_messages

TARGETS = ("onnx", "tflite", "coreml")
RECORD = ImagePreprocessing(
    input="image",
    size=(8, 10),
    resize="shorter-side",
    resize_to=12,
    crop="center",
    mean=(0.485, 0.456, 0.406),
    std=(0.25, 0.5, 0.125),
)
WRONG = variants(RECORD)
LABELS = ("cat", "dog", "owl")
Described = Callable[[str], Artifact]


class Net(nn.Module):
    """Answers differently to other colours, places and brightness."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(image)).mean((2, 3)))


def compressed(recipe: str) -> Compressed:
    torch.manual_seed(0)
    pictures = np.random.default_rng(0).integers(0, 256, (8, 14, 17, 3), dtype=np.uint8)
    task = Task(
        name="pets",
        model=Net(),
        example_inputs=np.zeros((1, 3, 8, 10), np.float32),
        calibration=[list(pictures)],
        data="raw",
        preprocessing=RECORD,
        labels=LABELS,
    )
    return pipeline.compress(task, recipe=recipe)


@pytest.fixture(scope="module")
def state() -> Compressed:
    return compressed("none")


@pytest.fixture(scope="module")
def int8() -> Compressed:
    return compressed("int8")


@pytest.fixture(scope="module")
def described(state: Compressed, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Artifact]:
    """Target -> the float file as it should be, made once."""
    return functools.cache(lambda target: converted(state, target, tmp_path_factory.mktemp(target)))


def converted(given: Compressed, target: str, folder: Path, **options: Any) -> Artifact:
    choices = ExportOptions(**options, ort=False)
    made = registry.converter(target).convert(given, output=folder, options=choices)
    return made.replace(options=choices, baked=given.record.baked)


def saying(state: Compressed, **fields: Any) -> Compressed:
    """The same program whose record says something else."""
    return dataclasses.replace(state, record=state.record.replace(**fields))


def resaid(artifact: Artifact, given: Compressed, folder: Path) -> Artifact:
    """A copy of a file with the metadata that another record makes: the model is the same."""
    path = folder / artifact.path.name
    if artifact.target == "onnx":
        model = onnx.load(artifact.path)
        changed = {"preprocessing": json.dumps(given.record.preprocessing), "labels": json.dumps(given.record.labels)}
        changed |= onnx_metadata.image_properties(given.record.preprocessing)
        kept = {entry.key: entry.value for entry in model.metadata_props if not entry.key.startswith("Image.")}
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, {**kept, **changed})
        onnx.save(model, path)
    elif artifact.target == "tflite":
        graph = Graph(artifact.path.read_bytes())
        graph.model.metadata = []
        files = tflite._describe(graph, given, artifact.options)
        path.write_bytes(with_files(graph.to_bytes(), files))
    else:
        shutil.copytree(artifact.path, path)
        file = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
        package = model_messages().Model.FromString(file.read_bytes())
        said = package.description.metadata.userDefined
        said["edgekit.preprocessing"] = json.dumps(given.record.preprocessing)
        said["edgekit.labels"] = json.dumps(given.record.labels)
        file.write_bytes(package.SerializeToString())
    return artifact.replace(path=path)


def prepared(state: Compressed, target: str, **options: Any) -> Compressed:
    return prepare(state, target=target, options=ExportOptions(**options))[0]


@pytest.mark.parametrize("target", TARGETS)
def test_a_described_file_is_fed_as_its_metadata_say(state: Compressed, target: str, described: Described) -> None:
    checked = check_raw_parity(described(target), state)
    assert "3 samples answered as the program does" in checked.notes[-1]


@pytest.mark.parametrize("target", TARGETS)
def test_a_baked_file_takes_pixels_and_makes_the_same_integers(int8: Compressed, target: str, tmp_path: Path) -> None:
    given = prepared(int8, target, preprocessing="bake")
    artifact = converted(given, target, tmp_path, preprocessing="bake")
    assert artifact.inputs[0].shape == (1, 8, 10, 3)
    assert artifact.inputs[0].dtype == ("float32" if target == "coreml" else "uint8")
    assert artifact.contract_report.counts.get("dropped", 0) == 0
    np.testing.assert_array_equal(given.golden.outputs["output"], int8.golden.outputs["output"])
    session = registry.runtime({"onnx": "onnxruntime", "tflite": "litert", "coreml": "coreml-reference"}[target]).load(
        artifact.path
    )
    for pixels, expected in zip(given.golden.inputs["image"], int8.golden.outputs["output"], strict=True):
        np.testing.assert_array_equal(session.run({"image": pixels})["output"], expected)
    check_raw_parity(artifact, int8)


def test_all_pixel_values_are_proven_to_become_the_same_integers(int8: Compressed) -> None:
    (note,) = baking_notes(prepared(int8, "onnx", preprocessing="bake"))
    assert note.startswith("Input 'image': all 768 raw values become the integers")


MISTAKES = {
    "missing": (WRONG["not normalised at all"], "not normalised at all"),
    "double": (WRONG["normalised twice"], "normalised twice"),
    "bgr": (RECORD.replace(colour="bgr"), "channels"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("target", TARGETS)
def test_a_mistake_in_the_metadata_ends_the_export(
    state: Compressed, target: str, mistake: str, described: Described, tmp_path: Path
) -> None:
    record, words = MISTAKES[mistake]
    artifact = resaid(described(target), saying(state, preprocessing=describe(record, ["image"])), tmp_path)
    with pytest.raises(ConversionError, match=f"'{artifact.label}': prepared as its metadata say.*{words}"):
        check_raw_parity(artifact, state)


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("target", TARGETS)
def test_a_mistake_in_the_graph_ends_the_export(state: Compressed, target: str, mistake: str, tmp_path: Path) -> None:
    record, words = MISTAKES[mistake]
    wrong = prepared(saying(state, preprocessing=describe(record, ["image"])), target, preprocessing="bake")
    artifact = converted(wrong, target, tmp_path, preprocessing="bake")
    with pytest.raises(ConversionError, match=f"From raw data, .*It is as if input 'image' were .*{words}"):
        check_raw_parity(artifact, state)


@pytest.mark.parametrize("target", TARGETS)
def test_another_layout_ends_the_export(state: Compressed, target: str, described: Described, tmp_path: Path) -> None:
    turned = saying(state, preprocessing=describe(RECORD.replace(layout="NHWC"), ["image"]))
    with pytest.raises(ConversionError, match=r"the layout \[1, 8, 10, 3\], the file takes \[1, 3, 8, 10\]"):
        check_raw_parity(resaid(described(target), turned, tmp_path), state)


@pytest.mark.parametrize("target", TARGETS)
def test_labels_of_another_model_end_the_export(state: Compressed, target: str, described: Described, tmp_path: Path) -> None:
    artifact = resaid(described(target), saying(state, labels=("cat", "owl", "dog")), tmp_path)
    with pytest.raises(ConversionError, match="number 1 is the first to differ"):
        check_raw_parity(artifact, state)


@pytest.mark.parametrize("target", TARGETS)
def test_a_file_that_says_nothing_ends_the_export(state: Compressed, target: str, described: Described, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="does not say how input 'image' is prepared"):
        check_raw_parity(resaid(described(target), saying(state, preprocessing={}), tmp_path), state)
