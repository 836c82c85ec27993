"""Reading packages: what they hold, and every way they can be damaged."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.core.artifact import Artifact
from edgekit.core.errors import EdgekitError, IntegrityError, MissingExtraError, UnsupportedOpError
from edgekit.runtimes.coreml import messages
from edgekit.runtimes.coreml.messages import model_messages
from edgekit.runtimes.coreml.package import model_file, read_package
from edgekit.runtimes.coreml.reference import RUNTIME


@pytest.fixture(scope="session")
def original(export_package: Callable[..., tuple[object, Artifact]]) -> Path:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 16, 4))
    return export_package(model, np.zeros((1, 3, 8, 8), np.float32))[1].path


@pytest.fixture
def package(original: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    copy = tmp_path / "model.mlpackage"
    shutil.copytree(original, copy)
    return copy


def weight_file(package: Path) -> Path:
    return next(package.rglob("weight.bin"))


def edit(package: Path, change: Callable[[object], None]) -> None:
    file = model_file(package)
    model = model_messages().Model()
    model.ParseFromString(file.read_bytes())
    change(model)
    file.write_bytes(model.SerializeToString())


def test_program_has_names_types_and_weights(original: Path) -> None:
    program = read_package(original)
    assert [(spec.name, spec.shape, spec.dtype) for spec in program.inputs] == [("input", (1, 3, 8, 8), "float32")]
    assert [(spec.name, spec.shape, spec.dtype) for spec in program.outputs] == [("output", (1, 4), "float32")]
    assert program.opset == "CoreML7"
    kinds = [operation.type for operation in program.operations]
    assert kinds.count("conv") == 2
    assert kinds.count("linear") == 1
    assert kinds.count("constexpr_affine_dequantize") == 3
    assert "const" not in kinds
    quantize = next(operation for operation in program.operations if operation.type == "quantize")
    assert quantize.outputs[0].dtype in {"int8", "uint8"}
    assert program.constants[str(quantize.inputs["scale"][0])].dtype == np.float32


def test_reading_needs_no_framework(original: Path) -> None:
    code = (
        "import sys, pathlib; from edgekit.runtimes.coreml.package import read_package;"
        "read_package(pathlib.Path(sys.argv[1])); print([m for m in ('torch', 'coremltools', 'tensorflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(original)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_missing_extra_names_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    model_messages.cache_clear()
    monkeypatch.delitem(sys.modules, "coremltools.proto.Model_pb2", raising=False)
    monkeypatch.setattr(messages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'edgekit\[coreml\]'"):
        model_messages()


ROOT = '{"itemInfoEntries": {"x": {"path": "%s"}}, "rootModelIdentifier": "x"}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"itemInfoEntries": {}, "rootModelIdentifier": "x"}',
        '{"itemInfoEntries": "", "rootModelIdentifier": 0}',
        "\udcff",
        ROOT % ("a" * 5000),  # too long for a file system
        ROOT % r"\ud800",  # no text
        "[" * 100_000,
    ],
    ids=lambda text: text[:20],
)
def test_broken_manifest(package: Path, text: str) -> None:
    (package / "Manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(IntegrityError, match=r"Manifest\.json is damaged"):
        read_package(package)


def test_not_a_package(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="is no Core ML package"):
        read_package(tmp_path / "nothing.mlpackage")


@pytest.mark.parametrize("path", ["../../elsewhere.mlmodel", "/etc/hostname"])
def test_manifest_that_leads_outside_is_not_followed(package: Path, path: str) -> None:
    (package / "Manifest.json").write_text(json.dumps({"itemInfoEntries": {"a": {"path": path}}, "rootModelIdentifier": "a"}))
    with pytest.raises(IntegrityError, match="outside the package"):
        read_package(package)


def test_missing_files_are_named(package: Path) -> None:
    weight_file(package).unlink()
    with pytest.raises(IntegrityError, match=r"weight.bin.*does not exist"):
        read_package(package)
    model_file(package).unlink()
    with pytest.raises(IntegrityError, match=r"model.mlmodel.*does not exist"):
        read_package(package)


def test_weights_outside_the_package_are_not_read(package: Path) -> None:
    def change(model: object) -> None:
        function = model.mlProgram.functions["main"]  # type: ignore[attr-defined]
        for operation in function.block_specializations[function.opset].operations:
            for value in operation.attributes.values():
                if value.WhichOneof("value") == "blobFileValue":
                    value.blobFileValue.fileName = "@model_path/../../../../weight.bin"

    edit(package, change)
    with pytest.raises(IntegrityError, match="outside its package"):
        read_package(package)


@pytest.mark.parametrize("length", [0, 40, 100, 400])
def test_truncated_weights(package: Path, length: int) -> None:
    file = weight_file(package)
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(IntegrityError, match=r"weight.bin"):
        read_package(package)


def test_overwritten_weight_record(package: Path) -> None:
    file = weight_file(package)
    data = bytearray(file.read_bytes())
    data[64:68] = b"\0\0\0\0"
    file.write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match="marker 0x0"):
        read_package(package)


def test_other_kinds_of_model_are_named(package: Path) -> None:
    edit(package, lambda model: model.neuralNetwork.SetInParent())  # type: ignore[attr-defined]
    with pytest.raises(UnsupportedOpError, match=r"kind 'neuralNetwork', the form used before iOS 15; .* runs ML programs"):
        read_package(package)


def test_images_without_a_colour_space_are_named(package: Path) -> None:
    edit(package, lambda model: model.description.input[0].type.imageType.SetInParent())  # type: ignore[attr-defined]
    with pytest.raises(UnsupportedOpError, match="image 'input' has colour space 0; only GRAYSCALE, RGB, BGR"):
        read_package(package)


def test_mutated_bytes_give_an_error_or_a_program(package: Path) -> None:
    """Whatever the bytes, reading and compiling either works or raises an error of edgekit's own."""
    rng, file = np.random.default_rng(0), model_file(package)
    good, refused = file.read_bytes(), 0
    for _ in range(200):
        data = np.frombuffer(good, np.uint8).copy()
        where = rng.integers(0, data.size, rng.integers(1, 6))
        data[where] = rng.integers(0, 256, where.size)
        file.write_bytes(data.tobytes()[: rng.integers(1, data.size) if rng.random() < 0.2 else None])
        try:
            RUNTIME.load(package)
        except EdgekitError as reason:
            assert str(package) in str(reason)
            refused += 1
    assert refused > 50
