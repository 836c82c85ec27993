"""Asks the script on the device, and believes no answer that does not end as it should."""

from __future__ import annotations

import hashlib
import secrets
import shlex
from importlib import resources

from edgekit.core.device_link import Finished, Link
from edgekit.core.errors import DeviceError
from edgekit.core.supervision import plain

__all__ = ["DeviceShell", "device_script"]

_TIMEOUT_S = 60.0
_FULL = ("no space left", "disk quota exceeded", "file too large", "no room")
_READ_ONLY = ("read-only file system", "permission denied", "operation not permitted")


def device_script() -> bytes:
    """The script that does edgekit's side on the device."""
    return resources.files("edgekit.device_tests.remote").joinpath("device.sh").read_bytes()


class DeviceShell:
    """The script of one device, behind a link.

    Exit statuses are not looked at: ``adb shell`` ended with 0 after its device had died. What counts is a last line that holds
    a number made for this one question.

    Args:
        link: A link that is connected, or raises.
        folder: What the profile calls edgekit's folder there, for messages.
    """

    def __init__(self, link: Link, *, folder: str) -> None:
        self.link = link
        self.folder = folder
        self._script = device_script()
        self._path = f"store/{hashlib.sha256(self._script).hexdigest()}"

    def ask(self, verb: str, *words: object, given: str = "", timeout_s: float = _TIMEOUT_S) -> list[str]:
        """Run one verb of the script.

        Args:
            verb: See ``device.sh``.
            words: Its arguments.
            given: Its standard input.
            timeout_s: After so long the connection counts as lost.

        Returns:
            The lines it printed.

        Raises:
            DeviceError: The connection was lost, or the device refuses (``is_final``).
        """
        nonce = secrets.token_hex(8)
        command = shlex.join(["sh", self._path, nonce, verb, *map(str, words)])
        finished = self.link.run(command, timeout_s=timeout_s, given=given.encode())
        if f"edgekit {nonce} begin" not in finished.output.splitlines():
            self._install()
            finished = self.link.run(command, timeout_s=timeout_s, given=given.encode())
        return self._read(finished, nonce)

    def _install(self) -> None:
        """Send the script; one that was cut off has not its size, and does not take its name."""
        part = f"{self._path}.{secrets.token_hex(4)}.part"
        command = (
            f"mkdir -p store && cat >{part} && [ $(($(wc -c <{part}))) = {len(self._script)} ] && mv -f {part} {self._path} && "
        )
        nonce = secrets.token_hex(8)
        command += f"sh {self._path} {nonce} init"
        finished = self.link.run(command, timeout_s=_TIMEOUT_S, given=self._script)
        words = plain(finished.errors.strip().replace("\n", " | "), most=300)
        if finished.code and words:
            raise DeviceError(self._explain(words), is_final=True)
        self._read(finished, nonce)

    def _read(self, finished: Finished, nonce: str) -> list[str]:
        lines = finished.output.splitlines()
        last = lines[-1] if lines else ""
        if last == f"edgekit {nonce} ok" and (begin := f"edgekit {nonce} begin") in lines:
            return lines[lines.index(begin) + 1 : -1]
        refused = f"edgekit {nonce} refused: "
        words = plain(finished.errors.strip().replace("\n", " | "), most=300)
        if last.startswith(refused):
            raise DeviceError(self._explain(f"{plain(last.removeprefix(refused))} {words}".strip()), is_final=True)
        if any(word in words.lower() for word in (*_FULL, *_READ_ONLY)):
            raise DeviceError(self._explain(words), is_final=True)
        raise DeviceError(f"The device stopped answering in the middle of a command{f' ({words})' if words else ''}.")

    def _explain(self, words: str) -> str:
        if any(word in words.lower() for word in _FULL):
            return (
                f"The device's disk is full ({words}). Free some room there, or name another disk's folder as connection.folder"
                f" (now '{self.folder}')."
            )
        if any(word in words.lower() for word in _READ_ONLY):
            return (
                f"edgekit's folder '{self.folder}' on the device cannot be written ({words}). Name one that can as"
                " connection.folder in the profile."
            )
        return f"The device refuses: {words}. edgekit's folder there is '{self.folder}'."
