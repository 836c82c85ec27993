"""Choices of an ONNX export: operator set, weights beside the model, metadata, and what phones would make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekit import golden, pipeline
from edgekit.converters.onnx import CONVERTER
from edgekit.converters.onnx_delivery import move_weights_out
from edgekit.core.artifact import Artifact, ExportOptions
from edgekit.core.compressed import Compressed
from edgekit.core.errors import ContractError, ConversionError, IntegrityError
from edgekit.core.task import Task
from edgekit.runtimes.onnxruntime import RUNTIME


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 64, 3, padding=1)
        self.head = nn.Linear(64, 20)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(image)).mean([2, 3]))


def compressed(recipe: str, net: nn.Module | None = None, shape: tuple[int, ...] = (3, 8, 9)) -> Compressed:
    torch.manual_seed(0)
    samples = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)
    task = Task(name="net", model=net or Net(), example_inputs=samples[:1], calibration=[samples])
    return pipeline.compress(task, recipe=recipe)


@pytest.fixture(scope="module")
def integer() -> Compressed:
    return compressed("int8")


@pytest.fixture(scope="module")
def floats() -> Compressed:
    return compressed("none")


def convert(state: Compressed, folder: Path, **fields: Any) -> Artifact:
    folder.mkdir(exist_ok=True)
    options = ExportOptions.model_validate({"ort": False, **fields})
    artifact = CONVERTER.convert(state, output=folder, options=options)
    artifact = golden.add_selftest(artifact, state.golden, folder=folder)
    artifact.save(folder)
    return Artifact.load(folder)


def load_proto(path: Path) -> Any:
    import onnx

    return onnx.load(path, load_external_data=False)


@pytest.mark.parametrize("opset", [18, 21, 23])
def test_the_opset_is_what_was_asked_for(integer: Compressed, tmp_path: Path, opset: int) -> None:
    artifact = convert(integer, tmp_path, opset=opset)
    assert [(entry.domain, entry.version) for entry in load_proto(artifact.path).opset_import] == [("", opset)]
    assert artifact.contract_report.counts.get("dropped", 0) == 0
    assert artifact.selftest is not None


def test_an_opset_that_has_no_form_is_refused(floats: Compressed, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"cannot be written in ONNX opset 17.*Export with --opset 18 or later"):
        convert(floats, tmp_path, opset=17)
    four_bits = compressed("w4-g32", nn.Sequential(nn.Linear(64, 32), nn.ReLU()), (64,))
    with pytest.raises(ContractError, match=r"need ONNX opset 21, but 20 was asked for"):
        convert(four_bits, tmp_path, opset=20)
    assert load_proto(convert(four_bits, tmp_path).path).opset_import[0].version == 21


def test_options_out_of_range_are_refused() -> None:
    for fields in ({"opset": 16}, {"opset": 24}, {"palette_bits": 5}):
        with pytest.raises(ValueError, match="Input should be"):
            ExportOptions.model_validate(fields)


@pytest.mark.parametrize("kind", ["integer", "floats"])
def test_weights_lie_beside_the_model(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    state = request.getfixturevalue(kind)
    artifact, whole = (convert(state, tmp_path / str(where), external_data=where) for where in (True, False))
    data = artifact.companions["data"]
    assert data == tmp_path / "True" / "model.onnx.data"
    assert artifact.path.stat().st_size < whole.path.stat().st_size
    assert artifact.size_bytes == artifact.path.stat().st_size + data.stat().st_size
    outside = [tensor for tensor in load_proto(artifact.path).graph.initializer if tensor.data_location]
    assert outside
    for tensor in outside:
        fields = {entry.key: entry.value for entry in tensor.external_data}
        assert fields["location"] == "model.onnx.data"  # relative, so that the two can be moved together
        assert int(fields["offset"]) % 64 == 0
    given = {"image": state.golden.inputs["image"][0]}
    answers = [RUNTIME.load(one.path).run(given)["output"] for one in (artifact, whole)]
    np.testing.assert_array_equal(*answers)
    assert len(RUNTIME.read_file(artifact.path, given).constants) == 2


def test_the_digest_covers_the_weights(floats: Compressed, tmp_path: Path) -> None:
    artifact = convert(floats, tmp_path, external_data=True)
    data = artifact.companions["data"]
    raw = bytearray(data.read_bytes())
    raw[-1] ^= 1
    data.write_bytes(raw)
    with pytest.raises(IntegrityError, match=r"model\.onnx\.data is missing or was changed"):
        Artifact.load(tmp_path)
    data.write_bytes(raw[:-8])
    with pytest.raises(IntegrityError, match=r"model\.onnx cannot be read"):
        RUNTIME.load(artifact.path)
    data.unlink()
    with pytest.raises(IntegrityError, match="missing or was changed"):
        Artifact.load(tmp_path)
    with pytest.raises(IntegrityError, match=r"model\.onnx"):
        RUNTIME.load(artifact.path)


def test_weights_outside_the_folder_are_refused(floats: Compressed, tmp_path: Path) -> None:
    artifact = convert(floats, tmp_path / "model", external_data=True)
    model = load_proto(artifact.path)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../model.onnx.data"
    (tmp_path / "model.onnx.data").write_bytes(artifact.companions["data"].read_bytes())
    artifact.path.write_bytes(model.SerializeToString())
    with pytest.raises(IntegrityError, match=r"model\.onnx cannot be read"):
        RUNTIME.load(artifact.path)


def test_small_models_keep_their_weights(tmp_path: Path) -> None:
    state = compressed("none", nn.Linear(4, 2), (4,))
    artifact = convert(state, tmp_path)
    data = move_weights_out(artifact.path)
    assert data.stat().st_size == 0


def test_metadata_is_written(floats: Compressed, tmp_path: Path) -> None:
    artifact = convert(floats, tmp_path, metadata={"author": "Ann Lee", "description": "A net."})
    model = load_proto(artifact.path)
    assert {entry.key: entry.value for entry in model.metadata_props}["author"] == "Ann Lee"
    assert model.doc_string == "A net."
    with pytest.raises(ConversionError, match="'labels' is written by edgekit itself"):
        convert(floats, tmp_path, metadata={"labels": "mine"})


def test_mobile_providers_are_estimated(integer: Compressed, floats: Compressed, tmp_path: Path) -> None:
    notes = convert(integer, tmp_path).notes
    [android] = [note for note in notes if note.startswith("NNAPI execution provider")]
    [apple] = [note for note in notes if note.startswith("Core ML execution provider")]
    assert "estimate" in android
    assert "in 1 partition(s), worth using" in android
    assert "it has no DequantizeLinear, QuantizeLinear" in apple
    assert "worth using." in convert(floats, tmp_path).notes[-1]


def test_ort_can_be_left_out(floats: Compressed, tmp_path: Path) -> None:
    assert convert(floats, tmp_path).companions == {}
    with_ort = convert(floats, tmp_path, ort=True)
    assert set(with_ort.companions) == {"ort", "operators"}
    assert set(with_ort.companions_sha256) == {"ort", "operators"}
    with_ort.companions["ort"].write_bytes(b"other")
    with pytest.raises(IntegrityError, match=r"model\.ort is missing or was changed"):
        Artifact.load(tmp_path)
