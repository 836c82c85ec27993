"""Which programs are sent to which device, and what is refused before anything is sent."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from edgekit.core.errors import ProfileError, UnsupportedOpError
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.native_agent.programs import choose_programs
from edgekit.runtimes.native.build import build_runner
from edgekit.runtimes.native.libraries import library_of, machine_of, version_beside, version_of

HERE = {"architecture": "x86_64"}


def device(**fields: Any) -> DeviceProfile:
    given = {"name": "board", "title": "A board", "runtimes": {"onnx": {"runtime": "native-onnx"}}}
    return DeviceProfile.parse(given | fields, source="test")


def arm_elf(folder: Path, name: str) -> Path:
    """The first bytes of a 64-bit Arm program."""
    path = folder / name
    path.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00\xb7\x00" + bytes(44))
    return path


def test_this_machine_gets_its_own_programs() -> None:
    found = choose_programs(device(), "onnx", facts=HERE)
    assert found.runner == build_runner()
    assert found.library == library_of("onnx")
    assert found.version == version_of("onnx")


def test_named_programs_are_used(tmp_path: Path) -> None:
    runner, library = arm_elf(tmp_path, "runner"), arm_elf(tmp_path, "libonnxruntime.so")
    connection: dict[str, Any] = {"runner": str(runner), "library": str(library)}
    found = choose_programs(device(connection=connection), "onnx", facts={"architecture": "aarch64"})
    assert (found.runner, found.library) == (runner, library)
    assert found.version.startswith("sha256 ")
    folder = choose_programs(device(connection=connection | {"library": str(tmp_path)}), "onnx", facts={"architecture": "arm64"})
    assert folder.library == library
    option = choose_programs(
        device(connection={"runner": str(runner)}), "onnx", facts={"architecture": "aarch64"}, library=str(library)
    )
    assert option.library == library


def test_a_librarys_version_stands_beside_it(tmp_path: Path) -> None:
    inner = tmp_path / "onnxruntime" / "capi"
    inner.mkdir(parents=True)
    (tmp_path / "onnxruntime-1.31.1.dist-info").mkdir()
    assert version_beside(arm_elf(inner, "libonnxruntime.so"), "onnx") == "1.31.1"


@pytest.mark.parametrize(
    ("fields", "facts", "error", "words"),
    [
        ({}, {"architecture": "armv7l"}, UnsupportedOpError, "is armv7l; edgekit-runner is built here for"),
        ({}, {}, ProfileError, "does not say its architecture"),
        ({"hardware": {"architecture": "aarch64"}}, HERE, ProfileError, "its profile says aarch64"),
        ({"transport": "adb"}, {"architecture": "aarch64"}, ProfileError, "built with the NDK"),
        ({"connection": {"runner": "/nowhere"}}, HERE, ProfileError, "which is no file here"),
        ({"connection": {"library": "/nowhere"}}, HERE, ProfileError, "connection.library is /nowhere"),
        ({"connection": {"library": "/usr"}}, HERE, ProfileError, "a folder without a library for onnx"),
        (
            {"connection": {"runner": "/bin/sh", "library": "/etc/hosts"}},
            {"architecture": "x86_64"},
            ProfileError,
            "no ELF program",
        ),
    ],
)
def test_what_cannot_run_there_is_refused(
    fields: dict[str, Any], facts: dict[str, str], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        choose_programs(device(**fields), "onnx", facts=facts)


def test_a_program_for_another_processor_is_refused(tmp_path: Path) -> None:
    shutil.copy(build_runner(), tmp_path / "runner")
    assert machine_of(tmp_path / "runner") == machine_of(build_runner()) != ""
    connection: dict[str, Any] = {"runner": str(arm_elf(tmp_path, "arm")), "library": str(library_of("onnx"))}
    with pytest.raises(ProfileError, match="is x86_64, but arm was built for aarch64"):
        choose_programs(device(connection=connection), "onnx", facts=HERE)
