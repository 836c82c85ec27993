"""A running virtual machine: qemu in a process of its own, reached at a port of loopback, and gone when it is closed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, cast

from edgekit.core.errors import DeviceError
from edgekit.core.supervision import last_words
from edgekit.device_tests.virtual_machine.image import Image

__all__ = ["Machine"]

_QEMU = "qemu-system-aarch64"
_FORWARD = re.compile(r"TCP\[HOST_FORWARD\]\s+\S+\s+127\.0\.0\.1\s+(\d+)\s+")
_KERNEL_WORDS = "console=ttyAMA0 quiet panic=5 nosoftlockup"
"""A host that is busy is no lockup of the machine."""
_BOOT_LIMIT_S = 300.0
_POLL_S = 0.25
_TIED = 'exec 3<&0; "$@" 3<&- & machine=$!; (cat <&3 >/dev/null; kill -9 "$machine") 2>/dev/null & wait "$machine"'
"""Runs a program for as long as the caller holds the other end of the shell's input: it ends however the caller does."""
_ANSWER_S = 10.0


class Machine:
    """One virtual machine. Its disk is a copy that is gone with it; a power cut leaves what was written to it.

    Args:
        image: What it starts from.
        cpu: qemu's name of the core.
        cores: How many.
        memory_mb: Main memory.

    Raises:
        DeviceError: qemu does not start.
    """

    def __init__(self, image: Image, *, cpu: str = "cortex-a72", cores: int = 2, memory_mb: int = 1024) -> None:
        self.image = image
        self._folder = tempfile.TemporaryDirectory(prefix="edgekit-vm-")
        self.console = Path(self._folder.name, "console.txt")
        """What the kernel and the SSH server print."""
        self._errors = Path(self._folder.name, "errors.txt")
        self._words = [
            _QEMU, "-machine", "virt", "-cpu", cpu, "-smp", str(cores), "-m", str(memory_mb), "-nodefaults", "-display", "none",
            "-kernel", str(image.kernel), "-initrd", str(image.initramfs), "-append", _KERNEL_WORDS,
            "-drive", f"file={self._disk},if=none,id=disk,format=raw", "-device", "virtio-blk-pci,drive=disk",
            "-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci", "-serial", f"file:{self.console}",
            "-qmp", f"unix:{self._control},server=on,wait=off",
        ]  # fmt: skip
        try:
            subprocess.run(["cp", "--sparse=always", str(image.disk), str(self._disk)], check=True, capture_output=True)
            self._process = self._start(port=0)
            self.port = self._find_port()
        except subprocess.CalledProcessError as reason:
            self._folder.cleanup()
            raise DeviceError(f"The virtual machine's disk cannot be copied: {reason.stderr.decode()}", is_final=True) from reason
        except BaseException:
            self.close()
            raise

    @property
    def _disk(self) -> Path:
        return Path(self._folder.name, "disk")

    @property
    def _control(self) -> Path:
        return Path(self._folder.name, "control")

    @property
    def folder(self) -> Path:
        """A temporary folder that is gone with the machine."""
        return Path(self._folder.name)

    def wait(self, *, limit_s: float = _BOOT_LIMIT_S) -> float:
        """Wait until its SSH server answers.

        Returns:
            Seconds that took.

        Raises:
            DeviceError: It ended, or does not answer in time.
        """
        start = time.monotonic()
        while time.monotonic() - start < limit_s:
            self._check_alive()
            if _greets(self.port):
                return time.monotonic() - start
            time.sleep(_POLL_S)
        words = last_words(self.console) if self.console.exists() else "(none)"
        raise DeviceError(f"The virtual machine did not start within {limit_s:.0f} s. Its last words: {words}")

    def cut_power(self) -> None:
        """Take the power away and give it back: what was not written to its disk is lost, and it starts anew.

        Raises:
            DeviceError: qemu does not start again.
        """
        self._stop()
        self._control.unlink(missing_ok=True)
        self._process = self._start(port=self.port)

    def close(self) -> None:
        """End it."""
        self._stop()
        self._folder.cleanup()

    def _start(self, *, port: int) -> subprocess.Popen[bytes]:
        network = f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"
        with self._errors.open("wb") as errors:
            return subprocess.Popen(
                ["sh", "-c", _TIED, "sh", *self._words, "-netdev", network],
                stdin=subprocess.PIPE,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )

    def _stop(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(_ANSWER_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _find_port(self) -> int:
        """The port that the system picked, by asking qemu's monitor."""
        start = time.monotonic()
        while time.monotonic() - start < _ANSWER_S:
            self._check_alive()
            with contextlib.suppress(OSError):
                text = str(self._ask("human-monitor-command", {"command-line": "info usernet"}))
                if matched := _FORWARD.search(text):
                    return int(matched.group(1))
            time.sleep(_POLL_S)
        raise DeviceError("qemu does not say at which port the virtual machine can be reached.")

    def _check_alive(self) -> None:
        if self._process.poll() is not None:
            raise DeviceError(
                f"The virtual machine's qemu ended with code {self._process.returncode}: {last_words(self._errors)}",
                is_final=True,
            )

    def _ask(self, command: str, arguments: dict[str, str] | None = None) -> Any:
        """One command of the QEMU Machine Protocol (qemu's docs/interop/qmp-spec)."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ANSWER_S)
            connection.connect(str(self._control))
            with connection.makefile("rwb") as stream:
                stream.readline()
                for name, given in (("qmp_capabilities", {}), (command, arguments or {})):
                    stream.write(json.dumps({"execute": name, "arguments": given}).encode() + b"\n")
                    stream.flush()
                    answer: dict[str, Any] = {}
                    while "return" not in answer:
                        answer = cast("dict[str, Any]", json.loads(stream.readline() or b'{"error": "closed"}'))
                        if "error" in answer:
                            raise DeviceError(f"qemu refuses '{name}': {answer['error']}")
                return answer["return"]


def _greets(port: int) -> bool:
    """Whether an SSH server speaks first, as RFC 4253 has it; qemu itself takes every connection."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.settimeout(5)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
