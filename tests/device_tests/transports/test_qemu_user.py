"""Real Arm kernels of three cores, emulated: integers are bit for bit those of this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from edgekit.core.artifact import Artifact
from edgekit.core.errors import DeviceError, IntegrityError, ProfileError, WorkerError
from edgekit.core.measurement import Evidence
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.agent import run
from edgekit.device_tests.arrays import read_arrays, write_arrays
from edgekit.device_tests.jobs import Answers, Job
from edgekit.device_tests.profiles import load_profile
from edgekit.device_tests.transports.qemu_user import CORES, QemuUserTransport

ASSETS = Path(os.environ.get("EDGEKIT_ASSETS") or Path(__file__).parents[3] / ".assets")
DEVICES = ("cortex-a53", "cortex-a72", "cortex-a76")
MakeJob = Callable[[str, Path], Path]


def emulated(device: str = "cortex-a72", **fields: Any) -> DeviceProfile:
    return load_profile(device).replace(**fields)


@pytest.fixture
def arm() -> None:
    """What emulation needs."""
    if why := QemuUserTransport.obstacle(load_profile("cortex-a72")):
        pytest.skip(why)


def artifact(path: Path, target: str) -> Artifact:
    """An int8 file as edgekit would describe it, by what the file says of itself."""
    from edgekit import registry
    from edgekit.core.files import sha256, size_bytes

    session = registry.runtime({"onnx": "onnxruntime", "tflite": "litert"}[target]).load(path)
    described = {"inputs": session.inputs, "outputs": session.outputs}
    session.close()
    return Artifact(target=target, path=path, sha256=sha256(path), size_bytes=size_bytes(path), precision="int8", **described)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """The int8 net of the runner's tests, and its like in ONNX."""
    import onnx
    from onnx import helper, numpy_helper

    from tests.runtimes.native import tflite_models

    folder, random, make = tmp_path_factory.mktemp("nets"), np.random.default_rng(0), helper.make_node
    (folder / "net.tflite").write_bytes(tflite_models.int8_net())
    constants = {
        "s": np.float32(0.03), "z": np.uint8(120), "sw": np.float32(0.004), "zw": np.int8(0), "sy": np.float32(0.05),
        "w": random.integers(-127, 128, (16, 3, 3, 3), np.int8), "b": random.integers(-500, 500, 16, np.int32),
    }  # fmt: skip
    nodes = [
        make("QuantizeLinear", ["x", "s", "z"], ["q"]),
        make("QLinearConv", ["q", "s", "z", "w", "sw", "zw", "sy", "z", "b"], ["c"], pads=[1, 1, 1, 1]),
        make("DequantizeLinear", ["c", "sy", "z"], ["y"]),
    ]
    edges = [helper.make_tensor_value_info(name, 1, shape) for name, shape in (("x", (1, 3, 9, 8)), ("y", (1, 16, 9, 8)))]
    stored = [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, "net", edges[:1], edges[1:], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), folder / "net.onnx")
    return {target: artifact(folder / f"net.{target}", target) for target in ("onnx", "tflite")}


def make_job(folder: Path, one: Artifact) -> Path:
    (folder / one.label).mkdir(parents=True)
    shutil.copy(one.path, folder / one.label)
    (spec,) = one.inputs
    samples = np.random.default_rng(1).standard_normal((6, *spec.shape), np.float32)
    write_arrays(folder / "golden.npz", {spec.name: samples[:2]})
    write_arrays(folder / "evaluation.npz", {spec.name: samples[2:, 0]})
    runtime = {"onnx": "onnxruntime", "tflite": "litert"}[one.target]
    shipped = one.replace(path=Path(one.label, one.path.name))
    Job(kind="answers", what="testing", runtime=runtime, threads=1, artifacts=(shipped,)).write_json(folder / "job.json")
    return folder


@pytest.mark.usefixtures("arm")
@pytest.mark.parametrize("target", ["onnx", "tflite"])
def test_integers_on_three_cores_are_those_of_this_machine(files: dict[str, Artifact], target: str, tmp_path: Path) -> None:
    here = make_job(tmp_path / "here", files[target])
    run(str(here))
    expected = read_arrays(here / "outputs.npz")
    for device in DEVICES:
        job = make_job(tmp_path / device, files[target])
        transport = QemuUserTransport(load_profile(device))
        transport.run_agent(job, timeout_s=120)
        transport.close()
        found = read_arrays(job / "outputs.npz")
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            assert len(np.unique(array)) > 10  # a net that answers
            assert found[name].tobytes() == array.tobytes(), (device, name)
        assert Answers.read_json(job / "result.json").runtime_version
    assert not list(tmp_path.glob("*/.errand-*"))


@pytest.mark.usefixtures("arm")
def test_a_damaged_file_and_a_lack_of_time_are_errors(files: dict[str, Artifact], tmp_path: Path) -> None:
    transport = QemuUserTransport(load_profile("cortex-a53"))
    job = make_job(tmp_path / "damaged", files["tflite"])
    (job / "tflite" / "net.tflite").write_bytes(b"\0\0\0\0TFL3" + bytes(64))
    with pytest.raises(IntegrityError, match="is not a model LiteRT can read"):
        transport.run_agent(job, timeout_s=60, log=tmp_path / "log.txt")
    assert "is not a model" in (tmp_path / "log.txt").read_text()
    with pytest.raises(WorkerError, match="on an emulated Arm Cortex-A53 took more than 0 s"):
        transport.run_agent(make_job(tmp_path / "long", files["onnx"]), timeout_s=0.1)
    assert not [one for one in psutil.Process().children(recursive=True) if "qemu-aarch64" in one.name()]


@pytest.mark.usefixtures("arm")
def test_the_facts_say_that_it_is_emulated() -> None:
    facts = QemuUserTransport(load_profile("cortex-a76")).facts()
    assert facts["processor"] == "Arm Cortex-A76, emulated"
    assert facts["architecture"] == "aarch64"
    assert facts["emulator"].startswith("qemu-aarch64 version")
    assert "asimddp" in facts["instructions"].split()


def test_profiles_of_cores_are_emulated_and_never_measured() -> None:
    for device in DEVICES:
        profile = load_profile(device)
        assert {choice.evidence for choice in profile.runtimes.values()} == {Evidence.EMULATED}
        assert profile.connection["cpu"] in CORES
        assert "emulated" in profile.title


def test_what_the_profile_may_not_say() -> None:
    runtimes = load_profile("cortex-a72").runtimes
    measured = {"onnx": runtimes["onnx"].replace(evidence=Evidence.MEASURED)}
    for fields, words in (
        ({"runtimes": measured}, "calls its numbers for 'onnx' measured, but the transport 'qemu-user' emulates"),
        ({"connection": {"cpu": "cortex-a73"}}, "connection.cpu is 'cortex-a73'; known: .*Did you mean 'cortex-a7"),
        ({"connection": {"cpu": "max"}}, "LiteRT computes wrong integers"),
        ({"connection": {"cpus": "cortex-a53"}}, "sets connection.cpus, which the transport 'qemu-user' does not know.*'cpu'"),
        ({"memory_limit_bytes": 10**9}, "cannot be held"),
    ):
        with pytest.raises(ProfileError, match=words):
            QemuUserTransport(emulated(**fields))
        assert QemuUserTransport.obstacle(emulated(**fields))


def test_what_is_missing_here_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nowhere = emulated(connection={"root": str(tmp_path)})
    assert "which holds no lib/ld-linux-aarch64.so.1" in QemuUserTransport.obstacle(nowhere)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "ld-linux-aarch64.so.1").touch()
    assert "install Debian 'qemu-user-static'" in QemuUserTransport.obstacle(nowhere)
    with pytest.raises(DeviceError, match="qemu-user-static"):
        QemuUserTransport(nowhere)
