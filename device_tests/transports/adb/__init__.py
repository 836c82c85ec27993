"""Android devices, reached by the ``adb`` client (Android Debug Bridge)."""

from edgekit.device_tests.transports.adb.link import AdbLink
from edgekit.device_tests.transports.adb.transport import AdbTransport

__all__ = ["AdbLink", "AdbTransport"]
