"""What a profile may say of the virtual machine. The machine itself takes too long for every run: benchmarks/arm64_vm.py."""

from __future__ import annotations

from typing import Any

import pytest

from edgekit.core.errors import DeviceError, ProfileError
from edgekit.core.measurement import Evidence
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.profiles import load_profile
from edgekit.device_tests.transports import qemu_vm
from edgekit.device_tests.transports.qemu_vm import QemuVmTransport


def machine(**fields: Any) -> DeviceProfile:
    return load_profile("arm64-vm").replace(**fields)


def test_its_numbers_are_emulated() -> None:
    assert {choice.evidence for choice in machine().runtimes.values()} == {Evidence.EMULATED}


@pytest.mark.parametrize(
    ("connection", "words"),
    [
        ({"cpu": "cortex-a7"}, "connection.cpu is 'cortex-a7'; known: .*Did you mean 'cortex-a7"),
        ({"core": 2}, "sets connection.core, which the transport 'qemu-vm' does not know.*'cores'"),
        ({"memory_mb": "1024"}, "connection.memory_mb is '1024'; it must be a whole number"),
        ({"cores": 0}, "connection.cores is 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(connection: dict[str, Any], words: str) -> None:
    with pytest.raises(ProfileError, match=words):
        QemuVmTransport(machine(connection=connection))
    assert QemuVmTransport.obstacle(machine(connection=connection))


def test_measured_is_refused() -> None:
    runtimes = machine().runtimes
    with pytest.raises(ProfileError, match="calls its numbers for 'onnx' measured"):
        QemuVmTransport(machine(runtimes={"onnx": runtimes["onnx"].replace(evidence=Evidence.MEASURED)}))


def test_what_is_missing_here_is_said_and_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu_vm, "missing_tools", lambda: ("qemu-system-arm",))
    assert QemuVmTransport.obstacle(machine()) == "no virtual machine: install Debian qemu-system-arm"
    with pytest.raises(DeviceError, match="install Debian qemu-system-arm"):
        QemuVmTransport(machine())
    monkeypatch.setattr(qemu_vm, "missing_tools", lambda: ())
    if not QemuVmTransport.obstacle(machine()):
        QemuVmTransport(machine()).close()
