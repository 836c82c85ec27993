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
    try:
        patience.keep_trying(_Sending(files, shell, patience, sending=sending), what="sending files")
    finally:
        sending(None)


class _Sending:
    """Files on their way; called again after each cut."""

    def __init__(
        self,
        files: Sequence[StoredFile],
        shell: DeviceShell,
        patience: Patience,
        *,
        sending: Callable[[StoredFile | None], object],
    ) -> None:
        self.files = {file.sha256: file for file in files}
        self.shell = shell
        self.patience = patience
        self.sending = sending
        self.fewest_bytes = sum(file.size_bytes for file in files) + 1
        self.damaged = 0

    def __call__(self) -> None:
        while missing := _missing(self.shell, list(self.files.values())):
            left = sum(self.files[digest].size_bytes - there for digest, there in missing.items())
            if left < self.fewest_bytes:
                self.fewest_bytes = left
                self.patience.note_progress()
            for digest, there in missing.items():
                self._push(self.files[digest], there)
            digests = "".join(f"{digest}\n" for digest in missing)
            size_bytes = sum(self.files[digest].size_bytes for digest in missing)
            answer = self.shell.ask("keep", given=digests, timeout_s=reading_time_s(size_bytes))
            for digest in (line.removeprefix("damaged ") for line in answer if line.startswith("damaged ")):
                self._count_damage(self.files[digest])

    def _push(self, file: StoredFile, there: int) -> None:
        if there == file.size_bytes > 0:
            return
        self.sending(file)
        offset = there // _BLOCK_BYTES * _BLOCK_BYTES
        self.shell.link.push(file.path, f"store/{file.sha256}.part", offset=offset)

    def _count_damage(self, file: StoredFile) -> None:
        self.damaged += 1
        if describe_file(file.path) != file or sha256(file.path) != file.sha256:
            raise IntegrityError(f"{file.path} was changed while it was sent to the device. Run this again.")
        if self.damaged >= _MOST_DAMAGED:
            raise DeviceError(
                f"{file.path.name} arrived damaged, as {self.damaged - 1} files before: the device's disk or memory fails, or"
                " its sha256sum is not the usual one.",
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
