"""What a profile's ``connection`` says of SSH, and what an SSH error means for the person who reads it."""

from __future__ import annotations

import dataclasses
import socket
from concurrent.futures import CancelledError
from pathlib import Path

from edgekit.core.errors import DeviceError, ProfileError, nearest
from edgekit.core.profile import DeviceProfile
from edgekit.core.supervision import plain
from edgekit.device_tests.remote.carrier import DEFAULT_FOLDER

__all__ = ["AGENTS", "SshPlace", "explain_ssh", "read_place"]

AGENTS = ("python", "native")
_KEYS = {
    "host": str, "port": int, "user": str, "key": str, "known_hosts": str, "folder": str,
    "python": str, "agent": str, "runner": str, "library": str,
}  # fmt: skip
_LARGEST_PORT = 2**16 - 1
_SYSTEM_KNOWN_HOSTS = Path("/etc/ssh/ssh_known_hosts")


@dataclasses.dataclass(frozen=True)
class SshPlace:
    """Where a device is.

    Args:
        host: Name or address, or a ``Host`` of ``~/.ssh/config``.
        port: None: what the configuration says, or 22.
        user: None: what the configuration says, or this user's name.
        key: Private key file; None: those of the agent and of ``~/.ssh``.
        known_hosts: Files with the host keys that are trusted.
        folder: edgekit's folder on the device; relative to the login's own.
    """

    host: str
    port: int | None
    user: str | None
    key: Path | None
    known_hosts: tuple[Path, ...]
    folder: str

    def __str__(self) -> str:
        who = f"{self.user}@" if self.user else ""
        return f"{who}{self.host}" + (f" (port {self.port})" if self.port else "")

    @property
    def command(self) -> str:
        """What a person would type to log in."""
        words = ["ssh", *(["-p", str(self.port)] if self.port else []), *(["-i", str(self.key)] if self.key else [])]
        return " ".join([*words, f"{self.user}@{self.host}" if self.user else self.host])


def read_place(profile: DeviceProfile) -> SshPlace:
    """The settings of a profile, checked.

    Raises:
        ProfileError: One is unknown, missing, or not what it must be.
    """
    settings, where = profile.connection, f"Profile '{profile.name}': connection"
    for name, value in settings.items():
        if name not in _KEYS:
            raise ProfileError(f"{where}.{name} is unknown to ssh; it knows {', '.join(_KEYS)}.{nearest(name, _KEYS)}")
        if isinstance(value, bool) or not isinstance(value, _KEYS[name]) or value == "":
            kind = "a whole number" if _KEYS[name] is int else "a text"
            raise ProfileError(f"{where}.{name} is {value!r}; it must be {kind}.")
    if "host" not in settings:
        raise ProfileError(f"{where}.host is not set: give the device's name or address, or a Host of ~/.ssh/config.")
    port = settings.get("port")
    if port is not None and not 0 < int(port) <= _LARGEST_PORT:
        raise ProfileError(f"{where}.port is {port}; ports are 1 to {_LARGEST_PORT}.")
    if (agent := settings.get("agent", AGENTS[0])) not in AGENTS:
        raise ProfileError(f"{where}.agent is '{agent}'; it is one of {', '.join(AGENTS)}.{nearest(str(agent), AGENTS)}")
    known = _file(settings, "known_hosts")
    folder = str(settings.get("folder", DEFAULT_FOLDER)).removeprefix("~/").rstrip("/")
    return SshPlace(
        host=str(settings["host"]),
        port=None if port is None else int(port),
        user=str(settings["user"]) if "user" in settings else None,
        key=_file(settings, "key"),
        known_hosts=(known,) if known else (Path("~/.ssh/known_hosts").expanduser(), _SYSTEM_KNOWN_HOSTS),
        folder=folder or "/",
    )


def _file(settings: dict[str, str | int | float | bool], name: str) -> Path | None:
    return Path(str(settings[name])).expanduser() if name in settings else None


def explain_ssh(reason: BaseException, place: SshPlace) -> DeviceError:
    """An error of asyncssh or of the system as one of edgekit's, with its cause and what to do.

    Args:
        reason: What was raised.
        place: Where to.
    """
    import asyncssh

    if isinstance(reason, DeviceError):
        return reason
    words = plain(str(reason), most=200) or type(reason).__name__
    if isinstance(reason, asyncssh.HostKeyNotVerifiable):
        return _unknown_key(place)
    if isinstance(reason, asyncssh.PermissionDenied):
        return DeviceError(
            f"{place} denies permission ({words}). Put your public key into ~/.ssh/authorized_keys there (ssh-copy-id), name the"
            f" right connection.user and connection.key, and see that this works: {place.command} true. Passwords are not asked"
            " for.",
            is_final=True,
        )
    if isinstance(reason, asyncssh.KeyImportError | asyncssh.KeyEncryptionError):
        return DeviceError(
            f"The key {place.key or 'in ~/.ssh'} cannot be used ({words}). If a passphrase protects it, add it to ssh-agent"
            " (ssh-add) and leave connection.key out.",
            is_final=True,
        )
    if isinstance(reason, asyncssh.ConnectionLost | ConnectionResetError | BrokenPipeError | CancelledError):
        return DeviceError(f"The connection to {place} was lost ({words}).")
    if isinstance(reason, asyncssh.Error):
        return DeviceError(f"{place} does not speak SSH as it should ({words}). Does this work: {place.command} true?")
    if isinstance(reason, socket.gaierror):
        return DeviceError(
            f"{place} cannot be found: no such name. Check connection.host, or use the device's address.", is_final=True
        )
    if isinstance(reason, ConnectionRefusedError):
        return DeviceError(f"{place} refuses connections: does an SSH server run there, and is the port right?")
    if isinstance(reason, TimeoutError):
        return DeviceError(f"{place} does not answer in time. Is it switched on, and in this network?")
    if isinstance(reason, FileNotFoundError | PermissionError) and reason.filename:
        return DeviceError(f"{reason.filename} cannot be read, and it is needed to log in to {place}: {words}.", is_final=True)
    return DeviceError(f"{place} cannot be reached ({words}). Is it switched on, and in this network?")


def _unknown_key(place: SshPlace) -> DeviceError:
    """Never seen, or another one than before: the second may be an attack, or a device that was set up anew."""
    import asyncssh

    files = [file for file in place.known_hosts if file.is_file()]
    port = place.port or asyncssh.DEFAULT_PORT
    matched = asyncssh.match_known_hosts([str(file) for file in files], place.host, "", port) if files else None
    listed = ", ".join(map(str, place.known_hosts))
    if matched is not None and matched[0]:
        name = place.host if port == asyncssh.DEFAULT_PORT else f"[{place.host}]:{port}"
        return DeviceError(
            f"{place} shows another host key than the one in {listed}. Either the device was set up anew, or somebody stands"
            f" between. If you know why, forget the old key (ssh-keygen -R '{name}' -f {files[0]}) and log in once by hand.",
            is_final=True,
        )
    return DeviceError(
        f"{place} has a host key that is not in {listed}: nobody has said yet that it is the right device. Log in once by hand"
        f" and compare the fingerprint ({place.command}), or add the key with ssh-keyscan.",
        is_final=True,
    )
