"""What surrounds qemu: it is found at its port, and never outlives its caller. The machine itself: benchmarks/arm64_vm.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.core.errors import DeviceError
from edgekit.device_tests.virtual_machine import machine
from edgekit.device_tests.virtual_machine.image import Image, image_folder, make_image
from edgekit.device_tests.virtual_machine.machine import Machine

QEMU = f"""#!{sys.executable}
# A stand-in for qemu-system-aarch64: no machine, but its control socket and an SSH greeting at a port of loopback.
import json, os, re, socket, sys, threading
place = re.match("unix:([^,]*),", sys.argv[sys.argv.index("-qmp") + 1])[1]
port = re.search("hostfwd=tcp:127.0.0.1:([0-9]+)-:22", " ".join(sys.argv))[1]
ssh = socket.create_server(("127.0.0.1", int(port)))
threading.Thread(target=lambda: [ssh.accept()[0].sendall(b"SSH-2.0-stand-in\\r\\n") for _ in iter(int, 1)], daemon=True).start()
control = socket.socket(socket.AF_UNIX)
control.bind(place)
control.listen()
open(os.path.join(os.path.dirname(sys.argv[0]), "pid"), "w").write(str(os.getpid()))
while True:
    stream = control.accept()[0].makefile("rwb")
    stream.write(b'{{"QMP": {{}}}}\\n'); stream.flush()
    for line in stream:
        name = json.loads(line)["execute"]
        table = "  TCP[HOST_FORWARD]  13       127.0.0.1 %d       10.0.2.15    22     0     0" % ssh.getsockname()[1]
        if name == "human-monitor-command":
            answer = {{"return": table}}
        else:
            answer = {{"return": {{}}}} if name == "qmp_capabilities" else {{"error": "unknown"}}
        stream.write(json.dumps(answer).encode() + b"\\n"); stream.flush()
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in qemu's place."""
    program = tmp_path / "qemu"
    program.write_text(QEMU)
    program.chmod(0o755)
    monkeypatch.setattr(machine, "_QEMU", str(program))
    return program


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_a_machine_is_found_cut_off_and_ended(stand_in: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"disk")
    one = Machine(Image(tmp_path))
    assert one.wait(limit_s=20) < 20
    port, before = one.port, int((stand_in.parent / "pid").read_text())
    one.cut_power()
    assert not is_running(before)
    assert until(lambda: int((stand_in.parent / "pid").read_text() or before) != before)
    assert one.port == port
    assert one.wait(limit_s=20) < 20
    with pytest.raises(DeviceError, match="qemu refuses 'nonsense'"):
        one._ask("nonsense")
    pid = int((stand_in.parent / "pid").read_text())
    folder = one.folder
    assert is_running(pid)
    one.close()
    assert not is_running(pid)
    assert not folder.exists()


def test_a_machine_ends_when_its_caller_is_killed(stand_in: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from edgekit.device_tests.virtual_machine import machine, image;"
        f"machine._QEMU = {str(stand_in)!r}; one = machine.Machine(image.Image(Path(sys.argv[1])));"
        "print(one.port, flush=True); time.sleep(60)"
    )
    (stand_in.parent / "disk").touch()
    caller = subprocess.Popen([sys.executable, "-c", code, str(stand_in.parent)], stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None
    assert int(caller.stdout.readline()) > 0
    pid = int((stand_in.parent / "pid").read_text())
    os.kill(caller.pid, signal.SIGKILL)
    caller.wait()
    caller.stdout.close()
    assert until(lambda: not is_running(pid))


def test_a_machine_that_does_not_start_says_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\necho 'could not load kernel' >&2; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(machine, "_QEMU", str(program))
    with pytest.raises(DeviceError, match=r"The virtual machine's disk cannot be copied: .*No such file"):
        Machine(Image(tmp_path))
    (tmp_path / "disk").touch()
    with pytest.raises(DeviceError, match="ended with code 1: could not load kernel"):
        Machine(Image(tmp_path))


def test_what_the_image_needs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    from edgekit.device_tests.virtual_machine import image

    monkeypatch.setattr(image, "_PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="install Debian mmdebstrap e2fsprogs openssh-client qemu-system-arm"):
        make_image()
    assert image_folder().is_relative_to(tmp_path)
    assert not image_folder().exists()


def test_the_host_key_is_known_at_the_machines_port(tmp_path: Path) -> None:
    (tmp_path / "host_key.pub").write_text("ssh-ed25519 AAAA edgekit-arm64-vm\n")
    assert Image(tmp_path).known_host(4022) == "[127.0.0.1]:4022 ssh-ed25519 AAAA\n"
