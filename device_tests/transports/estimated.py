"""Devices that are computed, not reached: a model of the hardware is evaluated on this machine.

Nothing runs on the device, so nothing it says of itself is shown: facts are the profile's, and every number is ``estimated``.
"""

from __future__ import annotations

import platform
from pathlib import Path

from edgekit import registry
from edgekit.core.errors import ProfileError
from edgekit.core.measurement import Evidence
from edgekit.core.plugins import Appraiser
from edgekit.core.profile import DeviceProfile, Hardware
from edgekit.device_tests.jobs import Job, find_runtime
from edgekit.device_tests.transports.local import LocalTransport

__all__ = ["EstimatedDevice"]

_BARE_METAL = "none (bare metal)"
_WHEELS = "; tflite-micro has wheels for Linux on x86-64 only: run edgekit on such a machine"
_EVIDENCE = {"evidence": "estimated: computed on the machine that ran edgekit, nothing ran on the device"}


class EstimatedDevice(LocalTransport):
    """Runs the agent here, in the name of a device that is not here.

    Args:
        profile: The device's profile; every runtime in it must be one that appraises, with evidence ``estimated``.

    Raises:
        ProfileError: A runtime claims other evidence, or appraises nothing; or the profile has settings for a connection.
    """

    def __init__(self, profile: DeviceProfile) -> None:
        super().__init__(profile)
        _check(profile)

    @staticmethod
    def obstacle(profile: DeviceProfile) -> str:
        """Why the device cannot be appraised from here, and what to install; empty where it can."""
        for choice in profile.runtimes.values():
            runtime = find_runtime(choice.runtime)
            if missing := registry.missing_module(runtime):
                where = "" if _has_wheels() else _WHEELS
                return f"'{missing}' is not installed: pip install 'edgekit[{runtime.extra}]'{where}"
        return ""

    def facts(self) -> dict[str, str]:
        """The hardware as the profile has it, and that nothing ran on it."""
        return {**_described(self.profile.hardware), "system": self.profile.operating_system or _BARE_METAL, **_EVIDENCE}

    def run_agent(self, job: Path, *, timeout_s: float, log: Path | None = None) -> None:
        """Execute the job here; the device's limits on memory and processors are not this machine's.

        Raises:
            MissingExtraError: The runtime is not installed.
            WorkerError: The agent crashed, or ran out of time or memory.
        """
        plan = Job.read_json(job / "job.json")
        plan.replace(memory_bytes=None, affinity="").write_json(job / "job.json")
        super().run_agent(job, timeout_s=timeout_s, log=log)


def _has_wheels() -> bool:
    return (platform.system(), platform.machine()) == ("Linux", "x86_64")


def _check(profile: DeviceProfile) -> None:
    if profile.connection:
        raise ProfileError(
            f"Profile '{profile.name}': transport '{profile.transport}' connects to nothing, and 'connection' sets"
            f" {', '.join(profile.connection)}. Remove it, or use the transport that reaches the device."
        )
    tables = [profile.runtimes, *profile.systems.values()]
    for target, choice in ((target, choice) for table in tables for target, choice in table.items()):
        if choice.evidence is not Evidence.ESTIMATED:
            raise ProfileError(
                f"Profile '{profile.name}': runtime '{choice.runtime}' for target '{target}' claims evidence"
                f" '{choice.evidence.value}', and transport '{profile.transport}' runs nothing on the device: its numbers come"
                f' from a model of the hardware. Write evidence = "estimated" in [runtimes.{target}].'
            )
        if not isinstance(find_runtime(choice.runtime), Appraiser):
            raise ProfileError(
                f"Profile '{profile.name}': runtime '{choice.runtime}' for target '{target}' appraises nothing, so that transport"
                f" '{profile.transport}' has no numbers to give. Use tflite-micro, or ethos-u-vela for an Ethos-U."
            )


def _described(hardware: Hardware) -> dict[str, str]:
    """What is known of the hardware, under the names devices use of themselves."""
    cores = hardware.core_count
    rows = {
        "processor": hardware.processor,
        "architecture": hardware.architecture,
        "cores": str(cores) if cores else None,
        "clock": f"{hardware.clock_mhz:g} MHz" if hardware.clock_mhz else None,
        "memory": _size(hardware.memory_bytes),
        "flash": _size(hardware.storage_bytes),
        "instructions": " ".join(hardware.instructions),
        "accelerators": ", ".join(hardware.accelerators),
    }
    return {name: value for name, value in rows.items() if value}


def _size(size_bytes: int | None) -> str | None:
    """A size in the largest binary unit that leaves three figures.

    >>> _size(524288), _size(16 * 2**20), _size(None)
    ('512 KiB', '16 MiB', None)
    """
    if size_bytes is None:
        return None
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.3g} {unit}"
    return f"{size_bytes / 2**10:.4g} KiB"
