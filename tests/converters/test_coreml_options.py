"""Choices of a Core ML export: palettes that are read back, and metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekit import pipeline
from edgekit.converters.coreml import CONVERTER
from edgekit.converters.coreml_palettes import PaletteWriter, check_palettes, palette_of
from edgekit.converters.coreml_report import load_operations
from edgekit.core.artifact import Artifact, ExportOptions
from edgekit.core.compressed import Compressed
from edgekit.core.errors import ContractError, ConversionError
from edgekit.core.task import Task
from edgekit.runtimes.coreml.reference import RUNTIME


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(32)
        self.head = nn.Linear(32, 40)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.norm(self.conv(image))).mean([2, 3]))


def compressed(recipe: str) -> Compressed:
    torch.manual_seed(0)
    samples = np.random.default_rng(0).normal(size=(8, 3, 8, 9)).astype(np.float32)
    net = Net()
    with torch.no_grad():
        net.norm.weight.copy_(torch.linspace(0.1, 3, 32))
    return pipeline.compress(Task(name="net", model=net, example_inputs=samples[:1], calibration=[samples]), recipe=recipe)


@pytest.fixture(scope="module")
def floats() -> Compressed:
    return compressed("none")


def convert(state: Compressed, folder: Path, **fields: Any) -> Artifact:
    folder.mkdir(exist_ok=True)
    return CONVERTER.convert(state, output=folder, options=ExportOptions.model_validate(fields))


def answers(artifact: Artifact, state: Compressed) -> np.ndarray:
    session = RUNTIME.load(artifact.path)
    return np.stack([session.run({"image": sample})["output"] for sample in state.golden.inputs["image"]])


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
def test_a_palette_is_nearest_and_better_than_equal_steps(bits: int) -> None:
    values = np.random.default_rng(bits).standard_t(4, size=(40, 30)).astype(np.float32)
    table, indices = palette_of(values, bits)
    assert table.shape == (2**bits,)
    assert indices.shape == values.shape
    error = np.abs(values - table[indices])
    np.testing.assert_array_equal(error, np.abs(values[..., None] - table).min(-1))
    equal = np.linspace(values.min(), values.max(), 2**bits + 1)
    middles = (equal[1:] + equal[:-1]) / 2
    assert (error**2).mean() <= (np.abs(values[..., None] - middles).min(-1) ** 2).mean()


def test_few_values_are_kept_exactly() -> None:
    values = np.random.default_rng(0).choice([-1.5, 0.0, 0.25, 7.0], size=(30, 30)).astype(np.float32)
    table, indices = palette_of(values, 4)
    np.testing.assert_array_equal(table[indices], values)
    table, indices = palette_of(np.full((30, 30), 0.5, np.float32), 2)
    assert (table[indices] == 0.5).all()


@pytest.mark.parametrize(("bits", "ios"), [(8, 17), (4, 17), (4, 18), (3, 18)])
def test_weights_are_stored_as_palettes(floats: Compressed, tmp_path: Path, bits: int, ios: int) -> None:
    artifact = convert(floats, tmp_path / "small", palette_bits=bits, minimum_ios_version=ios)
    plain = convert(floats, tmp_path / "plain")
    stored = [one.materialized_val_inference() for one in load_operations(artifact.path) if "lut_to_dense" in one.op_type]
    assert sorted(values.shape for values in stored) == [(32, 3, 3, 3), (40, 32)]
    assert all(len(np.unique(values)) <= 2**bits for values in stored)
    assert any(note.startswith(f"Palettes of {bits} bits for 2 weight(s)") for note in artifact.notes)
    size = [sum(file.stat().st_size for file in one.path.rglob("weight.bin")) for one in (artifact, plain)]
    assert size[0] < size[1]
    off = np.abs(answers(artifact, floats) - answers(plain, floats)).max() / np.abs(answers(plain, floats)).max()
    assert off < {8: 0.02, 4: 0.25, 3: 0.5}[bits]


def test_what_needs_a_later_ios_or_a_float_program_is_said(floats: Compressed, tmp_path: Path) -> None:
    assert "The package needs iOS 18." in convert(floats, tmp_path, palette_bits=3).notes
    with pytest.raises(ContractError, match="Palettes of 3 bits need iOS 18"):
        convert(floats, tmp_path, palette_bits=3, minimum_ios_version=17)
    with pytest.raises(ContractError, match="is for float programs"):
        convert(compressed("int8"), tmp_path, palette_bits=4)


def test_a_corrupt_palette_is_refused(floats: Compressed, tmp_path: Path) -> None:
    """As coremltools#2777 left weights: right in number and shape, wrong in value."""
    artifact = convert(floats, tmp_path, palette_bits=4)
    writer = PaletteWriter(4, 17)
    for operation in load_operations(artifact.path):
        if operation.op_type == "constexpr_lut_to_dense":
            writer.sources[operation.name] = operation.materialized_val_inference().copy()
    assert "worst is 0.00%" in check_palettes(artifact.path, writer)[0]
    first = next(iter(writer.sources))
    writer.sources[first].reshape(-1)[:5] += 10
    with pytest.raises(ConversionError, match=f"Weight '{first}' is wrong"):
        check_palettes(artifact.path, writer)
    writer.sources[first] = writer.sources[first][1:]
    with pytest.raises(ConversionError, match=r"is not in model\.mlpackage as it was stored"):
        check_palettes(artifact.path, writer)


def test_metadata_has_its_places(floats: Compressed, tmp_path: Path) -> None:
    import coremltools

    entries = {"author": "Ann Lee", "license": "MIT", "version": "2.1", "description": "A net.", "ticket": "77"}
    artifact = convert(floats, tmp_path, metadata=entries)
    found = coremltools.utils.load_spec(str(artifact.path)).description.metadata
    assert (found.author, found.license, found.versionString, found.shortDescription) == ("Ann Lee", "MIT", "2.1", "A net.")
    assert found.userDefined["ticket"] == "77"
