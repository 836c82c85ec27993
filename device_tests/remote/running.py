"""One job on a device: its folder is composed from the store, started in a session of its own, watched, and taken away."""

from __future__ import annotations

import dataclasses
import re
import secrets
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from edgekit.core.device_link import Errand
from edgekit.core.errors import DeviceError, IntegrityError
from edgekit.device_tests.remote.lock import DeviceLock
from edgekit.device_tests.remote.patience import Patience
from edgekit.device_tests.remote.shell import DeviceShell
from edgekit.device_tests.remote.store import StoredFile, describe_file, reading_time_s, send_files

__all__ = ["Composition", "JobState", "RemoteJob", "compose"]

_MOST_SENT = 3
_SHORTEST_LOOK_S = 0.05
_LONGEST_LOOK_S = 2.0
"""A look costs the device some milliseconds of one core, which a measurement on it should not feel."""
_LOOK_SHARE = 0.1
_NAME = re.compile(r"[^\s/\\][^\n\r]*")


@dataclasses.dataclass(frozen=True)
class JobState:
    """What has become of a job.

    Args:
        word: ``"running"``, ``"done"``, ``"gone"`` (swept, killed), ``"rebooted"``, ``"lost-lock"``.
        code: Exit status of its commands.
        why: ``"abandoned"`` where its lease ran out, ``"overtime"`` where its time did.
        files: What it left -> hex digest and size in bytes.
        free_bytes: Room on the device's disk.
    """

    word: str
    code: int = 0
    why: str = ""
    files: Mapping[str, tuple[str, int]] = dataclasses.field(default_factory=dict)
    free_bytes: int | None = None


@dataclasses.dataclass(frozen=True)
class Composition:
    """What a job's folder is made of.

    Args:
        files: Stored files.
        lines: ``"SHA MODE PATH"`` for each place in the folder.
    """

    files: Sequence[StoredFile]
    lines: Sequence[str]

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(file.size_bytes for file in self.files)


def compose(errand: Errand, scratch: Path) -> Composition:
    """Turn an errand into files and places; its commands become a script that is one of the files.

    Args:
        errand: What an agent wants done.
        scratch: Folder for the script and the list of returns.

    Raises:
        IntegrityError: A name cannot be one in the job's folder.
    """
    for name in (*errand.files, *errand.returns):
        _check_name(name)
    exports = [f"export {key}={shlex.quote(value)}" for key, value in errand.environment.items()]
    commands = [f"{shlex.join(words)} || exit" for words in errand.commands]
    (scratch / "plan").write_text("\n".join([*exports, *commands, "exit 0", ""]), encoding="utf-8")
    (scratch / "returns").write_text("".join(f"{name}\n" for name in errand.returns), encoding="utf-8")
    places = {f"work/{name}": path for name, path in errand.files.items()}
    places |= {name: scratch / name for name in ("plan", "returns")}
    stored = {place: describe_file(path) for place, path in places.items()}
    programs = {f"work/{name}" for name in errand.programs}
    lines = [f"{file.sha256} {'500' if place in programs else '400'} {place}" for place, file in stored.items()]
    return Composition(files=list(stored.values()), lines=lines)


def _check_name(name: str) -> None:
    path = PurePosixPath(name)
    if not _NAME.fullmatch(name) or path.is_absolute() or ".." in path.parts:
        raise IntegrityError(f"A job's file is called {name!r}: it must be a path inside the job's folder, without line ends.")


class RemoteJob:
    """One start of a job.

    Args:
        composition: What its folder is made of.
        shell: The device.
        patience: Reconnects.
        lock: Held.
        limit_s: The device ends the job after so long.
        lease_s: And when nobody asked for it for so long.
    """

    def __init__(
        self,
        composition: Composition,
        shell: DeviceShell,
        patience: Patience,
        lock: DeviceLock,
        *,
        limit_s: float,
        lease_s: float,
    ) -> None:
        self.composition = composition
        self.shell = shell
        self.patience = patience
        self.lock = lock
        self.limit_s = limit_s
        self.lease_s = lease_s
        self.key = secrets.token_hex(8)

    def compose(self) -> bool:
        """Make its folder; files that turn out to be damaged in the store are sent again. False: the lock was lost."""
        text = "".join(f"{line}\n" for line in self.composition.lines)
        timeout_s = reading_time_s(2 * self.composition.size_bytes)
        for _ in range(_MOST_SENT):
            answer = self.patience.keep_trying(
                lambda: self.shell.ask("compose", self.key, self.lock.token, given=text, timeout_s=timeout_s),
                what="composing a job",
            )
            missing = {line.split()[1] for line in answer if line.startswith("missing ")}
            if not missing:
                return "lost-lock" not in answer
            send_files([file for file in self.composition.files if file.sha256 in missing], self.shell, self.patience)
        raise DeviceError(
            f"Files that were sent to device '{self.patience.name}' are damaged whenever it looks at them: its disk fails.",
            is_final=True,
        )

    def start(self) -> None:
        """Start it, unless it is started already."""
        words = ("start", self.key, self.lock.token, max(round(self.limit_s), 1), max(round(self.lease_s), 1))
        self.patience.keep_trying(lambda: self.shell.ask(*words), what="starting a job")

    def wait(self) -> JobState:
        """Look after it until it is no longer running."""
        begun = time.monotonic()
        while True:
            state = self.patience.keep_trying(self.look, what="a job was running")
            if state.word != "running":
                return state
            pause_s = _SHORTEST_LOOK_S + _LOOK_SHARE * (time.monotonic() - begun)
            time.sleep(min(pause_s, _LONGEST_LOOK_S, self.lease_s / 4))

    def look(self) -> JobState:
        """Renew its lease and see what has become of it."""
        return _read_state(self.shell.ask("poll", self.key, self.lock.token, secrets.token_hex(4)))

    def log(self, most_bytes: int) -> str:
        """The last of what its commands printed."""
        return "\n".join(self.shell.ask("log", self.key, most_bytes))

    def end(self) -> None:
        """Kill what is left of it and remove its folder, if the device still answers."""
        self.patience.once(lambda: self.shell.ask("end", self.key))


def _read_state(lines: Sequence[str]) -> JobState:
    """What ``poll`` printed.

    >>> _read_state(["state done 0 ", "free 2048", f"file {'ab' * 32} 7 result.json"]).files["result.json"][1]
    7
    """
    words = next((line.split() for line in lines if line.startswith("state ")), ["state", "gone"])
    files: dict[str, tuple[str, int]] = {}
    free = None
    for line in lines:
        kind, _, rest = line.partition(" ")
        if kind == "file" and len(parts := rest.split(" ", 2)) == 3 and parts[1].isdecimal():
            files[parts[2]] = parts[0], int(parts[1])
        elif kind == "free" and rest.isdecimal():
            free = int(rest) * 2**10
    code = int(words[2]) if len(words) > 2 and words[2].isdecimal() else 0
    return JobState(words[1], code, words[3] if len(words) > 3 else "", files, free)
