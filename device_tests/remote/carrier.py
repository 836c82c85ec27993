"""Carries jobs to a device over any link and brings their results back whole, or says that the device was lost."""

from __future__ import annotations

from pathlib import Path

from edgekit.core.device_link import DeviceAgent, Link
from edgekit.core.errors import DeviceError
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.remote.facts import device_facts

__all__ = ["RemoteTransport"]


class RemoteTransport:
    """Executes job folders on a device behind a link.

    Args:
        profile: The device's profile.
        link: How to reach it.
        agent: What executes jobs there.
    """

    def __init__(self, profile: DeviceProfile, *, link: Link, agent: DeviceAgent) -> None:
        self.profile = profile
        self.link = link
        self.agent = agent

    def facts(self) -> dict[str, str]:
        """See :func:`edgekit.device_tests.remote.facts.device_facts`."""
        self.link.connect()
        return device_facts(self.link)

    def run_agent(self, job: Path, *, timeout_s: float, log: Path | None = None) -> None:
        """Execute the job folder on the device and bring its result back.

        Raises:
            DeviceError: The device was lost.
            WorkerError: The agent crashed, or ran out of time.
        """
        raise DeviceError(f"{job}: no job runs over a link yet.")

    def close(self) -> None:
        """Leave nothing running on the device."""
        self.link.close()
