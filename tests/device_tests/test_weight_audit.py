"""Decoded weights of a Core ML package beside the float weights they came from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result

from edgekit.converters.coreml import quiet_coremltools
from edgekit.core.errors import UsageError
from edgekit.device_tests.weight_audit import audit_weights, compare_weights

Packages = dict[str, Path]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """``float``, ``sound`` (palettes of 4 bits) and ``corrupt`` (coremltools#2777: 16 channels a group do not divide 120)."""
    folder = tmp_path_factory.mktemp("packages")
    torch.manual_seed(0)
    net, example = torch.nn.Sequential(torch.nn.Linear(128, 120)).eval(), torch.randn(1, 128)
    program = torch.export.export(net, (example,))
    torch.export.save(program, folder / "net.pt2")
    with quiet_coremltools():
        import coremltools
        from coremltools.optimize import coreml

        model = coremltools.convert(
            program.run_decompositions({}), minimum_deployment_target=coremltools.target.iOS18, skip_model_load=True
        )
        grouped = {"granularity": "per_grouped_channel", "enable_per_channel_scale": True}
        kinds = {"sound": {**grouped, "group_size": 8}, "corrupt": {**grouped, "group_size": 16}}
        model.save(str(folder / "float.mlpackage"))
        for name, options in kinds.items():
            config = coreml.OptimizationConfig(global_config=coreml.OpPalettizerConfig(mode="uniform", nbits=4, **options))
            coreml.palettize_weights(model, config=config).save(str(folder / f"{name}.mlpackage"))
    return {name: folder / f"{name}.mlpackage" for name in ("float", *kinds)} | {"program": folder / "net.pt2"}


def test_corruption_by_coremltools_is_caught(packages: Packages) -> None:
    found = audit_weights(packages["corrupt"], packages["program"])
    (weight,) = found.weights
    assert not found.passed
    assert weight.source == "0.weight"
    assert weight.largest_error > weight.largest_value
    assert len(weight.bad_channels) > 8


@pytest.mark.parametrize("name", ["float", "sound"])
@pytest.mark.parametrize("source", ["program", "float"])
def test_sound_packages_pass(packages: Packages, name: str, source: str) -> None:
    found = audit_weights(packages[name], packages[source])
    (weight,) = found.weights
    assert found.passed, weight.problem
    assert weight.snr_db > (15 if name == "sound" else 60)


def test_command_ends_with_the_gate_code(packages: Packages, command_line: Callable[..., Result]) -> None:
    result = command_line(f"audit {packages['corrupt']} --against {packages['program']} --json")
    assert result.exit_code == 1
    assert not json.loads(result.stdout)["passed"]


def test_other_files_are_refused(packages: Packages, tmp_path: Path) -> None:
    other = tmp_path / "model.onnx"
    other.write_bytes(b"")
    with pytest.raises(UsageError, match="cannot be audited by its weights"):
        audit_weights(packages["float"], other)


def test_weights_are_found_in_any_order_of_axes() -> None:
    weight = np.random.default_rng(0).standard_normal((6, 3, 1, 5)).astype(np.float32)
    (found,) = compare_weights({"w": weight}, {"x": np.zeros((6, 15), np.float32), "y": weight.transpose(3, 2, 1, 0)})
    assert (found.stored, found.snr_db, found.problem) == ("y", 200.0, "")
    (missing,) = compare_weights({"w": weight}, {"x": weight[:5]})
    assert missing.problem == "no weight of the file has its sizes"
