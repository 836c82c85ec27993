"""A new device gets a profile: it is asked what it is and what runs models on it, and extends the shipped one nearest to it."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from pathlib import Path

from edgekit.core.device_link import Link
from edgekit.core.errors import EdgekitError, ProfileError, UnsupportedOpError
from edgekit.core.plugins import Progress, silent
from edgekit.core.profile import DeviceProfile, RuntimeChoice
from edgekit.device_tests.attachment import architecture_of, connect
from edgekit.device_tests.interpreters import PythonThere, find_python, install_command, need_python
from edgekit.device_tests.profiles.own import base_table, need_base, new_path, own_table, write_own
from edgekit.device_tests.profiles.recognition import generic_base, recognise

__all__ = ["Enrolled", "enrol"]

_IN_PYTHON = {"onnx": "onnxruntime", "tflite": "litert"}
_ON_MACS = {"coreml": "coreml", **_IN_PYTHON}
_NATIVE = {"onnx": "native-onnx", "tflite": "native-tflite"}
_STEPS = 3


@dataclasses.dataclass(frozen=True)
class Enrolled:
    """A profile that was written.

    Args:
        path: Its file.
        text: What stands in it.
        base: The profile it extends.
        facts: What the device said of itself.
        notes: What its owner should know: what was looked for and is not there.
    """

    path: Path
    text: str
    base: str
    facts: Mapping[str, str]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Survey:
    transport: str
    connection: dict[str, str | int | float | bool]
    runtimes: dict[str, str]
    has_python: bool
    notes: tuple[str, ...]


def enrol(
    name: str,
    *,
    transport: str,
    connection: Mapping[str, str | int | float | bool],
    python: str = "",
    base: str = "",
    force: bool = False,
    progress: Progress = silent,
) -> Enrolled:
    """Reach a device, and write its profile into the folder of one's own.

    Args:
        name: What it is to be called.
        transport: ``"ssh"`` or ``"adb"``.
        connection: How it is reached, as in a profile.
        python: The interpreter on it that is to run edgekit's agent; empty: one with a usual name, or none.
        base: The profile it extends; empty: the nearest shipped one.
        force: Replace a profile of that name.
        progress: Called at each step.

    Raises:
        OutputError: There is such a profile.
        DeviceError: The device cannot be reached.
        ProfileError: A setting or the base is wrong; or the Python that was named cannot run the agent.
        UnsupportedOpError: Nothing there runs models.
    """
    path = new_path(name, force=force)
    if base:
        base_table(base)
    asked = DeviceProfile(
        name=name,
        title=name,
        transport=transport,
        connection=dict(connection),
        runtimes={target: RuntimeChoice(runtime=runtime) for target, runtime in _NATIVE.items()},
    )
    progress("connecting", 0, _STEPS)
    device = connect(asked)
    try:
        facts = device.facts()
        progress("looking for runtimes", 1, _STEPS)
        link = getattr(device, "link", None)
        if not isinstance(link, Link):
            raise ProfileError(
                f"Transport '{transport}' has no link over which a device could be asked; write the profile by hand."
            )
        survey = _survey_adb(asked, facts) if transport == "adb" else _survey_ssh(asked, facts, link, python=python)
    finally:
        device.close()
    progress("writing the profile", 2, _STEPS)
    near = base or recognise(facts, transports=[survey.transport]) or _generic(survey, facts)
    table = own_table(
        name,
        base=need_base(near, facts),
        transport=survey.transport,
        connection=survey.connection,
        facts=facts,
        runtimes=survey.runtimes,
    )
    text = write_own(path, table)
    progress("writing the profile", _STEPS, _STEPS)
    return Enrolled(path, text, near, facts, survey.notes)


def _generic(survey: _Survey, facts: Mapping[str, str]) -> str:
    if survey.transport == "adb":
        return "_android"
    return generic_base(facts, has_python=survey.has_python)


def _survey_ssh(asked: DeviceProfile, facts: Mapping[str, str], link: Link, *, python: str) -> _Survey:
    """Python with edgekit where it is there; else, or where one is named, the native runner."""
    if "runner" in asked.connection and not python:
        return _Survey("ssh", {**asked.connection, "agent": "native"}, dict(_NATIVE), has_python=False, notes=())
    is_mac = facts.get("system") == "Darwin"
    wanted = _ON_MACS if is_mac else _IN_PYTHON
    host = str(asked.connection["host"])
    there = find_python(link, python=python, runtimes=tuple(wanted.values()))
    if python:
        there = need_python(there, python, host)
    transport = "mac" if is_mac else "ssh"
    if there is not None and not there.obstacle:
        found = {target: runtime for target, runtime in wanted.items() if not there.lacks(runtime)}
        notes = tuple(
            f"{target}: {runtime} needs '{there.lacks(runtime)}', which is not there: {install_command(there.executable, target)}"
            for target, runtime in wanted.items()
            if target not in found
        )
        if found:
            return _Survey(transport, {**asked.connection, "python": there.executable}, found, has_python=True, notes=notes)
    return _without_python(asked, facts, there, transport=transport)


def _without_python(asked: DeviceProfile, facts: Mapping[str, str], there: PythonThere | None, *, transport: str) -> _Survey:
    why = (there.obstacle or f"{there.executable} has none of the runtimes") if there else "no Python answers"
    remedy = install_command(there.executable if there else "python3", "onnx,tflite")
    if transport == "mac":
        raise ProfileError(f"{asked.connection['host']} is a Mac, where edgekit needs Python: {why}. Run there: {remedy}")
    architecture = architecture_of(facts)
    if architecture not in {"aarch64", platform.machine()}:
        raise UnsupportedOpError(
            f"Nothing on {asked.connection['host']} runs models: {why}; and edgekit-runner is not built here for"
            f" {architecture or 'its processor'}. Run there: {remedy}; or build edgekit-runner there (docs/native-runner.md) and"
            " name it: --runner FILE"
        )
    notes = (
        f"{why}, so edgekit-runner is sent there. To use Python instead, run there: {remedy}; then add it again with --force.",
    )
    return _Survey(transport, {**asked.connection, "agent": "native"}, dict(_NATIVE), has_python=False, notes=notes)


def _survey_adb(asked: DeviceProfile, facts: Mapping[str, str]) -> _Survey:
    """Android has no Python: what can be named here is the runner and the runtimes' libraries."""
    from edgekit.device_tests.native_agent.programs import choose_library

    notes: list[str] = []
    if "runner" not in asked.connection:
        notes.append("edgekit-runner for Android is not named: build it with the NDK (docs/native-runner.md), then --runner FILE")
    found: dict[str, str] = {}
    for target, runtime in _NATIVE.items():
        try:
            choose_library(asked, target, architecture=architecture_of(facts))
        except EdgekitError as reason:
            notes.append(f"{target}: {reason}")
        else:
            found[target] = runtime
    # Named later, both can be used: what is missing is said by 'devices check'.
    return _Survey("adb", dict(asked.connection), found or dict(_NATIVE), has_python=False, notes=tuple(notes))
