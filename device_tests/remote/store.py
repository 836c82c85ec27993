"""Files on the device by their SHA-256: sent once, resumed where a cut ended them, and never trusted by their name alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from edgekit.core.errors import DeviceError, IntegrityError
from edgekit.core.files import sha256
from edgekit.device_tests.remote.patience import Patience
from edgekit.device_tests.remote.shell import DeviceShell

__all__ = ["StoredFile", "describe_file", "send_files"]

_BLOCK_BYTES = 2**16
"""Files are resumed at multiples of it: ``dd`` on the device writes by whole blocks."""
_SLOWEST_BYTES_PER_S = 2**21
"""What the slowest storage reads and hashes; an SD card in an old board does 10 MB/s."""
_SPARE_BYTES = 2**23
_MOST_DAMAGED = 3

_digests: dict[tuple[int, int, int, int], str] = {}


@dataclasses.dataclass(frozen=True)
class StoredFile:
    """A local file as the store knows it.

    Args:
        path: Where it lies here.
        sha256: Hex digest.
        size_bytes: Its size.
    """

    path: Path
    sha256: str
    size_bytes: int


def describe_file(path: Path) -> StoredFile:
    """A file's digest and size; a file that was hashed before and has not changed is not read again.

    Raises:
        IntegrityError: It is no plain file.
    """
    if not path.is_file():
        raise IntegrityError(f"{path} is to be sent to a device, and is no plain file.")
    state = path.stat()
    key = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
    if key not in _digests:
        _digests[key] = sha256(path)
    return StoredFile(path, _digests[key], state.st_size)


def reading_time_s(size_bytes: int) -> float:
    """How long a device may take to read and hash so much."""
    return 60.0 + size_bytes / _SLOWEST_BYTES_PER_S


def send_files(
    files: Sequence[StoredFile],
    shell: DeviceShell,
    patience: Patience,
    *,
    sending: Callable[[StoredFile | None], object] = lambda _: None,
) -> None:
    """Bring files into the device's store, those that are not there yet.

    Args:
        files: What must be there.
        shell: The device.
        patience: Reconnects.
        sending: Called with the file that travels, and with None after the last.

    Raises:
        DeviceError: The device was lost, or has no room.
    """
    by_digest = {file.sha256: file for file in files}
    missing = patience.keep_trying(lambda: _missing(shell, list(by_digest.values())), what="looking what is there")
    try:
        for digest in missing:
            sending(by_digest[digest])
            what = f"sending {by_digest[digest].path.name}"
            patience.keep_trying(_Sending(by_digest[digest], shell, patience), what=what)
    finally:
        sending(None)


class _Sending:
    """One file on its way; called again after each cut."""

    def __init__(self, file: StoredFile, shell: DeviceShell, patience: Patience) -> None:
        self.file = file
        self.shell = shell
        self.patience = patience
        self.most_bytes = 0
        self.damaged = 0

    def __call__(self) -> None:
        while (there := _missing(self.shell, [self.file]).get(self.file.sha256)) is not None:
            if there > self.most_bytes:
                self.most_bytes = there
                self.patience.note_progress()
            if there < self.file.size_bytes or there == 0:
                offset = there // _BLOCK_BYTES * _BLOCK_BYTES
                self.shell.link.push(self.file.path, f"store/{self.file.sha256}.part", offset=offset)
            answer = self.shell.ask("keep", self.file.sha256, timeout_s=reading_time_s(self.file.size_bytes))
            if answer == ["damaged"]:
                self._count_damage()

    def _count_damage(self) -> None:
        self.damaged += 1
        self.most_bytes = 0
        if describe_file(self.file.path) != self.file or sha256(self.file.path) != self.file.sha256:
            raise IntegrityError(f"{self.file.path} was changed while it was sent to the device. Run this again.")
        if self.damaged >= _MOST_DAMAGED:
            raise DeviceError(
                f"{self.file.path.name} arrived damaged {self.damaged} times: the device's disk or memory loses bits, or its"
                " sha256sum is not the usual one.",
                is_final=True,
            )


def _missing(shell: DeviceShell, files: Sequence[StoredFile]) -> dict[str, int]:
    """Digest -> bytes that are there already, of the files that the device lacks.

    Raises:
        DeviceError: It has no room for them.
    """
    sizes = {file.sha256: file.size_bytes for file in files}
    lines = shell.ask("have", given="".join(f"{digest} {size}\n" for digest, size in sizes.items()))
    found: dict[str, int] = {}
    free = None
    for word, *rest in (line.split() for line in lines if line):
        if word == "missing" and len(rest) == 2 and rest[0] in sizes and rest[1].isdecimal():
            found[rest[0]] = int(rest[1])
        elif word == "free" and rest and rest[0].isdecimal():
            free = int(rest[0]) * 2**10
    needed = sum(sizes[digest] - there for digest, there in found.items())
    if free is not None and needed and needed + _SPARE_BYTES > free:
        raise DeviceError(
            f"The device has {free / 2**20:.0f} MiB free in '{shell.folder}', and {needed / 2**20:.0f} MiB are to be sent,"
            f" with {_SPARE_BYTES / 2**20:.0f} MiB to spare. Free some room there, or name another folder as connection.folder.",
            is_final=True,
        )
    return found
