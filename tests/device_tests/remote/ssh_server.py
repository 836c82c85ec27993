"""A real SSH server on loopback, with keys of its own, started by and for one test run or benchmark."""

from __future__ import annotations

import dataclasses
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.core.profile import DeviceProfile

SSHD = Path("/usr/sbin/sshd")
FAKE = "edgekit.device_tests.testing:FAKE_RUNTIME"
MISSING = "no SSH server here: apt-get install openssh-server"


def is_installed() -> bool:
    """Whether this machine has what the server needs."""
    return SSHD.is_file() and shutil.which("ssh-keygen") is not None


@dataclasses.dataclass
class SshServer:
    """An sshd of this test run; its "device" is this machine.

    Args:
        folder: Its keys, settings and log; device folders go below it.
        port: On loopback.
        process: The server.
    """

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    folders: int = 0

    @property
    def key(self) -> Path:
        return self.folder / "user_key"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def trust(self, port: int) -> None:
        """The server's host key also stands for another port: a proxy's."""
        public = (self.folder / "host_key.pub").read_text().split()
        with self.known_hosts.open("a") as stream:
            stream.write(f"[127.0.0.1]:{port} {public[0]} {public[1]}\n")

    def stop(self) -> None:
        """End it and the connections it has."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)

    def device_folder(self) -> Path:
        """A new folder for edgekit on the device."""
        self.folders += 1
        return self.folder / f"device-{self.folders}"

    def profile(self, *, port: int | None = None, folder: Path | None = None, **changes: Any) -> DeviceProfile:
        """A profile of this device: the Python agent with the fake runtime."""
        connection: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": port or self.port,
            "user": getpass.getuser(),
            "key": str(self.key),
            "known_hosts": str(self.known_hosts),
            "folder": str(folder or self.device_folder()),
            "python": sys.executable,
        }
        fields: dict[str, Any] = {
            "name": "loopback",
            "title": "This machine over SSH",
            "transport": "ssh",
            "connection": connection | changes.pop("connection", {}),
            "runtimes": {"fake": {"runtime": FAKE}},
            "timeout_s": 60,
        }
        return DeviceProfile.parse(fields | changes, source="test")


def start_sshd(folder: Path) -> SshServer:
    """Start sshd with keys of its own, on a port the system picks."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "host_key"], check=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "user_key"], check=True)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # the package's own service makes it; only root's sshd asks for it
    for _ in range(5):  # somebody may take the port in between
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = {
            "ListenAddress": f"127.0.0.1:{port}",
            "HostKey": folder / "host_key",
            "AuthorizedKeysFile": folder / "authorized_keys",
            "PidFile": folder / "pid",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "PermitRootLogin": "yes",
            "MaxStartups": "100",
            "MaxSessions": "50",
        }
        (folder / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
        log = (folder / "sshd.log").open("ab")
        command = [SSHD, "-D", "-e", "-f", folder / "sshd_config"]
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()
        server = SshServer(folder, port, process)
        if _answers(server):
            server.trust(port)
            return server
        process.kill()
        process.wait()
    raise RuntimeError((folder / "sshd.log").read_text())


def _answers(server: SshServer) -> bool:
    for _ in range(100):
        if server.process.poll() is not None:
            return False
        try:
            with socket.create_connection(("127.0.0.1", server.port), timeout=1) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            time.sleep(0.05)
    return False


def edgekit_processes(folder: Path) -> list[int]:
    """Processes that work in a device's folder or for a job there; those that have ended and wait for their parent are none."""
    found = []
    for place in Path("/proc").iterdir():
        if not place.name.isdigit() or int(place.name) == os.getpid():
            continue
        try:
            state = (place / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and (place / "cwd").readlink().is_relative_to(folder):
                found.append(int(place.name))
        except (OSError, IndexError):
            continue
    return found


def check_nothing_left(folder: Path) -> None:
    """No process is left in a device's folder; one that was killed may take a moment to go."""
    deadline = time.monotonic() + 5
    while (left := edgekit_processes(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


def serve(factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """What a fixture yields: a server while its tests run; a skip with its reason where there is no sshd."""
    if not is_installed():
        pytest.skip(MISSING)
    server = start_sshd(factory.mktemp("sshd"))
    yield server
    server.stop()
