"""Jobs through the real adb client, the carrier and the native runner, on the labelled test daemon (no Android device)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edgekit.core.artifact import Artifact
from edgekit.core.errors import DeviceError, ProfileError
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.arrays import read_arrays, write_arrays
from edgekit.device_tests.jobs import Job, Timing
from edgekit.device_tests.transports.adb import AdbTransport
from edgekit.device_tests.transports.local import LocalTransport
from tests.device_tests.adb_daemon.device import MODEL, TestDevice
from tests.device_tests.native_agent.conftest import RUNTIMES, int8_onnx, int8_tflite

Profiles = Callable[..., DeviceProfile]
Jobs = Callable[..., Path]
ONNX = {"onnx": {"runtime": "onnxruntime", "evidence": "emulated"}}


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """A convolution on int8 tensors, for each runtime; that of LiteRT has integers at its edges too."""
    folder = tmp_path_factory.mktemp("int8")
    return {"onnx": int8_onnx(folder, batch=1), "tflite": int8_tflite(folder)}


@pytest.fixture
def job(nets: dict[str, Artifact], tmp_path: Path) -> Jobs:
    """``job("answers")``: a folder with golden and evaluation inputs."""

    def make(kind: str, name: str = "job", target: str = "onnx") -> Path:
        folder, net = tmp_path / name, nets[target]
        place = Path("models", net.path.name)
        (folder / "models").mkdir(parents=True)
        shutil.copy(net.path, folder / place)
        (spec,) = net.inputs
        random = np.random.default_rng(1)
        write_arrays(folder / "golden.npz", {spec.name: random.standard_normal((4, *spec.shape), np.float32)})
        if kind == "answers":
            write_arrays(folder / "evaluation.npz", {spec.name: random.standard_normal((50, *spec.shape[1:]), np.float32)})
        plan = {"kind": kind, "what": "int8 on the test device", "runtime": RUNTIMES[target], "threads": 1, "budget_s": 0.05}
        Job(artifacts=(net.replace(path=place),), **plan).write_json(folder / "job.json")
        return folder

    return make


@pytest.fixture
def transport(device: TestDevice, profile_of: Profiles, programs: dict[str, str]) -> Iterator[AdbTransport]:
    transport = AdbTransport(profile_of(device, runtimes=ONNX, connection=programs))
    yield transport
    transport.close()


@pytest.mark.parametrize("target", ["onnx", "tflite"])
def test_answers_are_bit_for_bit_those_of_this_machine(
    transport: AdbTransport, job: Jobs, profile_of: Profiles, device: TestDevice, target: str
) -> None:
    there, here = job("answers", "there", target), job("answers", "here", target)
    transport.run_agent(there, timeout_s=60)
    LocalTransport(profile_of()).run_agent(here, timeout_s=60)
    found, expected = read_arrays(there / "outputs.npz"), read_arrays(here / "outputs.npz")
    assert found.keys() == expected.keys() and len(found) == 2
    for name, array in expected.items():
        assert len(array) == (4 if name.startswith("golden") else 50)
        assert len(np.unique(array)) > 10, "a net that answers"
        assert found[name].dtype == array.dtype and found[name].tobytes() == array.tobytes()
    transport.close()
    assert device.orphans(within_s=2) == []
    assert list((device.data / "edgekit/jobs").iterdir()) == []


def test_models_are_timed_in_the_device(transport: AdbTransport, job: Jobs) -> None:
    folder = job("timing")
    transport.run_agent(folder, timeout_s=60)
    samples = read_arrays(folder / "outputs.npz")
    assert len(samples["onnx/wall_ns"]) >= 5 and (samples["onnx/wall_ns"] > 0).all()
    assert set(Timing.read_json(folder / "result.json").preemption_counts) == {"onnx"}


def test_facts_are_the_devices_own(transport: AdbTransport) -> None:
    facts = transport.facts()
    assert facts["model"] == MODEL
    assert facts["system"] == "Linux", "it claims no Android release"
    assert facts["clusters"] == "big 1, 2850 MHz, schedutil; little 0, 1800 MHz, schedutil"
    assert facts["temperature"] == "41.5 °C (cpu-0-0)"
    assert facts["battery temperature"] == "30.2 °C"


def test_a_cluster_is_turned_into_its_processors(
    device: TestDevice, profile_of: Profiles, programs: dict[str, str], job: Jobs
) -> None:
    folder = job("timing")
    with closing(AdbTransport(profile_of(device, runtimes=ONNX, connection={**programs, "cluster": "little"}))) as transport:
        transport.run_agent(folder, timeout_s=60)
    assert Job.read_json(folder / "job.json").affinity == "0"
    with pytest.raises(ProfileError, match=r"no cluster 'middle' .*big 1, 2850 MHz"):
        AdbTransport(profile_of(device, connection={**programs, "cluster": "middle"})).run_agent(job("timing", "b"), timeout_s=60)


def test_what_cannot_be_tried_says_why(profile_of: Profiles, monkeypatch: pytest.MonkeyPatch) -> None:
    assert AdbTransport.obstacle(profile_of()) == ""
    assert "Did you mean 'serial'" in AdbTransport.obstacle(profile_of(connection={"serail": "x"}))
    monkeypatch.setenv("PATH", "/nowhere")
    assert AdbTransport.obstacle(profile_of()).startswith("no adb client: install Debian's package 'adb'")


def test_android_without_a_runner_of_its_own_is_told_what_to_build(device: TestDevice, profile_of: Profiles, job: Jobs) -> None:
    with pytest.raises(ProfileError, match=r"built with the NDK.*connection.runner"):
        AdbTransport(profile_of(device, runtimes=ONNX)).run_agent(job("answers"), timeout_s=60)


def test_an_emulator_must_not_pass_for_a_phone(profile_of: Profiles, programs: dict[str, str], job: Jobs, tmp_path: Path) -> None:
    device = TestDevice(tmp_path / "device", properties={"ro.boot.qemu": "1", "ro.hardware": "ranchu"})
    try:
        measured = profile_of(device, runtimes={"onnx": {"runtime": "onnxruntime"}}, connection=programs)
        with closing(AdbTransport(measured)) as transport:
            assert transport.facts()["emulator"] == "yes: this is no device"
            with pytest.raises(ProfileError, match=r"is an Android emulator.*evidence = 'emulated' under \[runtimes.onnx\]"):
                transport.run_agent(job("answers"), timeout_s=60)
    finally:
        device.stop()


def test_a_disk_without_room_for_the_library_is_said_to_be_full(
    profile_of: Profiles, programs: dict[str, str], job: Jobs, tmp_path: Path
) -> None:
    device, folder = TestDevice(tmp_path / "device", disk_bytes=4_000_000), job("answers")
    try:
        transport = AdbTransport(profile_of(device, runtimes=ONNX, connection=programs))
        with closing(transport), pytest.raises(DeviceError, match=r"free|room|full") as caught:
            transport.run_agent(folder, timeout_s=60)
    finally:
        device.stop()
    assert caught.value.is_final
    assert not (folder / "result.json").exists()


def test_a_cut_while_the_library_travels_is_mended(transport: AdbTransport, device: TestDevice, job: Jobs) -> None:
    shutil.rmtree(device.data / "edgekit", ignore_errors=True)
    device.fail("tear", at_bytes=12_000_000)
    folder = job("answers")
    transport.run_agent(folder, timeout_s=60)
    assert transport.reconnections == 1
    assert 12_000_000 < device.ask()["bytes"] < 38_000_000, "it was not sent again from its beginning"
    assert read_arrays(folder / "outputs.npz")["evaluation/y"].shape == (50, 4)
