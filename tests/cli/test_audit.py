"""``edgekit audit`` passes what an honest export wrote, and names the layer of every change to a file's bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from edgekit.cli.exit_codes import ExitCode
from edgekit.core.artifact import Artifact
from edgekit.core.audit import ArtifactAudit
from edgekit.core.files import sha256
from edgekit.device_tests.audit import audit_in_worker

READERS = {"onnx": "onnxruntime", "tflite": "litert", "coreml": "coreml-reference"}


def recorded(folder: Path) -> None:
    """Write the digest of the changed file into ``artifact.json``, as a tool that rewrites files would."""
    record = Artifact.read_json(folder / "artifact.json")
    record.replace(sha256=sha256(folder / record.path)).write_json(folder / "artifact.json")


def audited(run: Path, target: str) -> ArtifactAudit:
    answer = audit_in_worker(run=str(run), folder=str(run / "artifacts" / target), runtime=READERS[target])
    return ArtifactAudit.parse(answer, source="test")


def edit_onnx(run: Path, change: Callable[[Any, dict[str, Any]], None]) -> ArtifactAudit:
    """Audit the file after ``change(model, initializers by name)``."""
    import onnx

    folder = run / "artifacts" / "onnx"
    model = onnx.load(folder / "model.onnx")
    change(model, {tensor.name: tensor for tensor in model.graph.initializer})
    onnx.save(model, folder / "model.onnx")
    recorded(folder)
    return audited(run, "onnx")


def weight_of(run: Path, target: str, layer: str) -> str:
    [row] = [row for row in audited(run, target).layers if row.layer == layer]
    return row.tensor


@pytest.fixture
def document(command_line: Callable[..., Result], run: Path) -> dict[str, Any]:
    result = command_line(f"audit {run} --json")
    assert result.exit_code == ExitCode.OK, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_an_honest_run_passes(document: dict[str, Any]) -> None:
    assert document["passed"] is True
    audits = {row["label"]: row for row in document["audit"]["artifacts"]}
    assert set(audits) == {"onnx", "tflite", "coreml"}  # the float baselines claim nothing
    for row in audits.values():
        assert [layer["entry"] for layer in row["layers"]] == ["conv.weight", "head.weight"]
        assert [layer["layer"] for layer in row["layers"]] == ["conv", "head"]
        for layer in row["layers"]:
            assert layer["claimed"] == layer["stored"] == "int8 channel"
            assert 40 < layer["snr_db"] < 60  # eight bits
            assert layer["expected_arithmetic"] == "integer" and layer["macs"] > 0
        assert row["stray_dequantize_count"] == 0
        assert row["claimed_mac_share"] == 1.0
        assert row["size_bytes"] > row["floor_bytes"] > 8 * 9 + 4 * 8
    for target in ("onnx", "tflite"):
        assert audits[target]["integer_mac_share"] == 1.0
        assert {layer["arithmetic"] for layer in audits[target]["layers"]} == {"integer"}
    assert audits["coreml"]["integer_mac_share"] is None
    assert {layer["arithmetic"] for layer in audits["coreml"]["layers"]} == {"device"}
    assert {layer["macs"] for layer in audits["onnx"]["layers"]} == {3 * 8 * 3 * 16, 8 * 4}


def test_the_table_names_layers_kernels_and_errors(command_line: Callable[..., Result], run: Path) -> None:
    for target in ("onnx", "coreml"):
        (run / "artifacts" / target / "artifact.json").unlink()
    result = command_line(f"audit {run}")
    assert result.exit_code == ExitCode.OK
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [row[:3] for row in rows if row[:1] in (["conv"], ["head"])] == [
        ["conv", "int8", "channel"],
        ["head", "int8", "channel"],
    ]
    assert "CONV_2D" in result.stdout
    assert "Every file holds what the recipe 'int8' claims." in result.stdout


def test_changed_integers_are_counted_and_named(run: Path) -> None:
    name = weight_of(run, "onnx", "conv")

    def change(_: Any, tensors: dict[str, Any]) -> None:
        values = np.frombuffer(tensors[name].raw_data, np.int8).copy()
        values[:3] = np.where(values[:3] > 0, values[:3] - 1, values[:3] + 1)
        tensors[name].raw_data = values.tobytes()

    found = edit_onnx(run, change)
    assert found.all_problems == ("conv.weight: 3 of 72 stored values are not the contract's",)


def test_changed_scales_are_named(run: Path) -> None:
    import onnx.numpy_helper

    name = weight_of(run, "onnx", "head")

    def change(model: Any, tensors: dict[str, Any]) -> None:
        [node] = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] == name]
        scale = onnx.numpy_helper.to_array(tensors[node.input[1]])
        tensors[node.input[1]].CopyFrom(onnx.numpy_helper.from_array(scale * np.float32(1.01), node.input[1]))

    found = edit_onnx(run, change)
    assert "head.weight: its scales are not the contract's" in found.all_problems
    assert not any("conv.weight" in problem for problem in found.all_problems)


def test_a_layer_left_in_float_is_named(run: Path) -> None:
    import onnx.numpy_helper

    name = weight_of(run, "onnx", "conv")

    def change(model: Any, tensors: dict[str, Any]) -> None:
        [node] = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] == name]
        scale = onnx.numpy_helper.to_array(tensors[node.input[1]])
        integers = onnx.numpy_helper.to_array(tensors[name])
        floats = integers.astype(np.float32) * scale.reshape(-1, *[1] * (integers.ndim - 1))
        model.graph.initializer.append(onnx.numpy_helper.from_array(floats, node.output[0]))
        model.graph.node.remove(node)
        model.graph.initializer.remove(tensors[name])

    found = edit_onnx(run, change)
    [row] = [row for row in found.layers if row.entry == "conv.weight"]
    assert row.stored == "float32" and row.arithmetic == "float"
    assert row.problems == ("the file holds float32 weights: this layer was left in float",)
    assert any(problem.startswith("integer kernels do ") for problem in found.problems)
    assert not [row for row in found.layers if row.problems and row.entry != "conv.weight"]


def test_another_activation_grid_is_named(run: Path) -> None:
    import onnx.numpy_helper

    def change(model: Any, tensors: dict[str, Any]) -> None:
        first = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
        scale = onnx.numpy_helper.to_array(tensors[first.input[1]])
        model.graph.initializer.append(onnx.numpy_helper.from_array(scale * np.float32(2), "twice"))
        for node in model.graph.node:
            if node is first or (node.op_type == "DequantizeLinear" and node.input[0] == first.output[0]):
                node.input[1] = "twice"

    grid, kernels = edit_onnx(run, change).all_problems
    assert grid.startswith("x: quantized as uint8, scale ") and "not as the contract's int8" in grid
    assert kernels.endswith("computed otherwise: conv/conv1d (Conv)")  # its bias no longer lies on s_in * s_w


@pytest.mark.parametrize("target", ["tflite", "coreml"])
def test_changed_bytes_of_other_targets_are_named(run: Path, target: str) -> None:
    from edgekit import registry

    folder = run / "artifacts" / target
    artifact = Artifact.load(folder)
    reader: Any = registry.runtime(READERS[target])
    name = weight_of(run, target, "head")
    [constant] = [one for one in reader.read_file(artifact.path, {}).constants if one.name == name]
    file = next(path for path in (artifact.path, *artifact.path.rglob("*")) if path.is_file() and _holds(path, constant.values))
    other = constant.values.copy()
    other.reshape(-1)[-1] ^= 1
    file.write_bytes(file.read_bytes().replace(constant.values.tobytes(), other.tobytes()))
    recorded(folder)
    assert audited(run, target).all_problems == ("head.weight: 1 of 32 stored values are not the contract's",)


def _holds(path: Path, values: Any) -> bool:
    return values.tobytes() in path.read_bytes()


def test_a_file_that_fails_ends_with_1(command_line: Callable[..., Result], run: Path) -> None:
    for target in ("onnx", "coreml"):
        (run / "artifacts" / target / "artifact.json").unlink()
    folder = run / "artifacts" / "tflite"
    integers = np.concatenate([_integers(run, name) for name in ("conv", "head")])
    path = folder / "model.tflite"
    data = bytearray(path.read_bytes())
    place = data.find(integers[-32:].tobytes())
    assert place > 0
    data[place] ^= 1
    path.write_bytes(data)
    recorded(folder)
    result = command_line(f"audit {run}")
    assert result.exit_code == ExitCode.GATE_MISSED, result.output
    assert "head.weight: 1 of 32 stored values are not the contract's" in result.stdout
    assert "Not what the recipe 'int8' claims: tflite." in result.stdout


def _integers(run: Path, layer: str) -> Any:
    from edgekit.core.compressed import Compressed
    from edgekit.device_tests.claims import read_claims

    claims = read_claims(Compressed.load(run / "compressed"))
    [claim] = [claim for claim in claims.weights if claim.entry.layer == layer]
    return claim.values.reshape(-1)


def test_a_damaged_file_ends_with_5(command_line: Callable[..., Result], run: Path) -> None:
    path = run / "artifacts" / "tflite" / "model.tflite"
    path.write_bytes(path.read_bytes()[:-8])
    result = command_line(f"audit {run}")
    assert result.exit_code == ExitCode.INTEGRITY and "model.tflite has sha256" in " ".join(result.stderr.split())


def test_a_file_of_another_program_ends_with_5(command_line: Callable[..., Result], run: Path) -> None:
    folder = run / "artifacts" / "onnx"
    Artifact.read_json(folder / "artifact.json").replace(source_sha256="0" * 64).write_json(folder / "artifact.json")
    result = command_line(f"audit {run}")
    assert result.exit_code == ExitCode.INTEGRITY and "was made from another program" in " ".join(result.stderr.split())


def test_a_run_without_integers_has_nothing_to_audit(command_line: Callable[..., Result], run: Path) -> None:
    for target in READERS:
        (run / "artifacts" / target / "artifact.json").unlink()
    result = command_line(f"audit {run}")
    assert result.exit_code == ExitCode.USAGE and "float artifacts only" in " ".join(result.stderr.split())
