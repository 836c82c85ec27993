"""The real adb client against the labelled test daemon (:mod:`tests.device_tests.adb_daemon`), on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.transports.adb import AdbLink
from edgekit.runtimes.native.build import build_runner, missing_tools
from edgekit.runtimes.native.libraries import library_of
from tests.device_tests.adb_daemon.device import AdbServer, TestDevice, missing


@pytest.fixture(scope="session")
def adb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdbServer]:
    """An adb server of these tests' own."""
    if reason := missing():
        pytest.skip(reason)
    server = AdbServer(tmp_path_factory.mktemp("adb-home"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def shared_device(adb_server: AdbServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestDevice]:
    device = TestDevice(tmp_path_factory.mktemp("device"))
    yield device
    device.stop()


@pytest.fixture
def device(shared_device: TestDevice) -> Iterator[TestDevice]:
    """One device for all tests of a module; what a test broke is mended behind it."""
    yield shared_device
    shared_device.mend()


@pytest.fixture
def profile_of(adb_server: AdbServer) -> Callable[..., DeviceProfile]:
    """A profile of a test device, or of none; emulated, for the daemon is no Android device."""

    def make(device: TestDevice | None = None, **changes: Any) -> DeviceProfile:
        fields: dict[str, Any] = {"name": "daemon", "title": "edgekit's adb test daemon", "transport": "adb", "runtimes": {}}
        connection = {"server_port": adb_server.port, **({"serial": device.serial} if device else {})}
        connection |= changes.pop("connection", {})
        return DeviceProfile.parse(fields | {"connection": connection} | changes, source="test")

    return make


@pytest.fixture
def link(device: TestDevice, profile_of: Callable[..., DeviceProfile]) -> Iterator[AdbLink]:
    """A connected link."""
    link = AdbLink(profile_of(device))
    link.connect()
    yield link
    link.close()


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The runner and libraries of this machine, which the test device's processor is."""
    if tools := missing_tools():
        pytest.skip(f"edgekit-runner cannot be built here: {', '.join(tools)} not found; apt-get install cmake g++ make")
    libraries = tmp_path_factory.mktemp("libraries")
    for target in ("onnx", "tflite"):
        path = library_of(target)
        (libraries / path.name).symlink_to(path)
    return {"runner": str(build_runner()), "library": str(libraries)}
