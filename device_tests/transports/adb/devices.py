"""What ``adb devices`` lists, and what to do about a device that is not ready."""

from __future__ import annotations

from edgekit.core.errors import DeviceError
from edgekit.core.supervision import plain

__all__ = ["ABSENT", "READY", "STARTING", "choose", "listed", "refusal"]

READY = "device"
ABSENT = "absent"
STARTING = frozenset({"connecting", "authorizing"})
"""States that pass by themselves."""
_REMEDIES = {
    "unauthorized": (
        "it does not trust this machine yet. Unlock it and accept 'Allow USB debugging' there; if nothing is asked, revoke the"
        " authorisations in its developer options and attach it again"
    ),
    "no permissions": (
        "this user may not open its USB device. Add a udev rule for its vendor (Debian: package"
        " 'android-sdk-platform-tools-common', and the user in group 'plugdev'), then attach it again"
    ),
    "recovery": "it is in recovery mode. Boot Android",
    "sideload": "it waits for a system image. Boot Android",
    "rescue": "it is in rescue mode. Boot Android",
    "bootloader": "it is in its bootloader. Boot Android: fastboot reboot",
    "host": "it is itself an adb host",
}


def listed(text: str) -> dict[str, str]:
    r"""Serial -> state, of what ``adb devices`` printed.

    >>> listed("List of devices attached\nR5CT1\tdevice\nX2\tno permissions (missing udev rules?); see [http://…]\n\n")
    {'R5CT1': 'device', 'X2': 'no permissions'}
    """
    found = {}
    for line in text.splitlines():
        serial, tab, state = line.partition("\t")
        if tab:
            found[serial.strip()] = "no permissions" if state.startswith("no permissions") else state.strip()
    return found


def choose(attached: dict[str, str], *, name: str) -> str:
    """Serial of the one device that is attached, for a profile that names none.

    Raises:
        DeviceError: None is, or several are.
    """
    if len(attached) == 1:
        return next(iter(attached))
    if not attached:
        raise DeviceError(
            f"Device '{name}' is not attached: adb sees no device. Attach one with USB debugging switched on (developer options),"
            " or set connection.serial to its host:port."
        )
    raise DeviceError(
        f"Device '{name}' has no connection.serial, and {len(attached)} devices are attached: {_words(attached)}. Set it to one"
        " of them.",
        is_final=True,
    )


def refusal(state: str, *, serial: str, name: str, attached: dict[str, str], reason: str) -> DeviceError:
    """Why a device is not ready, and the remedy.

    Args:
        state: What adb says of it; :data:`ABSENT` where it does not list it.
        serial: Its serial or host:port.
        name: The profile's name.
        attached: All devices adb lists.
        reason: What ``adb connect`` said, for devices in the network.
    """
    if remedy := _REMEDIES.get(state):
        return DeviceError(f"Device '{name}' ({serial}) is attached as '{state}': {remedy}.", is_final=True)
    if state == ABSENT and ":" in serial:
        said = plain(reason.strip(), most=300) or "nothing answers"
        remedy = "Is it on, in this network, and listening? On the device's cable: adb tcpip 5555"
        return DeviceError(f"Device '{name}' cannot be reached at {serial}: {said}. {remedy}.")
    if state == ABSENT:
        others = f"; adb sees {_words(attached)}" if attached else "; adb sees no device"
        return DeviceError(
            f"Device '{name}' ({serial}) is not attached{others}. Attach it and switch on USB debugging, or correct"
            " connection.serial."
        )
    return DeviceError(
        f"Device '{name}' ({serial}) is attached as '{state}' and does not come back. Attach it again, or restart it; 'adb"
        " reconnect' may help."
    )


def _words(attached: dict[str, str]) -> str:
    return ", ".join(f"{plain(serial, most=80)} ({plain(state, most=40)})" for serial, state in sorted(attached.items()))
