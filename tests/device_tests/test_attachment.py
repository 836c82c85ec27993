"""What is at the other end of a profile: real shells and real interpreters of this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import edgekit
from edgekit.core.errors import DeviceError, ProfileError
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests import attachment
from edgekit.device_tests.attachment import examine, obstacle_of
from edgekit.device_tests.interpreters import find_python, need_python
from edgekit.device_tests.profiles import load_profile
from edgekit.device_tests.testing import ShellLink


def profile(**fields: Any) -> DeviceProfile:
    runtimes = {"onnx": {"runtime": "onnxruntime"}}
    return DeviceProfile.parse({"name": "x", "title": "X", "runtimes": runtimes} | fields, source="test")


@pytest.fixture
def link(tmp_path: Path) -> ShellLink:
    made = ShellLink(tmp_path / "device")
    made.connect()
    return made


class Behind:
    """A transport over a link, as the carrier is one; its device says what it is told to say."""

    def __init__(self, link: ShellLink, facts: dict[str, str]) -> None:
        self.link = link
        self.said = facts
        self.is_closed = False

    def facts(self) -> dict[str, str]:
        if not self.said:
            raise DeviceError("The device does not answer.")
        return self.said

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def behind(link: ShellLink, monkeypatch: pytest.MonkeyPatch) -> Behind:
    made = Behind(
        link, {"architecture": "x86_64", "cores": "4 logical, 2 physical", "memory": "0.4 GiB", "instructions": "sse4_2"}
    )
    monkeypatch.setattr(attachment, "obstacle_of", lambda _: "")
    monkeypatch.setattr(attachment, "connect", lambda _: made)
    return made


def test_a_python_with_edgekit_is_found(link: ShellLink) -> None:
    found = find_python(link, python=sys.executable, runtimes=("onnxruntime", "coreml"))
    assert found is not None
    assert found.obstacle == ""
    assert found.version == tuple(sys.version_info[:3])
    assert found.edgekit == edgekit.__version__
    assert found.lacks("onnxruntime") == ""
    assert found.version_of("onnxruntime")[0].isdigit()


def fake_python(folder: Path, name: str, prints: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\ncat >/dev/null\necho motd\necho '{prints}'\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("prints", "words"),
    [
        ('edgekit-python: {"python": [3, 9, 2], "executable": "/p", "modules": {}}', "/p is Python 3.9.2; edgekit needs 3.11"),
        ('edgekit-python: {"python": [3, 12, 0], "executable": "/p", "modules": {}}', "/p has no edgekit"),
        (
            'edgekit-python: {"python": [3, 12, 0], "executable": "/p", "edgekit": "0.0.1", "modules": {}}',
            "/p has edgekit 0.0.1, and",
        ),
        ("edgekit-python: {", "has no Python"),
        ("edgekit-python: [3]", "has no Python"),
        ("something else", "has no Python"),
    ],
)
def test_a_python_that_cannot_run_the_agent_says_why(link: ShellLink, tmp_path: Path, prints: str, words: str) -> None:
    python = str(fake_python(tmp_path, "python", prints))
    with pytest.raises(ProfileError) as caught:
        need_python(find_python(link, python=python), python, "board")
    assert words in str(caught.value)
    assert "board" in str(caught.value)


def test_no_python_at_all(link: ShellLink) -> None:
    assert find_python(link, python="/nowhere/python") is None


def test_the_first_of_the_usual_names_that_can_run_it_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    fake_python(folder, "python3", 'edgekit-python: {"python": [3, 8, 0], "executable": "/old", "modules": {}}')
    newer = f'edgekit-python: {{"python": [3, 12, 1], "executable": "/new", "edgekit": "{edgekit.__version__}", "modules": {{}}}}'
    fake_python(folder, "python3.12", newer)
    link = ShellLink(tmp_path / "device", path=f"{folder}:/usr/bin:/bin")
    link.connect()
    found = find_python(link)
    assert found is not None
    assert found.executable == "/new"


def test_this_machine_is_examined() -> None:
    found = examine(load_profile("host"))
    assert (found.unreached, found.missing) == ("", ())
    assert found.runtimes["onnx"] == "onnxruntime"


def test_devices_that_nobody_named_are_not_ready() -> None:
    assert "edgekit devices add" in obstacle_of(load_profile("raspberry-pi-4"))
    assert "connection.serial is not set" in obstacle_of(load_profile("pixel-8"))
    assert "edgekit jobs export" in obstacle_of(load_profile("iphone-15"))
    assert "connection.hots" in obstacle_of(load_profile("raspberry-pi-4").replace(connection={"host": "h", "hots": "x"}))
    found = examine(load_profile("raspberry-pi-4"))
    assert found.unreached == obstacle_of(load_profile("raspberry-pi-4"))


def test_what_a_device_has_and_how_it_differs(behind: Behind) -> None:
    hardware = {"architecture": "x86_64", "core_count": 8, "memory_bytes": 2**30, "instructions": ["sse4.2", "avx2"]}
    found = examine(profile(connection={"python": sys.executable}, hardware=hardware))
    assert list(found.runtimes) == ["onnx"]
    assert found.missing == ()
    assert found.remarks == (
        "4 processors; the profile says 8",
        "0.4 GiB of memory; the profile says 1.0",
        "without avx2, which the profile lists (hardware.instructions)",
    )
    assert behind.is_closed


def test_what_a_device_lacks(behind: Behind, tmp_path: Path) -> None:
    hardware = {"architecture": "aarch64"}
    newer = f'edgekit-python: {{"python": [3, 12, 1], "executable": "/p", "edgekit": "{edgekit.__version__}", "modules": {{}}}}'
    python = str(fake_python(tmp_path, "python", newer))
    found = examine(profile(connection={"python": python}, hardware=hardware))
    assert found.missing[0].startswith("the device says its architecture is x86_64, and the profile aarch64")
    assert "run there /p -m pip install 'edgekit[onnx]==" in found.missing[1]
    none = examine(profile(connection={"python": "/nowhere/python"}))
    assert none.missing == (
        "no '/nowhere/python' on the device: name the interpreter there as connection.python, with its full path",
    )


def test_a_device_without_python_needs_a_library_for_its_processor(behind: Behind) -> None:
    behind.said["architecture"] = "riscv64"
    native = {"onnx": {"runtime": "native-onnx"}}
    found = examine(profile(connection={"agent": "native"}, runtimes=native))
    assert "onnx: The runtime's library for onnx on device 'x' (riscv64) is not known" in found.missing[0]
    assert found.runtimes == {}


def test_a_device_that_is_another_than_its_transport_is_for(behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> dict[str, str]:
        raise ProfileError("Linux runs there, not macOS.")

    monkeypatch.setattr(behind, "facts", refuse)
    found = examine(profile())
    assert (found.unreached, found.missing) == ("", ("Linux runs there, not macOS.",))
    assert behind.is_closed


def test_a_device_that_does_not_answer(behind: Behind) -> None:
    behind.said = {}
    found = examine(profile())
    assert found.unreached == "The device does not answer."
    assert behind.is_closed
