"""Executes job folders by edgekit-runner: inputs become arrays in the file's own types, reports become the job's result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgekit.core.device_link import Errand
from edgekit.core.profile import DeviceProfile

__all__ = ["NativeAgent"]


class NativeAgent:
    """A device agent without Python on the device.

    Args:
        profile: The device; ``connection.runner`` and ``connection.library`` name programs built elsewhere.
    """

    def __init__(self, profile: DeviceProfile) -> None:
        self.profile = profile

    def prepare(self, job: Path, *, facts: Mapping[str, str]) -> Errand:
        """See :meth:`edgekit.core.device_link.DeviceAgent.prepare`."""
        raise NotImplementedError

    def collect(self, job: Path) -> None:
        """See :meth:`edgekit.core.device_link.DeviceAgent.collect`."""
        raise NotImplementedError
