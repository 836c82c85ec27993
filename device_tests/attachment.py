"""What is at the other end of a profile: whether it can be tried, what the device says of itself, and which runtimes it has."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import cast

from edgekit import registry
from edgekit.core.device_link import Link
from edgekit.core.errors import DeviceError, EdgekitError
from edgekit.core.plugins import Transport
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.interpreters import find_python, install_command
from edgekit.device_tests.jobs import find_runtime
from edgekit.device_tests.profiles.instructions import instructions_of

__all__ = ["Examination", "architecture_of", "connect", "examine", "obstacle_of"]

_LEAST_MEMORY_SHARE = 0.7
"""Firmware and graphics keep a part of the memory that a data sheet names; of a small board's a fifth."""
_SAME_ARCHITECTURE = {"arm64": "aarch64", "arm64-v8a": "aarch64", "amd64": "x86_64"}


@dataclasses.dataclass(frozen=True)
class Examination:
    """What a device was found to be.

    Args:
        name: Of its profile.
        unreached: Why it could not be reached; empty where it was.
        facts: What it says of itself.
        runtimes: Target -> runtime and version found on it.
        missing: What its profile promises and it does not have, with what to do.
        remarks: How it differs from its profile otherwise.
    """

    name: str
    unreached: str = ""
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    runtimes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    missing: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def obstacle_of(profile: DeviceProfile) -> str:
    """Why a device could not be tried from here, and what to do; empty where it could. Makes no connection.

    >>> from edgekit.device_tests.profiles import load_profile
    >>> obstacle_of(load_profile("host"))
    ''
    """
    if profile.transport == "adb" and not profile.connection.get("serial"):
        # adb alone would take whatever phone is attached, and call it by this profile's name
        return "connection.serial is not set: edgekit devices add NAME --adb SERIAL"
    ask = cast("Callable[[DeviceProfile], str] | None", getattr(registry.transport(profile.transport), "obstacle", None))
    try:
        return ask(profile) if ask is not None else ""
    except EdgekitError as reason:
        return str(reason)


def connect(profile: DeviceProfile) -> Transport:
    """The transport to a device.

    Raises:
        ProfileError: Its settings are wrong.
    """
    return cast("Callable[[DeviceProfile], Transport]", registry.transport(profile.transport))(profile)


def examine(profile: DeviceProfile) -> Examination:
    """Reach a device and compare it with its profile; whatever goes wrong is said in what comes back."""
    if obstacle := obstacle_of(profile):
        return Examination(profile.name, unreached=obstacle)
    facts: Mapping[str, str] = {}
    try:
        with contextlib.closing(connect(profile)) as transport:
            facts = transport.facts()
            found, missing = _runtimes_of(profile, transport, facts)
    except DeviceError as reason:
        return Examination(profile.name, unreached=str(reason), facts=facts)
    except EdgekitError as reason:  # its settings, or what is needed here to reach it
        return Examination(profile.name, facts=facts, missing=(str(reason),))
    wrong = _architecture_problem(profile, facts)
    return Examination(profile.name, facts=facts, runtimes=found, missing=(*wrong, *missing), remarks=_remarks(profile, facts))


def _runtimes_of(profile: DeviceProfile, transport: Transport, facts: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Target -> runtime and version on the device, and what is missing there."""
    link = getattr(transport, "link", None)
    if not isinstance(link, Link):
        return _runtimes_here(profile)
    if profile.transport == "adb" or profile.connection.get("agent") == "native":
        return _native_runtimes(profile, facts)
    names = tuple(choice.runtime for choice in profile.runtimes.values())
    python = str(profile.connection.get("python", "python3"))
    there = find_python(link, python=python, runtimes=names)
    if there is None:
        return {}, [f"no '{python}' on the device: name the interpreter there as connection.python, with its full path"]
    if there.obstacle:
        return {}, [f"{there.obstacle}: run there {install_command(there.executable, '')}"]
    found: dict[str, str] = {}
    missing: list[str] = []
    for target, choice in profile.runtimes.items():
        if lacking := there.lacks(choice.runtime):
            extra = find_runtime(choice.runtime).extra
            missing.append(f"{target}: {choice.runtime} needs '{lacking}': run there {install_command(there.executable, extra)}")
        else:
            found[target] = f"{choice.runtime} {there.version_of(choice.runtime)}".strip()
    return found, missing


def _runtimes_here(profile: DeviceProfile) -> tuple[dict[str, str], list[str]]:
    """Where the transport runs the runtimes on this machine, they must be installed here."""
    found: dict[str, str] = {}
    missing: list[str] = []
    for target, choice in profile.runtimes.items():
        runtime = find_runtime(choice.runtime)
        if module := registry.missing_module(runtime):
            missing.append(f"{target}: {choice.runtime} needs '{module}': pip install 'edgekit[{runtime.extra}]'")
        else:
            found[target] = choice.runtime
    return found, missing


def _native_runtimes(profile: DeviceProfile, facts: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """What would be sent to a device without Python. The runner itself is built when the first job needs it."""
    from edgekit.device_tests.native_agent.programs import choose_library

    found: dict[str, str] = {}
    missing: list[str] = []
    if profile.transport == "adb" and not profile.connection.get("runner"):
        missing.append(
            "connection.runner is not set: build edgekit-runner with the NDK (docs/native-runner.md) and name it there"
        )
    for target, choice in profile.runtimes.items():
        try:
            library = choose_library(
                profile, target, architecture=architecture_of(facts), option=str(choice.options.get("library", ""))
            )
        except EdgekitError as reason:
            missing.append(f"{target}: {reason}")
        else:
            found[target] = f"{choice.runtime} with {library.name}"
    return found, missing


def _architecture_problem(profile: DeviceProfile, facts: Mapping[str, str]) -> list[str]:
    said, named = architecture_of(facts), profile.hardware.architecture
    if said and named and said != _SAME_ARCHITECTURE.get(named, named):
        return [
            f"the device says its architecture is {said}, and the profile {named} (hardware.architecture): correct the profile"
        ]
    return []


def architecture_of(facts: Mapping[str, str]) -> str:
    """The device's architecture as ``uname -m`` says it on Linux."""
    said = facts.get("architecture", "")
    return _SAME_ARCHITECTURE.get(said, said)


def _remarks(profile: DeviceProfile, facts: Mapping[str, str]) -> tuple[str, ...]:
    """Where the device is not what its profile says, in numbers."""
    hardware, remarks = profile.hardware, []
    cores = facts.get("cores", "").split(" ")[0]
    if hardware.core_count and cores.isdecimal() and int(cores) != hardware.core_count:
        remarks.append(f"{cores} processors; the profile says {hardware.core_count}")
    amount, _, unit = facts.get("memory", "").partition(" ")
    if hardware.memory_bytes and unit == "GiB" and float(amount) < _LEAST_MEMORY_SHARE * hardware.memory_bytes / 2**30:
        remarks.append(f"{amount} GiB of memory; the profile says {hardware.memory_bytes / 2**30:.1f}")
    if known := instructions_of(facts):
        lacking = [name for name in hardware.instructions if name not in known]
        if lacking:
            remarks.append(f"without {', '.join(lacking)}, which the profile lists (hardware.instructions)")
    return tuple(remarks)
