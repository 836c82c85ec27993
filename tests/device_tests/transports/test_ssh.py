"""SSH to a real server on loopback: whole validations, and every way in which a device cannot be reached."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.core.errors import DeviceError, IntegrityError, MissingExtraError, ProfileError, WorkerError
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.remote import patience
from edgekit.device_tests.testing import FakeModel
from edgekit.device_tests.transports import ssh
from edgekit.device_tests.transports.ssh import SshLink, SshTransport
from edgekit.device_tests.validate import validate_device
from tests.device_tests.remote.cut_proxy import CutProxy
from tests.device_tests.remote.sh_jobs import carrier, make_job
from tests.device_tests.remote.ssh_server import (
    FAKE,
    SshServer,
    check_nothing_left,
    edgekit_processes,
    serve,
)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    yield from serve(tmp_path_factory)


@pytest.fixture
def proxy(sshd: SshServer) -> Iterator[CutProxy]:
    made = CutProxy(sshd.port)
    sshd.trust(made.port)
    yield made
    made.close()


def refused(profile: DeviceProfile) -> DeviceError:
    with pytest.raises(DeviceError) as caught:
        SshLink(profile).connect()
    return caught.value


def test_a_host_key_that_nobody_vouched_for(sshd: SshServer, tmp_path: Path) -> None:
    (tmp_path / "known").write_text("")
    found = refused(sshd.profile(connection={"known_hosts": str(tmp_path / "known")}))
    assert found.is_final
    assert re.search(rf"host key that is not in .*known: nobody has said .*\(ssh -p {sshd.port} -i .*user_key", str(found))


def test_a_host_key_that_changed(sshd: SshServer, tmp_path: Path) -> None:
    other = (sshd.folder / "user_key.pub").read_text().split()
    (tmp_path / "known").write_text(f"[127.0.0.1]:{sshd.port} {other[0]} {other[1]}\n")
    found = refused(sshd.profile(connection={"known_hosts": str(tmp_path / "known")}))
    assert found.is_final
    assert f"another host key than the one in {tmp_path / 'known'}" in str(found)
    assert f"ssh-keygen -R '[127.0.0.1]:{sshd.port}'" in str(found)


def test_no_known_hosts_at_all_trusts_nobody(sshd: SshServer, tmp_path: Path) -> None:
    assert "not in" in str(refused(sshd.profile(connection={"known_hosts": str(tmp_path / "none")})))


def test_a_user_who_may_not_log_in(sshd: SshServer, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "stranger"], check=True)
    found = refused(sshd.profile(connection={"key": str(tmp_path / "stranger")}))
    assert found.is_final
    assert re.search(r"denies permission .*ssh-copy-id", str(found))


def test_a_key_with_a_passphrase(sshd: SshServer, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-N", "secret", "-m", "PEM", "-f", tmp_path / "locked"], check=True)
    found = refused(sshd.profile(connection={"key": str(tmp_path / "locked")}))
    assert found.is_final
    assert "ssh-add" in str(found)


def test_a_key_that_is_not_there(sshd: SshServer, tmp_path: Path) -> None:
    profile = sshd.profile(connection={"key": str(tmp_path / "nokey")})
    found = refused(profile)
    assert found.is_final
    assert "nokey cannot be read" in str(found)
    assert SshTransport.obstacle(profile) == f"the key {tmp_path / 'nokey'} does not exist"


def test_nobody_listens(sshd: SshServer) -> None:
    found = refused(sshd.profile(port=1))
    assert not found.is_final
    assert "refuses connections" in str(found)


def test_no_such_host(sshd: SshServer) -> None:
    found = refused(sshd.profile(connection={"host": "no-such-host.invalid"}))
    assert found.is_final
    assert "no such name" in str(found)


def test_something_else_listens(sshd: SshServer) -> None:
    def greet(server: socket.socket) -> None:
        with server.accept()[0] as connection:
            connection.sendall(b"220 mail\r\n" * 2000)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=greet, args=(server,))
        thread.start()
        assert re.search("does not speak SSH|lost", str(refused(sshd.profile(port=server.getsockname()[1]))))
        thread.join()


def test_a_folder_that_cannot_be_made(sshd: SshServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    found = refused(sshd.profile(folder=tmp_path / "file"))
    assert found.is_final
    assert re.search(r"folder '.*/file' .*connection\.folder", str(found))


def test_without_asyncssh(sshd: SshServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"edgekit\[devices\]"):
        SshLink(sshd.profile()).connect()
    assert "edgekit[devices]" in SshTransport.obstacle(sshd.profile())


@pytest.mark.parametrize(
    ("connection", "message"),
    [
        ({"host": "x", "hots": "y"}, "connection.hots is unknown to ssh; it knows host, port.* Did you mean 'host'"),
        ({}, "connection.host is not set"),
        ({"host": 5}, "connection.host is 5; it must be a text"),
        ({"host": "x", "port": "22"}, "connection.port is '22'; it must be a whole number"),
        ({"host": "x", "port": 70000}, "connection.port is 70000; ports are 1 to 65535"),
        ({"host": "x", "agent": "pyton"}, "connection.agent is 'pyton'; it is one of python, native. Did you mean 'python'"),
    ],
)
def test_settings_that_are_wrong(connection: dict[str, Any], message: str) -> None:
    profile = DeviceProfile(name="pi", title="Pi", transport="ssh", connection=connection, runtimes={})
    with pytest.raises(ProfileError, match=f"^Profile 'pi': {message}"):
        SshTransport(profile)


def test_a_device_that_is_not_attached_says_so() -> None:
    assert "devices add" in SshTransport.obstacle(DeviceProfile(name="pi", title="Pi", runtimes={}))


def test_the_native_agent_is_chosen_by_name(sshd: SshServer) -> None:
    from edgekit.device_tests.native_agent import NativeAgent

    assert isinstance(SshTransport(sshd.profile(connection={"agent": "native"})).agent, NativeAgent)


def test_a_link_that_drips_still_carries(sshd: SshServer, proxy: CutProxy, tmp_path: Path) -> None:
    link = SshLink(sshd.profile(port=proxy.port))
    link.connect()
    proxy.bytes_per_s = 100_000.0
    (tmp_path / "file").write_bytes(np.random.default_rng(0).bytes(100_000))
    link.push(tmp_path / "file", "file")
    link.pull("file", tmp_path / "back")
    proxy.bytes_per_s = None
    link.close()
    assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()


def test_a_push_that_is_cut_goes_on(sshd: SshServer, proxy: CutProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_FIRST_PAUSE_S", 0.01)
    transport = carrier(SshLink(sshd.profile(port=proxy.port)), lease_s=60.0, patience_s=30.0)
    transport.facts()
    job = make_job(tmp_path / "job")
    (job / "weights.bin").write_bytes(np.random.default_rng(0).bytes(8_000_000))
    proxy.plan = [3_500_000, 5_000_000]
    proxy.cut()
    before = proxy.passed
    transport.run_agent(job, timeout_s=60)
    transport.close()
    assert transport.reconnections >= 2
    # what had arrived is not sent again, but for a channel's window of 2 MiB; without that it would be 16.5 MB
    assert 8_000_000 < proxy.passed - before < 14_000_000
    assert (job / "output.txt").read_text() == "HELLO\n"


def fake_job(folder: Path, **changes: Any) -> Path:
    """A job folder with a fake model."""
    from edgekit.device_tests.arrays import write_arrays
    from edgekit.device_tests.jobs import Job

    folder.mkdir()
    artifact = FakeModel(weight=((1.0, 2.0),), bias=(0.0, 1.0)).replace(**changes).export(folder)
    (folder / artifact.label).mkdir()
    artifact.path.rename(folder / artifact.label / artifact.path.name)
    write_arrays(folder / "golden.npz", {"x": np.ones((2, 1, 1), np.float32)})
    shipped = artifact.replace(path=Path(artifact.label, artifact.path.name))
    Job(kind="answers", what="trying", runtime=FAKE, threads=1, artifacts=(shipped,)).write_json(folder / "job.json")
    return folder


def test_a_whole_validation(bench: Any, sshd: SshServer) -> None:
    profile = sshd.profile()
    result = validate_device(profile, artifacts=[bench.artifact()], **bench.arguments())
    assert result.facts["system"] == "Linux"
    assert [found.failure for found in result.results] == [""]
    answers = np.load(bench.output / f"{bench.artifact().label}.npz")
    assert np.array_equal(answers["evaluation/output"], bench.int8_model.answer(bench.task.evaluation[0][0]["x"]))
    check_nothing_left(Path(str(profile.connection["folder"])))


@pytest.mark.proof
def test_errors_of_the_agent_are_what_they_are_here(sshd: SshServer, tmp_path: Path) -> None:
    transport = SshTransport(sshd.profile())
    with pytest.raises(IntegrityError, match="cannot be loaded, as it was told to"):
        transport.run_agent(fake_job(tmp_path / "load", fails="load"), timeout_s=60)
    transport.close()


@pytest.mark.proof
def test_an_agent_that_crashes_says_by_what(sshd: SshServer, tmp_path: Path) -> None:
    transport = SshTransport(sshd.profile())
    with pytest.raises(WorkerError, match="was killed by SIGABRT"):
        transport.run_agent(fake_job(tmp_path / "crash", fails="crash"), timeout_s=60)
    transport.close()


def test_int8_onnx_through_ssh_is_what_it_is_here(sshd: SshServer, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="pip install 'edgekit[onnx]'")
    from edgekit.core.artifact import Artifact
    from edgekit.core.files import sha256, size_bytes
    from edgekit.device_tests.arrays import read_arrays, write_arrays
    from edgekit.device_tests.jobs import Job
    from edgekit.device_tests.transports.local import LocalTransport

    jobs = [tmp_path / "here", tmp_path / "there"]
    for job in jobs:
        (job / "onnx-int8").mkdir(parents=True)
        path = int8_onnx(job / "onnx-int8" / "net.onnx")
        spec = {"dtype": "float32", "shape": (1, 3, 16, 16)}
        artifact = Artifact.parse(
            {
                "target": "onnx", "path": path.relative_to(job), "sha256": sha256(path), "size_bytes": size_bytes(path),
                "precision": "int8", "inputs": [{"name": "x", **spec}],
                "outputs": [{"name": "y", "dtype": "float32", "shape": (1, 8, 16, 16)}],
            },
            source="test",
        )  # fmt: skip
        rng = np.random.default_rng(0)
        write_arrays(job / "golden.npz", {"x": rng.normal(size=(3, 1, 3, 16, 16)).astype(np.float32)})
        write_arrays(job / "evaluation.npz", {"x": rng.normal(size=(40, 3, 16, 16)).astype(np.float32)})
        plan = Job(kind="answers", what="running", runtime="onnxruntime", threads=1, artifacts=(artifact,))
        plan.write_json(job / "job.json")
    profile = sshd.profile()
    LocalTransport(profile).run_agent(jobs[0], timeout_s=60)
    transport = SshTransport(profile)
    transport.run_agent(jobs[1], timeout_s=60)
    transport.close()
    here, there = (read_arrays(job / "outputs.npz") for job in jobs)
    assert here.keys() == there.keys() == {"golden/y", "evaluation/y"}
    assert all(here[name].tobytes() == there[name].tobytes() for name in here)


def int8_onnx(path: Path) -> Path:
    """A convolution between QuantizeLinear and DequantizeLinear, int8 weights and activations."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(1)
    weight = rng.integers(-127, 128, (8, 3, 3, 3)).astype(np.int8)
    constants = {
        "x_scale": np.float32(0.03), "zero": np.int8(0), "w": weight, "w_scale": np.full(8, 0.01, np.float32),
        "w_zero": np.zeros(8, np.int8), "y_scale": np.float32(0.05),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "x_scale", "zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["wd"], axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["c", "y_scale", "zero"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "y_scale", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 16, 16])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


HOST = """
import sys
from pathlib import Path
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.remote.carrier import RemoteTransport
from edgekit.device_tests.transports.ssh import SshLink
from tests.device_tests.remote.sh_jobs import ShAgent
profile = DeviceProfile.read_json(Path(sys.argv[1]))
transport = RemoteTransport(profile, link=SshLink(profile), agent=ShAgent("sleep 55 & sleep 60"), lease_s=2.0)
transport.run_agent(Path(sys.argv[2]), timeout_s=120)
"""


def test_a_host_that_is_killed_leaves_nothing_running(sshd: SshServer, tmp_path: Path) -> None:
    device = sshd.device_folder()
    profile = sshd.profile(folder=device)
    (tmp_path / "profile.json").write_text(profile.model_dump_json())
    job = make_job(tmp_path / "job")
    root = Path(__file__).parents[3]
    host = subprocess.Popen([sys.executable, "-c", HOST, tmp_path / "profile.json", job], cwd=root)
    deadline = time.monotonic() + 40
    while not list(device.glob("jobs/*/group")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert edgekit_processes(device)
    host.kill()
    host.wait()
    check_nothing_left(device)
    transport = carrier(SshLink(profile), lease_s=1.0)
    transport.run_agent(make_job(tmp_path / "next"), timeout_s=20)
    transport.close()
    assert (tmp_path / "next" / "output.txt").read_text() == "HELLO\n"
    check_nothing_left(device)
