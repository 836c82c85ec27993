"""A model file as it is at one moment: copied into a private folder while it is hashed, so that what runs is what was hashed."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from edgekit.core.errors import IntegrityError, UsageError
from edgekit.core.files import explain_disk

__all__ = ["Snapshot", "take_snapshot"]

_CHUNK_BYTES = 1 << 20
_MOST_FILES = 10_000
"""Files in a folder; a SavedModel or an .mlpackage has a few dozen."""
_MOST_LEVELS = 16


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A copy of a model file or folder.

    Args:
        path: The copy.
        sha256: Digest as :func:`edgekit.core.files.sha256` gives it, of the file alone or of the whole folder.
        files: Digest of each neighbour that was copied too, by name.
    """

    path: Path
    sha256: str
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)


def take_snapshot(path: Path, folder: Path, *, companions: tuple[str, ...] = ()) -> Snapshot:
    """Copy a model file or folder, reading each byte once.

    A link that the caller names is followed; one inside a folder is refused, as is anything else that is no plain file.

    Args:
        path: The file or folder.
        folder: An empty folder of the caller's own; the copy lies in it under the same name.
        companions: What a neighbour that belongs to the file is called, behind the file's own name: ``".data"``.

    Raises:
        UsageError: There is no such file.
        IntegrityError: It holds links, devices, too many files, or changed its kind while it was read.
        OutputError: The copy cannot be written.
    """
    target = folder / (path.name or "model")
    try:
        whole = path.resolve(strict=True)
        if whole.is_dir():
            return Snapshot(target, _copy_folder(whole, target))
        digest = _copy_file(whole, target)
        beside = [path.with_name(path.name + ending) for ending in companions]
        plain = [file for file in beside if file.is_file() and not file.is_symlink()]
        return Snapshot(target, digest, {file.name: _copy_file(file, folder / file.name) for file in plain})
    except FileNotFoundError as reason:
        raise UsageError(f"{path} does not exist. Give a model file or folder.") from reason
    except RuntimeError as reason:  # a circle of links
        raise IntegrityError(f"{path} cannot be read: {reason}.") from reason
    except OSError as reason:
        raise IntegrityError(f"{path} cannot be read: {reason.strerror or reason}.") from reason


def _copy_file(source: Path, target: Path) -> str:
    digest = hashlib.sha256()
    handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb", buffering=0) as stream:  # noqa: PTH123  by descriptor: the name may mean something else by now
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise IntegrityError(f"{source} is no plain file. Give a model file or folder.")
        with _writing(target) as copy:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
                copy(chunk)
    target.chmod(0o400)
    return digest.hexdigest()


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[Callable[[bytes], None]]:
    """Yield what writes to a new file; that the disk is full is not to be taken for a fault of the file that is read."""

    def write(chunk: bytes) -> None:
        try:
            stream.write(chunk)
        except OSError as reason:
            raise explain_disk(reason, target) from reason

    with target.open("xb") as stream:
        yield write
        try:
            stream.flush()
        except OSError as reason:
            raise explain_disk(reason, target) from reason


def _copy_folder(source: Path, target: Path) -> str:
    names = _files(source)
    digest = hashlib.sha256()
    for name in sorted(names, key=lambda name: source / name):
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        digest.update(f"{name}\0{_copy_file(source / name, place)}\n".encode())
    target.mkdir(exist_ok=True)
    return digest.hexdigest()


def _files(folder: Path) -> list[str]:
    found: list[str] = []
    waiting = [(folder, 0)]
    while waiting:
        place, level = waiting.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                name = Path(entry.path).relative_to(folder).as_posix()
                if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
                    raise IntegrityError(
                        f"{folder} holds '{name}', which is a link or no plain file. Models hold plain files only."
                    )
                if entry.is_dir():
                    waiting.append((Path(entry.path), level + 1))
                else:
                    found.append(name)
                if len(found) > _MOST_FILES or level > _MOST_LEVELS:
                    raise IntegrityError(
                        f"{folder} holds more than {_MOST_FILES} files or {_MOST_LEVELS} levels of folders. Give a model alone."
                    )
    return found
