"""An Arm core emulated instruction by instruction: the runtimes' real Arm kernels run, and give that core's numbers.

qemu's user mode executes edgekit-runner, built for 64-bit Arm, with the runtime's aarch64 library. Its speed says nothing about
the core's: what comes out is numerics, and every number is labelled ``emulated``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.errors import DeviceError, EdgekitError, ProfileError, nearest
from edgekit.core.measurement import Evidence
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.host import host_facts
from edgekit.device_tests.jobs import Job
from edgekit.device_tests.native_agent import NativeAgent
from edgekit.device_tests.native_agent.errands import carry_out
from edgekit.device_tests.native_agent.programs import CONNECTION_KEYS, missing_programs

__all__ = ["CORES", "Core", "QemuUserTransport"]

_EMULATORS = ("qemu-aarch64-static", "qemu-aarch64")
_DEFAULT_CORE = "cortex-a72"
_KEYS = ("cpu", "root", *CONNECTION_KEYS)
_LOADER = Path("lib", "ld-linux-aarch64.so.1")
_ROOTS = (Path("/usr/aarch64-linux-gnu"), Path("/usr/aarch64-linux-gnu/sys-root"))
"""Where cross compilers keep the C library: Debian's, Fedora's."""
_ARMV8 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_ARMV82 = f"{_ARMV8} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp ssbs"


@dataclass(frozen=True)
class Core:
    """What the emulated core says of itself in ``/proc/cpuinfo``: kernels are chosen by it.

    Args:
        title: Its name.
        part: ``MIDR_EL1.PartNum``, from the core's technical reference manual.
        features: As the Linux kernel words ``Features`` (Documentation/arch/arm64/elf_hwcaps).
        implementer: ``MIDR_EL1.Implementer``; 0x41 is Arm.
    """

    title: str
    part: int
    features: str
    implementer: int = 0x41

    def cpuinfo(self, count: int) -> str:
        """``/proc/cpuinfo`` of a machine with so many of these."""
        rows = (
            "BogoMIPS\t: 108.00", f"Features\t: {self.features}", f"CPU implementer\t: {self.implementer:#04x}",
            "CPU architecture: 8", "CPU variant\t: 0x0", f"CPU part\t: {self.part:#05x}", "CPU revision\t: 3", "",
        )  # fmt: skip
        return "\n".join("\n".join((f"processor\t: {index}", *rows)) for index in range(count)) + "\n"


CORES = {
    "cortex-a35": Core("Arm Cortex-A35", 0xD04, _ARMV8),
    "cortex-a53": Core("Arm Cortex-A53", 0xD03, _ARMV8),
    "cortex-a57": Core("Arm Cortex-A57", 0xD07, _ARMV8),
    "cortex-a72": Core("Arm Cortex-A72", 0xD08, _ARMV8),
    "cortex-a76": Core("Arm Cortex-A76", 0xD0B, _ARMV82),
    "neoverse-n1": Core("Arm Neoverse N1", 0xD0C, _ARMV82),
}
"""Values of ``connection.cpu``: cores that qemu emulates and runtimes know."""


class QemuUserTransport:
    """Runs edgekit-runner under ``qemu-aarch64-static`` on this machine.

    Args:
        profile: ``connection.cpu`` names the core (:data:`CORES`), ``connection.root`` a folder with an Arm system's ``lib``
            [default: that of the cross compiler]; ``runner`` and ``library`` programs built elsewhere.

    Raises:
        ProfileError: A setting is unknown or impossible, or the profile calls the numbers measured.
        DeviceError: The emulator or the Arm system is not installed here.
    """

    def __init__(self, profile: DeviceProfile) -> None:
        _check(profile)
        if missing := self.obstacle(profile):
            raise DeviceError(missing, is_final=True)
        self.profile = profile
        self.core = _core_name(profile)
        self._agent = NativeAgent(profile)

    @staticmethod
    def obstacle(profile: DeviceProfile) -> str:
        """What is missing here to emulate the core; empty where nothing is."""
        try:
            _check(profile)
            _root(profile)
            if _emulator() is None:
                return "no emulator for 64-bit Arm: install Debian 'qemu-user-static'"
            return missing_programs(profile, architecture="aarch64")
        except EdgekitError as reason:
            return str(reason)

    def facts(self) -> dict[str, str]:
        """The core, what emulates it, and the memory of this machine, which it has."""
        here = host_facts()
        core = CORES[self.core]
        return {
            "processor": f"{core.title}, emulated",
            "architecture": "aarch64",
            "instructions": core.features,
            "cores": here["cores"],
            "memory": here["memory"],
            "system": "Linux",
            "system version": f"{here['system version']}, system calls translated",
            "emulator": _version(),
            "emulated on": f"{here['processor']}, {here['architecture']}",
        }

    def run_agent(self, job: Path, *, timeout_s: float, log: Path | None = None) -> None:
        """Execute the job on the emulated core.

        Raises:
            EdgekitError: What edgekit-runner said of the model, its inputs or the library.
            WorkerError: It crashed, or ran out of time.
        """
        plan = Job.read_json(job / "job.json")
        errand = self._agent.prepare(job, facts={"architecture": "aarch64"})
        with _described(_root(self.profile), CORES[self.core]) as root:
            launcher = [str(_emulator()), "-cpu", self.core, "-L", str(root)]
            what = f"{plan.what} on an emulated {CORES[self.core].title}"
            carry_out(errand, job, what=what, timeout_s=timeout_s, launcher=launcher, log=log)
        self._agent.collect(job)

    def close(self) -> None:
        """Nothing to do: every process has ended with its job."""


def _check(profile: DeviceProfile) -> None:
    """Refuse what would be silently ignored, or called by a wrong name."""
    for key in profile.connection:
        if key not in _KEYS:
            raise ProfileError(
                f"Profile '{profile.name}' sets connection.{key}, which the transport 'qemu-user' does not know; it knows"
                f" {', '.join(_KEYS)}.{nearest(key, _KEYS)}"
            )
    _core_name(profile)
    for target, choice in profile.runtimes.items():
        if choice.evidence is not Evidence.EMULATED:
            raise ProfileError(
                f"Profile '{profile.name}' calls its numbers for '{target}' {choice.evidence.value}, but the transport"
                f" 'qemu-user' emulates the processor: write evidence = 'emulated' under [runtimes.{target}]."
            )
    if profile.memory_limit_bytes is not None:
        raise ProfileError(
            f"Profile '{profile.name}' sets memory_limit_bytes, which cannot be held under the transport 'qemu-user': the"
            " emulator's own memory would count. Leave it out."
        )


def _core_name(profile: DeviceProfile) -> str:
    name = str(profile.connection.get("cpu", _DEFAULT_CORE))
    if name in CORES:
        return name
    why = ""
    if name.startswith("max"):
        why = " 'max' is no core that exists, and with its SME instructions LiteRT computes wrong integers in qemu."
    raise ProfileError(
        f"Profile '{profile.name}': connection.cpu is '{name}'; known: {', '.join(CORES)}.{nearest(name, CORES)}{why}"
    )


def _emulator() -> str | None:
    return next((found for name in _EMULATORS if (found := shutil.which(name))), None)


def _version() -> str:
    done = subprocess.run([str(_emulator()), "--version"], capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.partition("\n")[0]


def _root(profile: DeviceProfile) -> Path:
    """The folder with the Arm system's C library."""
    if named := str(profile.connection.get("root", "")):
        root = Path(named).expanduser()
        if not (root / _LOADER).exists():
            raise ProfileError(f"Profile '{profile.name}': connection.root is {named}, which holds no {_LOADER}.")
        return root.resolve()
    for root in _ROOTS:
        if (root / _LOADER).exists():
            return root
    raise ProfileError(
        f"There is no Arm system here: install Debian 'g++-aarch64-linux-gnu', or name a folder with {_LOADER} in profile"
        f" '{profile.name}': connection.root."
    )


@contextmanager
def _described(system: Path, core: Core) -> Iterator[Path]:
    """A root with the system's folders and the core's ``/proc/cpuinfo``: runtimes that read this machine's own crash."""
    with tempfile.TemporaryDirectory(prefix="edgekit-arm-") as name:
        root = Path(name)
        for entry in system.iterdir():
            if entry.name not in {"proc", "sys", "dev", "tmp"}:  # those are this machine's own
                (root / entry.name).symlink_to(entry)
        (root / "proc").mkdir()
        (root / "proc" / "cpuinfo").write_text(core.cpuinfo(os.cpu_count() or 1), encoding="ascii")
        yield root
