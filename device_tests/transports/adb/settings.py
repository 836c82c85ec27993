"""What a profile's ``connection`` says to this transport."""

from __future__ import annotations

import dataclasses
from typing import Self

from edgekit.core.errors import ProfileError, nearest
from edgekit.core.profile import DeviceProfile

__all__ = ["AdbSettings"]

_KNOWN = ("serial", "server_port", "folder", "cluster", "runner", "library")
_PORTS = range(1, 65536)


@dataclasses.dataclass(frozen=True)
class AdbSettings:
    """Settings of one device.

    Args:
        serial: As ``adb devices`` lists it, or ``host:port`` of a device in the network; empty: the only one attached.
        server_port: Port of the adb server on this machine; None: adb's own choice.
        folder: Where edgekit keeps its files on the device; programs must be executable there.
        cluster: Run on this cluster of cores: ``"big"``, ``"middle"``, ``"little"``; empty: as ``affinity`` says.
        runner: An edgekit-runner built for Android, on this machine; empty: the one built here.
        library: The runtime's library for Android, on this machine; empty: the one installed here.
    """

    serial: str = ""
    server_port: int | None = None
    folder: str = "/data/local/tmp/edgekit"
    cluster: str = ""
    runner: str = ""
    library: str = ""

    @classmethod
    def of(cls, profile: DeviceProfile) -> Self:
        """The settings of a profile.

        Raises:
            ProfileError: A setting is unknown, or means nothing.
        """
        if unknown := sorted(set(profile.connection) - set(_KNOWN)):
            raise ProfileError(
                f"Profile '{profile.name}' sets connection.{unknown[0]}, which the transport 'adb' does not know."
                f"{nearest(unknown[0], _KNOWN)} It knows {', '.join(_KNOWN)}."
            )
        words = {key: str(value).strip() for key, value in profile.connection.items() if key != "server_port"}
        settings = cls(**words, server_port=_port(profile))
        if not settings.folder.startswith("/") or settings.folder.rstrip("/") in {"", "/data", "/data/local", "/data/local/tmp"}:
            raise ProfileError(
                f"Profile '{profile.name}' sets connection.folder to {settings.folder!r}: write a whole path of edgekit's own,"
                " such as '/data/local/tmp/edgekit'."
            )
        if settings.cluster not in {"", "big", "middle", "little"}:
            raise ProfileError(
                f"Profile '{profile.name}' sets connection.cluster to {settings.cluster!r}: write 'big', 'middle' or 'little'."
            )
        if settings.cluster and profile.affinity:
            raise ProfileError(f"Profile '{profile.name}' sets affinity and connection.cluster: leave one of them out.")
        return settings


def _port(profile: DeviceProfile) -> int | None:
    value = profile.connection.get("server_port")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value not in _PORTS):
        raise ProfileError(f"Profile '{profile.name}' sets connection.server_port to {value!r}: write a port, 1 to 65535.")
    return value
