"""A net of two layers in int8 and float32, written by hand, and job folders with it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest

from edgekit.core.artifact import Artifact
from edgekit.core.files import sha256, size_bytes
from edgekit.core.profile import DeviceProfile
from edgekit.core.tensors import TensorSpec
from edgekit.device_tests.arrays import write_arrays
from edgekit.device_tests.jobs import Job
from edgekit.runtimes.native.build import build_runner, missing_tools
from tests.runtimes.native import tflite_models

RNG = np.random.default_rng(0)
SIGNALS = RNG.standard_normal((7, 3, 6), np.float32)
PICTURES = RNG.standard_normal((7, 9, 8, 3), np.float32)
RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert"}
MakeJob = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def _runner() -> None:
    if missing := missing_tools():
        pytest.skip(f"edgekit-runner cannot be built here: {', '.join(missing)} not found; apt-get install cmake g++ make")
    build_runner()


def int8_onnx(folder: Path, *, batch: int) -> Artifact:
    """Float edges, an int8 convolution within: QuantizeLinear, QLinearConv, DequantizeLinear, and a mean over time."""
    make = onnx.helper.make_node
    constants = {
        "s": np.float32(0.03), "z": np.uint8(128), "sw": np.float32(0.01), "zw": np.int8(0), "sy": np.float32(0.05),
        "w": RNG.integers(-127, 128, (4, 3, 3), np.int8), "b": RNG.integers(-500, 500, 4, np.int32),
    }  # fmt: skip
    nodes = [
        make("QuantizeLinear", ["x", "s", "z"], ["q"]),
        make("QLinearConv", ["q", "s", "z", "w", "sw", "zw", "sy", "z", "b"], ["c"], pads=[1, 1]),
        make("DequantizeLinear", ["c", "sy", "z"], ["d"]),
        make("ReduceMax", ["d", "axes"], ["y"], keepdims=0),
    ]
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes, "net", [info("x", 1, (batch, 3, 6))], [info("y", 1, (batch, 4))],
        [onnx.numpy_helper.from_array(np.asarray(value), key) for key, value in {**constants, "axes": np.array([2])}.items()],
    )  # fmt: skip
    path = folder / "model.onnx"
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    specs = {"x": (batch, 3, 6), "y": (batch, 4)}
    given, found = (TensorSpec(name=name, shape=shape, dtype="float32") for name, shape in specs.items())
    return artifact_of(path, target="onnx", given=given, found=found)


def int8_tflite(folder: Path) -> Artifact:
    """Integer edges: what is fed must be put on the file's grid, and what comes out taken from it."""
    path = folder / "net.tflite"
    path.write_bytes(tflite_models.int8_net())
    given = TensorSpec(name="image", shape=(1, 9, 8, 3), dtype="int8", scale=0.03, zero_point=-5)
    found = TensorSpec(name="scores", shape=(1, 16), dtype="int8", scale=0.011, zero_point=-100)
    return artifact_of(path, target="tflite", given=given, found=found)


def artifact_of(path: Path, *, target: str, given: TensorSpec, found: TensorSpec) -> Artifact:
    return Artifact(
        target=target, path=path, sha256=sha256(path), size_bytes=size_bytes(path), precision="int8",
        inputs=(given,), outputs=(found,),
    )  # fmt: skip


@pytest.fixture
def nets(tmp_path: Path) -> dict[str, Artifact]:
    """Target -> a net of it; ``"onnx-batch"``: one that takes four samples at once."""
    folders = {name: tmp_path / "nets" / name for name in ("onnx", "onnx-batch", "tflite")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    return {
        "onnx": int8_onnx(folders["onnx"], batch=1),
        "onnx-batch": int8_onnx(folders["onnx-batch"], batch=4).replace(variant="batch"),
        "tflite": int8_tflite(folders["tflite"]),
    }


@pytest.fixture
def make_job(tmp_path: Path) -> MakeJob:
    """Makes a job folder of artifacts, with golden and evaluation inputs that fit the first."""

    def make(name: str, *artifacts: Artifact, **fields: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for artifact in artifacts:
            (folder / artifact.label).mkdir()
            shutil.copy(artifact.path, folder / artifact.label)
        (spec,) = artifacts[0].inputs
        samples = SIGNALS if artifacts[0].target == "onnx" else PICTURES
        golden = np.stack([np.roll(samples, number, 0)[: spec.shape[0]] for number in range(3)])
        write_arrays(folder / "golden.npz", {spec.name: golden})
        write_arrays(folder / "evaluation.npz", {spec.name: samples})
        shipped = tuple(one.replace(path=Path(one.label, one.path.name)) for one in artifacts)
        given = {"kind": "answers", "runtime": RUNTIMES[artifacts[0].target], "threads": 1, "what": f"running {name}"}
        Job(artifacts=shipped, **(given | fields)).write_json(folder / "job.json")  # type: ignore[arg-type]
        return folder

    return make


@pytest.fixture
def here() -> DeviceProfile:
    """This machine, as a device without Python."""
    runtimes = {"onnx": {"runtime": "native-onnx"}, "tflite": {"runtime": "native-tflite"}}
    return DeviceProfile.parse({"name": "here", "title": "Here", "runtimes": runtimes, "timeout_s": 60}, source="test")
