"""A shell command over ``adb``: done when the line behind it arrived, which holds a number nobody knew before.

The client's exit status proves nothing: ``adb shell`` has returned 0 after the device died.

=================== ========================================== ===========================================
                    Android 7 and newer: ``shell_v2``          older: ``exec:``
=================== ========================================== ===========================================
input               standard input, as it comes                a file that is sent before
errors              apart from the output                      kept by the shell, sent behind the output
=================== ========================================== ===========================================
"""

from __future__ import annotations

import secrets
import shlex
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from edgekit.core.device_link import Finished
from edgekit.core.errors import DeviceError
from edgekit.core.supervision import plain
from edgekit.device_tests.transports.adb.client import AdbClient

__all__ = ["OldShell", "Shell", "ShellV2"]

_LONGEST_COMMAND = 48_000
"""A request's length is told in four hexadecimal digits, 65535 bytes (OVERVIEW.TXT); frame and quotes add to the command."""
_GIVEN = ".given-"


class Shell(Protocol):
    """How commands run on one device."""

    piece_bytes: int | None
    """Most input of one command; None: as much as there is."""

    def run(
        self,
        command: str,
        *,
        folder: str,
        given: Iterable[bytes] = (),
        timeout_s: float | None = None,
        silence_s: float | None = None,
    ) -> Finished:
        """Run a command line in a folder.

        Raises:
            DeviceError: It is not known to have ended.
        """
        ...


class ShellV2:
    """The shell of Android 7 and newer.

    Args:
        client: Calls adb.
        serial: The device's.
    """

    piece_bytes: int | None = None

    def __init__(self, client: AdbClient, serial: str) -> None:
        self.client = client
        self.serial = serial

    def run(
        self,
        command: str,
        *,
        folder: str,
        given: Iterable[bytes] = (),
        timeout_s: float | None = None,
        silence_s: float | None = None,
    ) -> Finished:
        """See :meth:`Shell.run`."""
        nonce = secrets.token_hex(8)
        script = f"cd {shlex.quote(folder)} && sh -c {shlex.quote(command)}\nprintf '\\n%s %s\\n' {nonce} $?"
        words = ("-s", self.serial, "shell", "-T", _checked(script))
        parts: list[bytes] = []
        done = self.client.exchange(words, take=parts.append, given=given, timeout_s=timeout_s, silence_s=silence_s)
        output, code, _ = _unframed(b"".join(parts), nonce=nonce, serial=self.serial, said=done.errors)
        return Finished(code, output, done.errors)


class OldShell:
    """The shell of Android 6, whose service ``exec:`` knows neither exit codes nor errors.

    Args:
        client: Calls adb.
        serial: The device's.
    """

    piece_bytes: int | None = 4 << 20

    def __init__(self, client: AdbClient, serial: str) -> None:
        self.client = client
        self.serial = serial

    def run(
        self,
        command: str,
        *,
        folder: str,
        given: Iterable[bytes] = (),
        timeout_s: float | None = None,
        silence_s: float | None = None,
    ) -> Finished:
        """See :meth:`Shell.run`."""
        nonce = secrets.token_hex(8)
        source = self._send(b"".join(given), f"{folder}/{_GIVEN}{nonce}", limit_s=timeout_s or silence_s)
        script = (
            f"exec 3>&1; errors=$( {{ cd {shlex.quote(folder)} && sh -c {shlex.quote(command)} 3>&- <{shlex.quote(source)}; }}"
            f" 2>&1 >&3 ); printf '\\n%s %s\\n%s' {nonce} $? \"$errors\""
        )
        if source != "/dev/null":
            script += f"; rm -f {shlex.quote(source)}"
        parts: list[bytes] = []
        words = ("-s", self.serial, "exec-out", _checked(f"{script}; echo {nonce}"))
        done = self.client.exchange(words, take=parts.append, timeout_s=timeout_s, silence_s=silence_s)
        whole = b"".join(parts)
        if not whole.endswith(f"{nonce}\n".encode()):
            raise _lost(self.serial, done.errors)
        output, code, errors = _unframed(whole[: -len(nonce) - 1], nonce=nonce, serial=self.serial, said=done.errors)
        return Finished(code, output, errors)

    def _send(self, given: bytes, target: str, *, limit_s: float | None) -> str:
        """Send a command's input before it; where it lies."""
        if not given:
            return "/dev/null"
        with tempfile.TemporaryDirectory(prefix="edgekit-adb-") as folder:
            source = Path(folder) / "given"
            source.write_bytes(given)
            said = self.client.exchange(("-s", self.serial, "push", str(source), target), take=len, timeout_s=limit_s)
        if said.code:
            raise _lost(self.serial, said.errors)
        return target


def _checked(script: str) -> str:
    if len(script.encode()) > _LONGEST_COMMAND:
        raise DeviceError(f"A command of {len(script)} letters is longer than adb takes, {_LONGEST_COMMAND}.", is_final=True)
    return script


def _unframed(answer: bytes, *, nonce: str, serial: str, said: str) -> tuple[str, int, str]:
    """Output, exit code and what stands behind, of an answer that is whole."""
    output, mark, tail = answer.rpartition(f"\n{nonce} ".encode())
    code, end, rest = tail.partition(b"\n")
    if not mark or not end or not code.isdigit():
        raise _lost(serial, said)
    return output.decode(errors="replace"), int(code), rest.decode(errors="replace")


def _lost(serial: str, said: str) -> DeviceError:
    words = plain(" ".join(said.split()), most=300) or "adb does not say why"
    return DeviceError(f"The connection to device {serial} was lost: {words}.")
