"""The transport to a Mac, without one: it is put together as it should be, and says so where no Mac answers."""

from __future__ import annotations

import pytest

from edgekit.core.errors import ProfileError
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.remote.python_agent import PythonAgent
from edgekit.device_tests.transports import ssh
from edgekit.device_tests.transports.mac import MacTransport


def profile(**connection: str) -> DeviceProfile:
    choice = {"runtime": "coreml", "options": {"provider": "neural-engine"}}
    fields = {"name": "mac", "title": "A Mac", "transport": "mac", "connection": connection, "runtimes": {"coreml": choice}}
    return DeviceProfile.parse(fields, source="test")


def test_it_is_ssh_with_the_python_agent() -> None:
    transport = MacTransport(profile(host="mac.local", python="/opt/homebrew/bin/python3"))
    assert isinstance(transport.agent, PythonAgent)
    assert transport.agent.python == "/opt/homebrew/bin/python3"
    assert isinstance(transport.link, ssh.SshLink)
    assert MacTransport.obstacle(transport.profile) == ""
    assert "host is not set" in MacTransport.obstacle(profile())


def test_the_native_runner_has_no_core_ml() -> None:
    with pytest.raises(ProfileError, match="coremltools, which needs 'python'"):
        MacTransport(profile(host="mac.local", agent="native"))


def test_a_device_that_is_no_mac_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh.SshTransport, "facts", lambda _: {"system": "Linux"})
    with pytest.raises(ProfileError, match=r"Linux runs there, not macOS.*'coreml-reference'"):
        MacTransport(profile(host="mac.local")).facts()
