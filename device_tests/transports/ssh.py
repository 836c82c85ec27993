"""Devices reached over SSH."""

from __future__ import annotations

from pathlib import Path

from edgekit.core.device_link import Finished
from edgekit.core.errors import DeviceError
from edgekit.core.profile import DeviceProfile

__all__ = ["SshLink"]


class SshLink:
    """One SSH connection to one device; see :class:`edgekit.core.device_link.Link`.

    Args:
        profile: Its ``connection`` says host, port, user, key, known_hosts and folder.
    """

    def __init__(self, profile: DeviceProfile) -> None:
        self.profile = profile

    def connect(self) -> None:
        """Reach the device."""
        raise DeviceError("No SSH yet.")

    def run(self, command: str, *, timeout_s: float, given: bytes = b"") -> Finished:
        """Run a command line in edgekit's folder."""
        raise DeviceError(f"No SSH yet: {command} {timeout_s} {given!r}")

    def push(self, source: Path, target: str, *, offset: int = 0) -> None:
        """Send a file's bytes from ``offset`` on."""
        raise DeviceError(f"No SSH yet: {source} {target} {offset}")

    def pull(self, source: str, target: Path, *, offset: int = 0) -> None:
        """Fetch a file's bytes from ``offset`` on."""
        raise DeviceError(f"No SSH yet: {source} {target} {offset}")

    def close(self) -> None:
        """End the connection."""
