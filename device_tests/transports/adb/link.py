"""Commands and files over ``adb``, each with a proof of its own that it was whole: a file is there when its size is."""

from __future__ import annotations

import secrets
import shlex
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from edgekit.core.device_link import Finished
from edgekit.core.errors import DeviceError
from edgekit.core.profile import DeviceProfile
from edgekit.core.supervision import plain
from edgekit.device_tests.transports.adb.client import AdbClient
from edgekit.device_tests.transports.adb.devices import ABSENT, READY, STARTING, choose, listed, refusal
from edgekit.device_tests.transports.adb.settings import AdbSettings
from edgekit.device_tests.transports.adb.shells import OldShell, Shell, ShellV2

__all__ = ["AdbLink"]

_CONNECT_S = 10.0
_FIRST_CONNECT_S = 2.5
"""A device that never answered is probably not there: adb's server lists attached ones a second after its start."""
_ANSWER_S = 15.0
_SILENCE_S = 60.0
"""A link over which nothing passed for so long is lost."""
_PING_S = 5.0
_LOOK_S = 0.2
_SETTLE_S = 0.05
_PIECE = 1 << 16
_FULL = "No space left on device"
_PROGRAMS = ("cat", "mkdir", "tail", "truncate", "wc")
_LACKING = 97
"""Exit status of a device that lacks one of them; none that a shell gives by itself."""
_READ_ONLY = ("Read-only file system", "Permission denied")


class AdbLink:
    """One Android device; see :class:`edgekit.core.device_link.Link`.

    Args:
        profile: Its ``connection`` says serial, server_port and folder (:class:`~.settings.AdbSettings`).

    Raises:
        ProfileError: ``connection`` has a setting that means nothing.
    """

    def __init__(self, profile: DeviceProfile) -> None:
        self.name = profile.name
        self.settings = AdbSettings.of(profile)
        self.folder = self.settings.folder
        self.client = AdbClient(server_port=self.settings.server_port)
        self.serial = self.settings.serial
        self._shell: Shell | None = None
        self._has_answered = False

    def connect(self) -> None:
        """Wait for the device a moment, and make edgekit's folder there."""
        self.client.start_server()
        self._wait_until_ready()
        features = self._ask("features")
        if features.code:
            raise self._lost(features.errors)
        shell: Shell = (ShellV2 if "shell_v2" in features.output.split() else OldShell)(self.client, self.serial)
        made = shell.run(_prepare(self.folder), folder="/", timeout_s=_ANSWER_S)
        if made.code == _LACKING:
            raise DeviceError(
                f"Device '{self.name}' has no program '{_said(made)}' in its shell: edgekit needs Android 6 or newer, or a"
                " Linux with the usual small programs.",
                is_final=True,
            )
        if made.code:
            raise DeviceError(
                f"Device '{self.name}' does not let edgekit make its folder {self.folder}: {_said(made)}. Set connection.folder"
                " to one that the shell's user may write, such as /data/local/tmp/edgekit.",
                is_final=True,
            )
        self._shell = shell
        self._has_answered = True

    def run(self, command: str, *, timeout_s: float, given: bytes = b"") -> Finished:
        """Run a command line in edgekit's folder."""
        return self._connected().run(command, folder=self.folder, given=[given] if given else (), timeout_s=timeout_s)

    def push(self, source: Path, target: str, *, offset: int = 0) -> None:
        """Send a file's bytes from ``offset`` on; what lies behind that offset on the device is cut off first."""
        shell, place = self._connected(), shlex.quote(target)
        above = shlex.quote(PurePosixPath(target).parent.as_posix())
        keep = (
            f"[ $(wc -c < {place}) -ge {offset} ] && truncate -s {offset} {place}"
            if offset
            else f"mkdir -p {above} && : > {place}"
        )
        self._check_sent(shell.run(keep, folder=self.folder, timeout_s=_ANSWER_S), target)
        held = size = source.stat().st_size
        if size > offset:
            for pieces in _batches(source, offset, most=shell.piece_bytes):
                command = f"cat >> {place} && wc -c < {place}"
                sent = shell.run(command, folder=self.folder, given=pieces, silence_s=_SILENCE_S)
                self._check_sent(sent, target)
                held = int(sent.output) if sent.output.strip().isdecimal() else -1
        if held != size:
            raise self._lost(f"{held} of {size} bytes of {target} arrived")

    def pull(self, source: str, target: Path, *, offset: int = 0) -> None:
        """Fetch a file's bytes from ``offset`` on."""
        place = shlex.quote(source)
        found = self._connected().run(f"wc -c < {place}", folder=self.folder, timeout_s=_ANSWER_S)
        if found.code or not found.output.strip().isdecimal():
            raise DeviceError(f"Device '{self.name}' has no file {source} to fetch: {_said(found)}.")
        size = int(found.output)
        with target.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.truncate()
            command = f"cd {shlex.quote(self.folder)} && tail -c +{offset + 1} {place} 2>/dev/null"
            words = ("-s", self.serial, "exec-out", command)
            done = self.client.exchange(words, take=file.write, silence_s=_SILENCE_S)
            arrived = file.tell()
        if arrived != size:
            raise self._lost(done.errors or f"{arrived} of {size} bytes of {source} arrived")

    def close(self) -> None:
        """End the connection. The adb server runs on, since others use it; on the device it leaves nothing."""
        self._shell = None

    def _wait_until_ready(self) -> None:
        """Until the device answers; a connection that was lost is made anew."""
        limit = time.monotonic() + (_CONNECT_S if self._has_answered else _FIRST_CONNECT_S)
        reason = ""
        is_dialled = False
        while True:
            attached = listed(self.client.ask("devices", timeout_s=_ANSWER_S).output)
            self.serial = self.serial or choose(attached, name=self.name)
            state = attached.get(self.serial, ABSENT)
            if state == READY and self._answers():
                return
            can_dial = ":" in self.serial or state != ABSENT
            error = refusal(state, serial=self.serial, name=self.name, attached=attached, reason=reason)
            if error.is_final or (time.monotonic() > limit and (is_dialled or not can_dial)):
                raise error
            if can_dial and state not in STARTING:
                reason = self._dial(state)
                is_dialled = True
            else:
                time.sleep(_LOOK_S)

    def _answers(self) -> bool:
        """Whether the device does what it is told: adb calls one ready that has just died."""
        nonce = secrets.token_hex(8)
        try:
            return nonce in self.client.ask("-s", self.serial, "shell", f"echo {nonce}", timeout_s=_PING_S).output
        except DeviceError:
            return False

    def _dial(self, state: str) -> str:
        """Make the connection anew; what adb says to it."""
        if ":" not in self.serial:
            said = self.client.ask("-s", self.serial, "reconnect", timeout_s=_ANSWER_S)
        else:
            if state != ABSENT:
                self.client.ask("disconnect", self.serial, timeout_s=_ANSWER_S)
            said = self.client.ask("connect", self.serial, timeout_s=_ANSWER_S)
        time.sleep(_SETTLE_S)
        return said.output

    def _ask(self, *words: str) -> Finished:
        return self.client.ask("-s", self.serial, *words, timeout_s=_ANSWER_S)

    def _connected(self) -> Shell:
        if self._shell is None:
            raise DeviceError(f"Device '{self.name}' is not connected.")
        return self._shell

    def _check_sent(self, sent: Finished, target: str) -> None:
        """Say why the device did not take a file's bytes, where it did not."""
        if not sent.code:
            return
        if _FULL in sent.errors:
            raise DeviceError(
                f"The disk of device '{self.name}' is full: {_said(sent)}. Make room for {self.folder} there.", is_final=True
            )
        is_final = any(words in sent.errors for words in _READ_ONLY)
        raise DeviceError(f"Device '{self.name}' did not take {target}: {_said(sent)}.", is_final=is_final)

    def _lost(self, said: str) -> DeviceError:
        words = plain(" ".join(said.split()), most=300) or "adb does not say why"
        return DeviceError(f"The connection to device '{self.name}' ({self.serial}) was lost: {words}.")


def _prepare(folder: str) -> str:
    """A command that makes the folder and looks for what a link needs."""
    place, programs = shlex.quote(folder), " ".join(_PROGRAMS)
    lacking = f'{{ echo "$one" >&2; exit {_LACKING}; }}'
    return f'mkdir -p {place} && cd {place} && for one in {programs}; do command -v "$one" >/dev/null || {lacking}; done'


def _said(finished: Finished) -> str:
    words = plain(" ".join(finished.errors.split()), most=300)
    return words or f"exit code {finished.code} without a word"


def _batches(source: Path, offset: int, *, most: int | None) -> Iterator[Iterator[bytes]]:
    """The bytes of a file in pieces, as many at a time as one command takes."""
    with source.open("rb") as file:
        file.seek(offset)
        if most is None:
            yield iter(lambda: file.read(_PIECE), b"")
        else:
            while piece := file.read(most):
                yield iter((piece,))
