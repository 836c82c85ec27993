"""Which edgekit-runner and which runtime library a device needs, and whether those at hand are for its processor."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast

from edgekit.core.errors import ProfileError, UnsupportedOpError, UsageError
from edgekit.core.files import sha256
from edgekit.core.profile import DeviceProfile
from edgekit.runtimes.native.build import RunnerTarget, build_runner, missing_tools
from edgekit.runtimes.native.libraries import (
    arm_library,
    library_in,
    library_of,
    machine_of,
    version_beside,
    version_of,
)

__all__ = ["CONNECTION_KEYS", "Programs", "choose_library", "choose_programs", "missing_programs"]

CONNECTION_KEYS = ("runner", "library")
"""Keys of ``profile.connection`` that name programs built elsewhere."""

_ANDROID = "adb"
_SAME = {"arm64": "aarch64", "arm64-v8a": "aarch64", "amd64": "x86_64"}


@dataclasses.dataclass(frozen=True)
class Programs:
    """What is sent to a device to run a target's files.

    Args:
        runner: edgekit-runner, built for the device.
        library: The runtime's shared library.
        version: Its version; where it says none, the beginning of its digest.
    """

    runner: Path
    library: Path
    version: str


def choose_programs(profile: DeviceProfile, target: str, *, facts: Mapping[str, str], library: str = "") -> Programs:
    """The runner and the library for a device and a target.

    Args:
        profile: Its connection may name ``runner``, and ``library``: a file, or a folder of several.
        target: ``"onnx"`` or ``"tflite"``.
        facts: What the device says of itself.
        library: The library that the runtime's options name, if any.

    Raises:
        ProfileError: What the profile names is not there, or for another processor; or the device is another than it says.
        UnsupportedOpError: There is no runner for the device's processor.
        UsageError: The runner cannot be built here, or the library is not there.
    """
    architecture = _architecture(profile, facts)
    runner = _runner(profile, architecture)
    found = choose_library(profile, target, architecture=architecture, option=library)
    for what, path in (("connection.runner", runner), ("connection.library", found)):
        _check_machine(profile, what, path, architecture=architecture)
    return Programs(runner, found, _version(found, target))


def missing_programs(profile: DeviceProfile, *, architecture: Literal["aarch64"]) -> str:
    """Why the runner cannot be built here for an architecture, where none is named; empty where it can.

    Raises:
        EdgekitError: A runtime's library is not there, or is another machine's.
    """
    if not profile.connection.get("runner") and (tools := missing_tools(architecture)):
        return f"{', '.join(tools)} not found: install Debian 'g++-aarch64-linux-gnu', 'cmake' and 'make'"
    for target, choice in profile.runtimes.items():
        choose_library(profile, target, architecture=architecture, option=str(choice.options.get("library", "")))
    return ""


def _architecture(profile: DeviceProfile, facts: Mapping[str, str]) -> str:
    """As the device says it; that the profile says the same is checked."""
    named = profile.hardware.architecture or ""
    said = facts.get("architecture", "") or named
    found, expected = (_SAME.get(word, word) for word in (said, named))
    if expected and found != expected:
        raise ProfileError(
            f"Device '{profile.name}' says its architecture is {said}; its profile says {named} (hardware.architecture)."
            " It is another device, or a 32-bit system on a 64-bit processor: correct the profile."
        )
    if not found:
        raise ProfileError(f"Device '{profile.name}' does not say its architecture: set hardware.architecture in its profile.")
    return found


def _runner(profile: DeviceProfile, architecture: str) -> Path:
    if named := str(profile.connection.get("runner", "")):
        return _existing(profile, "runner", named)
    if profile.transport == _ANDROID:
        raise ProfileError(
            f"Device '{profile.name}' runs Android, for which edgekit-runner is built with the NDK: name the program in its"
            " profile, connection.runner, and the runtime's libraries, connection.library (docs/native-runner.md)."
        )
    if architecture == platform.machine():
        return build_runner()
    if architecture == "aarch64":
        return build_runner(cast("RunnerTarget", architecture))
    raise UnsupportedOpError(
        f"Device '{profile.name}' is {architecture}; edgekit-runner is built here for {platform.machine()} and aarch64."
        " Build it there with CMake (docs/native-runner.md), and name the program in the profile: connection.runner."
    )


def choose_library(profile: DeviceProfile, target: str, *, architecture: str, option: str = "") -> Path:
    """The runtime's library for a device.

    Args:
        profile: Its connection may name ``library``: a file, or a folder of several.
        target: ``"onnx"`` or ``"tflite"``.
        architecture: Of the device.
        option: The library that the runtime's options name, if any.

    Raises:
        ProfileError: What the profile names is not there, or it has to name one.
        UsageError: The library is not there.
    """
    if option:
        return _existing(profile, "library", option, table=f"runtimes.{target}.options")
    if named := str(profile.connection.get("library", "")):
        return _named_library(profile, target, named)
    if architecture == platform.machine() and profile.transport != _ANDROID:
        return library_of(target)
    if architecture == "aarch64" and profile.transport != _ANDROID:
        return arm_library(target)
    raise ProfileError(
        f"The runtime's library for {target} on device '{profile.name}' ({architecture}) is not known: name the file, or a"
        " folder of several, in its profile: connection.library."
    )


def _named_library(profile: DeviceProfile, target: str, named: str) -> Path:
    place = Path(named).expanduser()
    if place.is_dir():
        if found := library_in(place, target):
            return found
        raise ProfileError(f"Profile '{profile.name}': connection.library is {named}, a folder without a library for {target}.")
    return _existing(profile, "library", named)


def _existing(profile: DeviceProfile, key: str, named: str, *, table: str = "connection") -> Path:
    path = Path(named).expanduser()
    if not path.is_file():
        raise ProfileError(f"Profile '{profile.name}': {table}.{key} is {named}, which is no file here. Correct the path.")
    return path


def _check_machine(profile: DeviceProfile, what: str, path: Path, *, architecture: str) -> None:
    found = machine_of(path)
    if found != architecture:
        kind = f"was built for {found}" if found else "is no ELF program"
        raise ProfileError(
            f"Device '{profile.name}' is {architecture}, but {path.name} {kind}. Name one that was built for it: {what}."
        )


def _version(library: Path, target: str) -> str:
    if library == _installed(target):
        return version_of(target)
    return version_beside(library, target) or f"sha256 {sha256(library)[:12]}"


def _installed(target: str) -> Path | None:
    try:
        return library_of(target)
    except UsageError:
        return None
