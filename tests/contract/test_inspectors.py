"""What every inspector promises (:class:`edgekit.core.listing.Inspector`), and what telling two files apart finds."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekit import inspection, registry
from edgekit.core.artifact import Artifact
from edgekit.core.errors import DataError, IntegrityError, UsageError
from edgekit.core.listing import Inspector, Listing
from edgekit.core.run import RunFolder
from edgekit.report import difference as drawn_difference
from edgekit.report import listing as drawn_listing

MACS = 8 * 80 * 27 + 8 * 80 * 9 + 8 * 80 * 8 + 16 * 5
"""Stem, depthwise and pointwise convolution on 8 x 10, and the head."""
FORMATS = ("onnx", "ort", "tflite", "coreml", "pt2")


def file_of(run: RunFolder, name: str, *, precision: str = "int8") -> Path:
    """The small net's file in a format."""
    if name == "pt2":
        return run.compressed / ("program.pt2" if precision == "int8" else "float.pt2")
    target = "onnx" if name == "ort" else name
    artifact = Artifact.load(run.artifacts / (target if precision == "int8" else f"{target}-float32"))
    return artifact.companions["ort"] if name == "ort" else artifact.path


@pytest.fixture(scope="module")
def listings(run: RunFolder) -> dict[str, Listing]:
    return {name: registry.inspectors()[name].inspect(file_of(run, name)) for name in FORMATS}


@pytest.mark.parametrize("name", registry.names("inspectors"))
def test_describes_itself_without_importing_a_framework(name: str) -> None:
    code = (
        "import sys; from edgekit import registry; part = registry.inspectors()[sys.argv[1]];"
        "print(part.name, registry.missing_module(part) or '-', *[m for m in sys.argv[2:] if m in sys.modules])"
    )
    frameworks = ("torch", "onnx", "onnxruntime", "coremltools", "ai_edge_litert")
    done = subprocess.run([sys.executable, "-c", code, name, *frameworks], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [name, "-"]
    assert isinstance(registry.inspectors()[name], Inspector)


@pytest.mark.parametrize("name", FORMATS)
def test_lists_the_file(run: RunFolder, listings: dict[str, Listing], name: str) -> None:
    listing = listings[name]
    assert listing.format == name
    assert [value.shape for value in listing.inputs] == [(1, 3, 16, 20)]
    assert [value.shape for value in listing.outputs] == [(1, 5)]
    assert listing.operations
    assert listing.versions
    assert sum(operation.weight_bytes for operation in listing.operations) <= listing.weight_bytes
    assert listing.bytes_by_dtype["int8"] >= 8 * 27 + 8 * 9 + 8 * 8 + 80
    if name != "ort":
        assert listing.macs == MACS
        assert listing.integer_mac_share == (None if name == "coreml" else 1.0)
    held = {constant.name for constant in listing.constants} | {v.name for o in listing.operations for v in o.outputs}
    held |= {value.name for value in listing.inputs}
    assert {read for operation in listing.operations for read in operation.inputs} <= held


def test_weights_are_the_same_integers_in_every_format(listings: dict[str, Listing]) -> None:
    weights = {
        name: {constant.values for constant in listing.constants if constant.dtype == "int8" and np.prod(constant.shape) >= 64}
        for name, listing in listings.items()
    }
    assert len(weights["pt2"]) == 4
    assert all(found == weights["pt2"] for found in weights.values())


def test_every_layer_of_a_program_names_its_line(listings: dict[str, Listing]) -> None:
    layers = [operation for operation in listings["pt2"].operations if operation.macs]
    assert all(operation.source.startswith("conftest.py:") for operation in layers)
    assert all(operation.weight_bytes for operation in layers)


def test_worker_and_caller_agree(run: RunFolder, listings: dict[str, Listing]) -> None:
    found = inspection.inspect(file_of(run, "tflite"))
    assert found.replace(path="") == listings["tflite"].replace(path="")
    assert "CONV_2D" in str(found._repr_html_())


def test_two_formats_answer_alike(run: RunFolder) -> None:
    found = inspection.diff(file_of(run, "onnx"), file_of(run, "tflite"), sample_count=3)
    assert found.sample_count == 3
    assert found.relations["moved"] >= 2
    assert found.outputs[0].relative < 0.1
    assert "Answers to 3 inputs" in drawn_difference.notebook_html(found)


def test_int8_and_float_differ(run: RunFolder) -> None:
    found = inspection.diff(file_of(run, "onnx"), file_of(run, "onnx", precision="float32"), sample_count=2)
    assert found.operators["QuantizeLinear"][1] == 0
    assert not found.answers_alike
    assert drawn_difference.conclusion(found).startswith("The answers differ by up to")


def test_one_changed_weight_is_found(run: RunFolder, tmp_path: Path) -> None:
    import onnx

    original, altered = file_of(run, "onnx"), tmp_path / "altered.onnx"
    model = onnx.load(original)
    tensor = next(t for t in model.graph.initializer if list(t.dims) == [5, 16])
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[2, 3] += 7 if values[2, 3] < 0 else -7
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, altered)
    found = inspection.diff(original, altered, sample_count=1)
    (change,) = [change for change in found.constants if change.relation == "changed"]
    assert (change.first, change.values, change.differing, change.largest) == (tensor.name, 80, 1, 7.0)
    assert not found.is_identical
    assert found.graph == ()


def test_a_changed_scale_is_found(run: RunFolder, tmp_path: Path) -> None:
    import onnx

    original, altered = file_of(run, "onnx"), tmp_path / "altered.onnx"
    model = onnx.load(original)
    weight = next(t.name for t in model.graph.initializer if list(t.dims) == [5, 16])
    node = next(node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] == weight)
    tensor = next(t for t in model.graph.initializer if t.name == node.input[1])
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(2), tensor.name))
    onnx.save(model, altered)
    found = inspection.diff(original, altered, sample_count=0)
    assert [change.first for change in found.constants if change.relation == "rescaled"] == [weight]
    assert found.outputs == ()


def test_runs_are_compared_artifact_by_artifact(run: RunFolder, tmp_path: Path) -> None:
    small = RunFolder(tmp_path / "small")
    shutil.copytree(run.path, small.path, ignore=shutil.ignore_patterns("onnx*", "coreml*", "saved*", "torch*"))
    found = inspection.diff_runs(run.path, small.path, sample_count=0)
    assert set(found) == {"tflite", "tflite-float32"}
    assert all(difference.is_identical for difference in found.values())
    shutil.rmtree(small.artifacts)
    with pytest.raises(UsageError, match="nothing to compare"):
        inspection.diff_runs(run.path, small.path)


def test_a_damaged_file_is_refused(run: RunFolder, tmp_path: Path) -> None:
    for name in ("onnx", "ort", "tflite", "pt2"):
        whole = file_of(run, name)
        cut = tmp_path / f"cut{whole.suffix}"
        cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        with pytest.raises(IntegrityError, match="cut"):
            inspection.inspect(cut)


def test_what_is_no_model_is_refused(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        inspection.inspect(tmp_path / "nothing.tflite")
    text = tmp_path / "notes.txt"
    text.write_text("hello, this is no model")
    with pytest.raises(IntegrityError, match=r"b'hello, t'.*tflite"):
        inspection.inspect(text)
    with pytest.raises(UsageError, match="run folder"):
        inspection.inspect(run.path)
    np.savez(tmp_path / "odd.npz", a=np.zeros(3), b=np.zeros(4))
    with pytest.raises(DataError, match="lengths"):
        inspection.read_samples(tmp_path / "odd.npz")
    with pytest.raises(DataError, match="npz"):
        inspection.read_samples(text)


def test_wrong_samples_are_named_not_fatal(run: RunFolder) -> None:
    path = file_of(run, "tflite")
    found = inspection.diff(path, path, samples={"picture": np.zeros((1, 3), np.float32)})
    assert "picture" in found.notes[-1]


def test_the_page_of_a_listing_escapes_names(listings: dict[str, Listing]) -> None:
    odd = listings["onnx"].replace(metadata={"<script>": "<b>"})
    shown = drawn_listing.notebook_html(odd)
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
