"""A whole 64-bit Arm machine, emulated: Debian, an SSH server on loopback, reached like a board.

What can be tried on it and not on a board in use: reboots in the middle of a job, a network that is nobody else's. Its numbers
are emulated, as those of :mod:`.qemu_user` are.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from edgekit.core.errors import DeviceError, EdgekitError, ProfileError, nearest
from edgekit.core.measurement import Evidence
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.native_agent import NativeAgent
from edgekit.device_tests.native_agent.programs import CONNECTION_KEYS, missing_programs
from edgekit.device_tests.remote.carrier import RemoteTransport
from edgekit.device_tests.transports.qemu_user import CORES
from edgekit.device_tests.transports.ssh import SshLink
from edgekit.device_tests.virtual_machine.image import USER, make_image, missing_tools
from edgekit.device_tests.virtual_machine.machine import Machine

__all__ = ["QemuVmTransport"]

_DEFAULTS: dict[str, str | int] = {"cpu": "cortex-a72", "cores": 2, "memory_mb": 1024}
_KEYS = (*_DEFAULTS, *CONNECTION_KEYS)


class QemuVmTransport:
    """Starts the virtual machine with the first job, and ends it when it is closed.

    Args:
        profile: ``connection`` says ``cpu`` (:data:`.qemu_user.CORES`), ``cores`` and ``memory_mb``; ``runner`` and ``library``
            name programs built elsewhere.

    Raises:
        ProfileError: A setting is unknown or impossible, or the profile calls the numbers measured.
        DeviceError: What it needs is not installed here.
    """

    def __init__(self, profile: DeviceProfile) -> None:
        _check(profile)
        if missing := self.obstacle(profile):
            raise DeviceError(missing, is_final=True)
        self.profile = profile
        self.boot_s = 0.0
        """How long the machine took to start."""
        self.machine: Machine | None = None
        self._remote: RemoteTransport | None = None

    @staticmethod
    def obstacle(profile: DeviceProfile) -> str:
        """What is missing here to emulate the machine; empty where nothing is."""
        try:
            _check(profile)
            if packages := missing_tools():
                return f"no virtual machine: install Debian {' '.join(packages)}"
            if importlib.util.find_spec("asyncssh") is None:
                return "asyncssh is not installed: pip install 'edgekit[devices]'"
            return missing_programs(profile, architecture="aarch64")
        except EdgekitError as reason:
            return str(reason)

    def facts(self) -> dict[str, str]:
        """What the machine says of itself, and that it is emulated."""
        core = CORES[str(_setting(self.profile, "cpu"))].title
        return {**self._started().facts(), "processor": f"{core}, emulated", "emulator": "qemu-system-aarch64"}

    def run_agent(self, job: Path, *, timeout_s: float, log: Path | None = None) -> None:
        """Execute the job on the machine.

        Raises:
            DeviceError: The machine was lost.
            WorkerError: edgekit-runner crashed, or ran out of time.
        """
        self._started().run_agent(job, timeout_s=timeout_s, log=log)

    def close(self) -> None:
        """End the machine; nothing of it is left but the image it started from."""
        try:
            if self._remote is not None:
                self._remote.close()
        finally:
            self._remote = None
            if self.machine is not None:
                self.machine.close()
                self.machine = None

    def _started(self) -> RemoteTransport:
        if self._remote is None:
            memory_mb, cores = (int(_setting(self.profile, key)) for key in ("memory_mb", "cores"))
            image = make_image()
            self.machine = Machine(image, cpu=str(_setting(self.profile, "cpu")), cores=cores, memory_mb=memory_mb)
            try:
                self.boot_s = self.machine.wait()
                self._remote = self._reach(self.machine)
            except BaseException:
                self.close()
                raise
        return self._remote

    def _reach(self, machine: Machine) -> RemoteTransport:
        """The machine as a device behind SSH; its host key was made with it, so it is known."""
        known = machine.folder / "known_hosts"
        known.write_text(machine.image.known_host(machine.port), encoding="ascii")
        named = {key: self.profile.connection[key] for key in CONNECTION_KEYS if key in self.profile.connection}
        place = {
            "host": "127.0.0.1",
            "port": machine.port,
            "user": USER,
            "key": str(machine.image.key),
            "known_hosts": str(known),
        }
        profile = self.profile.replace(connection={**place, **named, "agent": "native"})
        return RemoteTransport(profile, link=SshLink(profile), agent=NativeAgent(profile))


def _setting(profile: DeviceProfile, key: str) -> str | int:
    value = profile.connection.get(key, _DEFAULTS[key])
    return value if isinstance(value, str) else int(value)


def _check(profile: DeviceProfile) -> None:
    """Refuse what would be silently ignored, or called by a wrong name."""
    where = f"Profile '{profile.name}'"
    for key, value in profile.connection.items():
        if key not in _KEYS:
            raise ProfileError(
                f"{where} sets connection.{key}, which the transport 'qemu-vm' does not know; it knows {', '.join(_KEYS)}."
                f"{nearest(key, _KEYS)}"
            )
        if key in _DEFAULTS and key != "cpu" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ProfileError(f"{where}: connection.{key} is {value!r}; it must be a whole number above 0.")
    if (cpu := str(_setting(profile, "cpu"))) not in CORES:
        raise ProfileError(f"{where}: connection.cpu is '{cpu}'; known: {', '.join(CORES)}.{nearest(cpu, CORES)}")
    for target, choice in profile.runtimes.items():
        if choice.evidence is not Evidence.EMULATED:
            raise ProfileError(
                f"{where} calls its numbers for '{target}' {choice.evidence.value}, but the transport 'qemu-vm' emulates the"
                f" machine: write evidence = 'emulated' under [runtimes.{target}]."
            )
