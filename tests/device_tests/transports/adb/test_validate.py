"""A whole validation through the real adb client, the carrier and the native runner; the "device" is the labelled test daemon."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper
import pytest

from edgekit import pipeline
from edgekit.core.artifact import Artifact
from edgekit.core.errors import DeviceError
from edgekit.core.files import sha256
from edgekit.core.measurement import Evidence
from edgekit.core.profile import DeviceProfile
from edgekit.core.run import RunFolder
from edgekit.core.task import load_task
from edgekit.device_tests.transports.adb import link as link_module
from edgekit.device_tests.validate import validate_device
from tests.device_tests.adb_daemon.device import MODEL, TestDevice
from tests.runtimes.native.conftest import save_onnx

Profiles = Callable[..., DeviceProfile]
ONNX = {"onnx": {"runtime": "onnxruntime", "evidence": "emulated"}}


def onnx_artifact(bench: Any, precision: str) -> Artifact:
    """The fake target's model as an ONNX file."""
    model = bench.float_model if precision == "float32" else bench.int8_model
    constants = {"w": np.array(model.weight, np.float32), "b": np.array(model.bias, np.float32)}
    nodes = [onnx.helper.make_node("Gemm", ["x", "w", "b"], ["output"])]
    path = save_onnx(
        bench.folder, f"model-{precision}", nodes, {"x": np.zeros((1, 2), np.float32)}, {"output": "float32"}, constants
    )
    like = bench.artifact(precision)
    return like.replace(target="onnx", path=path, sha256=sha256(path), size_bytes=path.stat().st_size)


def test_a_tiny_model_gets_the_verdict_it_gets_here(
    bench: Any, device: TestDevice, profile_of: Profiles, programs: dict[str, str], tmp_path: Path
) -> None:
    there = profile_of(device, runtimes=ONNX, connection=programs)
    here = there.replace(name="here", transport="local", connection={})
    artifacts = [onnx_artifact(bench, precision) for precision in ("int8", "float32")]
    results = [
        validate_device(profile, artifacts=artifacts, **bench.arguments(output=tmp_path / profile.name))
        for profile in (there, here)
    ]
    assert results[0].facts["model"] == MODEL
    for found, expected in zip(results[0].results, results[1].results, strict=True):
        assert found.failure == expected.failure == ""
        assert found.metric == expected.metric
        assert found.outputs == expected.outputs
    assert device.orphans(within_s=3) == []


def test_a_device_that_is_lost_is_no_verdict(
    bench: Any, adb_server: Any, profile_of: Profiles, programs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_FIRST_CONNECT_S", 0.1)
    profile = profile_of(runtimes=ONNX, connection={**programs, "serial": "127.0.0.1:9"})
    with pytest.raises(DeviceError, match=r"cannot be reached at 127.0.0.1:9"):
        validate_device(profile, artifacts=[onnx_artifact(bench, "int8")], **bench.arguments(output=tmp_path / "lost"))
    assert not list((tmp_path / "lost").glob("*.json"))


@pytest.mark.proof
def test_an_int8_model_of_the_pipeline_answers_bit_for_bit_as_here(
    write_task: Callable[..., Path], device: TestDevice, profile_of: Profiles, programs: dict[str, str], tmp_path: Path
) -> None:
    task = load_task(write_task())
    run = RunFolder(tmp_path / "run")
    pipeline.export(pipeline.compress(task, recipe="int8", output=run.path), targets=["onnx"])
    there = profile_of(device, runtimes=ONNX, connection=programs)
    results = []
    for profile in (there, there.replace(name="here", transport="local", connection={})):
        arguments: dict[str, Any] = {"compressed_folder": run.compressed, "task": task, "log": run.log}
        output = run.validation(profile.name)
        results.append(validate_device(profile, artifacts=run.load_artifacts(), output=output, **arguments))
    found, expected = (result.results for result in results)
    assert [one.artifact.label for one in found] == [one.artifact.label for one in expected] == ["onnx"]
    assert found[0].failure == ""
    assert (found[0].metric, found[0].outputs) == (expected[0].metric, expected[0].outputs)
    assert found[0].metric is not None and found[0].metric.sample_count == 32
    assert found[0].measurement("latency") is None, "a clock of the test daemon says nothing about a phone"
    assert not [one for one in found[0].measurements if one.evidence is Evidence.MEASURED and one.name != "size"]
