"""Self-tests that travel with artifacts: how they are made, and that they notice a changed file."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from edgekit import golden, registry
from edgekit.core.artifact import Artifact
from edgekit.core.compressed import Golden
from edgekit.core.errors import ConversionError, IntegrityError, UsageError, WorkerError
from edgekit.core.files import sha256
from edgekit.core.selftest import SelfTest
from edgekit.core.tensors import TensorSpec


def save_net(path: Path, *, factor: float = 2.0) -> None:
    """``y = factor * x`` as an ONNX file."""
    import onnx
    from onnx import TensorProto, helper

    edges = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    constant = helper.make_tensor("factor", TensorProto.FLOAT, [], [factor])
    graph = helper.make_graph([helper.make_node("Mul", ["x", "factor"], ["y"])], "net", edges[:1], edges[1:], [constant])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def artifact_in(folder: Path, *, factor: float = 2.0, target: str = "onnx") -> Artifact:
    folder.mkdir(exist_ok=True)
    save_net(folder / "model.onnx", factor=factor)
    return Artifact(
        target=target,
        path=folder / "model.onnx",
        sha256=sha256(folder / "model.onnx"),
        size_bytes=(folder / "model.onnx").stat().st_size,
        precision="float32",
        inputs=(TensorSpec(name="x", shape=(1, 4), dtype="float32"),),
        outputs=(TensorSpec(name="y", shape=(1, 4), dtype="float32"),),
    )


def samples(count: int = 5) -> Golden:
    values = np.random.default_rng(0).normal(size=(count, 1, 4)).astype(np.float32)
    return Golden(inputs={"x": values}, outputs={"y": 2 * values})


def make(folder: Path, **fields: object) -> Artifact:
    artifact = golden.add_selftest(artifact_in(folder, **fields), samples(), folder=folder)  # type: ignore[arg-type]
    artifact.save(folder)
    return artifact


def test_it_is_made_of_what_the_artifact_should_answer(tmp_path: Path) -> None:
    artifact = make(tmp_path / "onnx")
    assert artifact.selftest is not None
    record = SelfTest.load(artifact.selftest)
    [output] = record.outputs
    assert record.case_count == 3
    assert record.model == "../model.onnx"
    assert record.model_sha256 == artifact.sha256
    assert record.runtime.startswith("onnxruntime ")
    assert output.measured == 0
    assert output.tolerance == pytest.approx(1e-4 * np.abs(samples(3).outputs["y"]).max())
    assert output.rms_tolerance == output.tolerance / 2
    assert "3 times what was measured with onnxruntime" in record.because


def test_the_measured_difference_widens_the_tolerance(tmp_path: Path) -> None:
    artifact = make(tmp_path / "onnx", factor=2.001)
    assert artifact.selftest is not None
    [output] = SelfTest.load(artifact.selftest).outputs
    assert output.measured is not None
    assert output.measured == pytest.approx(0.0005 * np.abs(samples(3).outputs["y"]).max(), rel=1e-3)
    assert output.tolerance == pytest.approx(3 * output.measured)


def test_a_file_that_was_converted_wrongly_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"converted wrongly.*output 'y' is not the program's \(off by 0.05.*onnxruntime"):
        make(tmp_path / "onnx", factor=2.1)


def test_it_passes_and_notices_another_file(tmp_path: Path) -> None:
    make(tmp_path / "onnx")
    good = golden.selftest(tmp_path / "onnx")
    assert good.passed
    assert good.case_count == 3
    assert good.runtime.startswith("onnxruntime ")
    other = artifact_in(tmp_path / "onnx", factor=2.1)  # a file that says it is the same
    changed = Artifact.read_json(tmp_path / "onnx" / "artifact.json").replace(sha256=other.sha256)
    changed.write_json(tmp_path / "onnx" / "artifact.json")
    bad = golden.selftest(Artifact.load(tmp_path / "onnx"))
    assert not bad.passed
    assert bad.outputs[0].difference == pytest.approx(0.05 * np.abs(samples(3).outputs["y"]).max(), rel=1e-3)


def test_a_changed_self_test_is_no_self_test(tmp_path: Path) -> None:
    artifact = make(tmp_path / "onnx")
    assert artifact.selftest is not None
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "onnx", copy)
    assert Artifact.load(copy).selftest == copy / "selftest"  # it moves with its artifact
    (copy / "selftest" / "0.output.y.bin").write_bytes(bytes(16))
    with pytest.raises(IntegrityError, match="selftest is missing or was changed"):
        Artifact.load(copy)
    shutil.rmtree(copy / "selftest")
    with pytest.raises(IntegrityError, match="selftest is missing or was changed"):
        Artifact.load(copy)


def test_without_a_runtime_the_precision_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "local_runtime", lambda target: None)
    artifact = make(tmp_path / "onnx", factor=2.5)
    assert artifact.selftest is not None
    record = SelfTest.load(artifact.selftest)
    assert record.runtime == ""
    assert record.outputs[0].measured is None
    assert record.outputs[0].tolerance == pytest.approx(1e-4 * np.abs(samples(3).outputs["y"]).max())
    with pytest.raises(UsageError, match="No runtime for target 'onnx'"):
        golden.selftest(artifact)


def test_edges_that_are_not_the_programs_are_said(tmp_path: Path) -> None:
    artifact = artifact_in(tmp_path)
    other = artifact.replace(inputs=(artifact.inputs[0].replace(shape=(4, 1)),))
    made = golden.add_selftest(other, samples(), folder=tmp_path)
    assert made.selftest is None
    assert made.notes == ("Without a self-test: 'x' is [4, 1] in the file and [1, 4] in the program.",)
    with pytest.raises(UsageError, match="carries no self-test"):
        golden.selftest(made)


def test_integers_are_tested_as_integers(tmp_path: Path) -> None:
    artifact = artifact_in(tmp_path)
    grid = TensorSpec(name="y", shape=(1, 4), dtype="int8", scale=0.05, zero_point=3)
    assert golden.fit_outputs({"y": np.array([[0.1, 0, -0.1, 99]], np.float32)}, [grid])["y"].tolist() == [[5, 3, 1, 127]]
    counts = golden.add_selftest(
        artifact.replace(outputs=(TensorSpec(name="y", shape=(1, 4), dtype="int64"),)),
        Golden(inputs={"x": np.zeros((5, 1, 4), np.float32)}, outputs={"y": np.zeros((5, 1, 4), np.int64)}),
        folder=tmp_path,
    )
    assert counts.selftest is not None
    [output] = SelfTest.load(counts.selftest).outputs
    assert output.dtype == "int64"


def test_large_samples_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "_MOST_BYTES", 70)  # two cases of 32 bytes
    artifact = make(tmp_path / "onnx")
    assert artifact.selftest is not None
    assert SelfTest.load(artifact.selftest).case_count == 2


def test_a_runtime_that_crashes_is_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "onnx")
    monkeypatch.setattr(golden, "registry", registry)
    monkeypatch.setattr(golden.worker, "_run", lambda *_, **__: -11)
    with pytest.raises(WorkerError, match=r"running the self-test of onnx-float32 was killed by SIGSEGV"):
        golden.selftest(tmp_path / "onnx")


def test_the_vendors_runtime_comes_before_a_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden.platform, "system", lambda: "Darwin")
    assert golden.local_runtime("coreml") is registry.runtime("coreml")
    monkeypatch.setattr(golden.platform, "system", lambda: "Linux")
    assert golden.local_runtime("coreml") is registry.runtime("coreml-reference")
    assert golden.local_runtime("nothing") is None
    assert golden.local_runtime("tflite") is registry.runtime("litert")  # never what stands for a microcontroller or runs in C++
