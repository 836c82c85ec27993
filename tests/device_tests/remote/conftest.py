"""A real SSH server on loopback, unprivileged, and a proxy that breaks connections to it."""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.core.profile import DeviceProfile

SSHD = Path("/usr/sbin/sshd")
FAKE = "edgekit.device_tests.testing:FAKE_RUNTIME"


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


@pytest.fixture(scope="package")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """One server for all tests here."""
    if not SSHD.is_file() or not shutil.which("ssh-keygen"):
        pytest.skip("no SSH server here: apt-get install openssh-server")
    server = start_sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(10)


class CutProxy:
    """A TCP proxy on loopback that cuts, delays or drips what passes through it.

    Args:
        port: Where it leads.

    A connection is cut after ``cut_after`` bytes in both directions together; the plan's next number is for the connection after
    that one, and once it is empty connections live on. ``is_down`` refuses new ones.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.plan: list[int] = []
        self.is_down = False
        self.bytes_per_s: float | None = None
        self.passed = 0
        self.cuts = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(0.2)
        self.port: int = self._server.getsockname()[1]
        self._closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._closing.set()
        self.cut()
        self._threads[0].join()
        self._server.close()
        for thread in self._threads:
            thread.join(5)

    def cut(self) -> None:
        """Cut every connection now."""
        with self._lock:
            for one in self._open:
                _reset(one)

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                here, _ = self._server.accept()
            except TimeoutError:
                continue
            if self.is_down:
                _reset(here)
                here.close()
                continue
            there = socket.create_connection(("127.0.0.1", self.target))
            with self._lock:
                self._open |= {here, there}
            budget = [self.plan.pop(0) if self.plan else -1]
            ways = ((here, there), (there, here))
            pair = [threading.Thread(target=self._carry, args=(*way, budget), daemon=True) for way in ways]
            self._threads += [*pair, threading.Thread(target=self._forget, args=(pair, here, there), daemon=True)]
            for thread in self._threads[-3:]:
                thread.start()

    def _forget(self, pair: list[threading.Thread], here: socket.socket, there: socket.socket) -> None:
        for thread in pair:
            thread.join()
        with self._lock:
            self._open -= {here, there}
        here.close()
        there.close()

    def _carry(self, source: socket.socket, target: socket.socket, budget: list[int]) -> None:
        try:
            while data := source.recv(2**14 if self.bytes_per_s is None else 2**10):
                if self.bytes_per_s is not None:
                    time.sleep(len(data) / self.bytes_per_s)
                with self._lock:
                    self.passed += len(data)
                    if budget[0] >= 0:
                        data, budget[0] = data[: budget[0]], max(budget[0] - len(data), 0)
                if data:
                    target.sendall(data)
                if budget[0] == 0:
                    self.cuts += 1
                    break
            else:
                target.shutdown(socket.SHUT_WR)
                return
        except OSError:
            pass
        for one in (source, target):
            _reset(one)


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(sshd: SshServer) -> Iterator[CutProxy]:
    """A proxy before the server."""
    made = CutProxy(sshd.port)
    sshd.trust(made.port)
    yield made
    made.close()


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


@pytest.fixture
def nothing_left() -> Callable[[Path], None]:
    """A check that no process is left in a device's folder."""

    def check(folder: Path, *, within_s: float = 5.0) -> None:
        deadline = time.monotonic() + within_s
        while (left := edgekit_processes(folder)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert left == []

    return check  # type: ignore[return-value]
