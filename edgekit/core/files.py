"""Files that are whole or absent: hash, write to a temporary name, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgekit.core.errors import IntegrityError, OutputError

__all__ = ["check_room", "inside", "replace_folder", "sha256", "size_bytes", "write_bytes", "write_text", "writing_folder"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DISK_ERRORS = {*_FULL, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG}


def sha256(path: Path) -> str:
    """Hex digest of a file, or of a folder's relative names and contents in sorted order."""
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            name = file.relative_to(path).as_posix()
            digest.update(f"{name}\0{sha256(file)}\n".encode())
        return digest.hexdigest()
    if path.exists() and not path.is_file():
        raise IntegrityError(f"{path} is no plain file: it cannot be hashed.")
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def inside(folder: Path, name: Path | str) -> Path:
    """The path of a file that a document in ``folder`` names.

    Raises:
        IntegrityError: It lies outside the folder, or links there.
    """
    try:
        place = (folder / name).resolve()
        place.exists()  # a name that is too long is noticed here
        is_inside = place.is_relative_to(folder.resolve()) and not Path(name).is_absolute()
    except (OSError, ValueError, RuntimeError):  # too long, a null character, a circle of links
        is_inside = False
    if not is_inside:
        raise IntegrityError(f"A document in {folder} names the file {str(name)[:200]!r}, which is not in that folder.")
    return folder / name


def size_bytes(path: Path) -> int:
    """Size of a file, or of all files below a folder, in bytes."""
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes to a temporary neighbour, fsync it, and rename it into place.

    Raises:
        OutputError: The disk is full, or the place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as reason:
        with contextlib.suppress(OSError):  # where the folder is none, neither is the file
            temporary.unlink(missing_ok=True)
        raise explain_disk(reason, path) from reason


@contextlib.contextmanager
def writing_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``target`` that replaces it on success and vanishes on failure.

    Raises:
        OutputError: The disk is full, or the place cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    except OSError as reason:
        raise explain_disk(reason, target) from reason
    try:
        yield temporary
        temporary.chmod(0o755)
        replace_folder(temporary, target)
    except OSError as reason:
        raise explain_disk(reason, target) from reason
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_room(folder: Path, *, size_bytes: int = 1 << 16) -> None:
    """Find out whether a small file can still be written into ``folder``.

    Raises:
        OutputError: The disk is full, or the place cannot be written.
    """
    probe = folder / ".room"
    write_bytes(probe, bytes(size_bytes))
    probe.unlink()


def replace_folder(source: Path, target: Path) -> None:
    """Move ``source`` onto ``target``; what stood there goes only once the new folder is in place."""
    for file in sorted(source.rglob("*")):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
    previous = target.with_name(f".{target.name}.{os.getpid()}.old")
    if target.exists():
        target.rename(previous)
    source.rename(target)
    shutil.rmtree(previous, ignore_errors=True)


def explain_disk(reason: OSError, path: Path) -> Exception:
    """Map an operating-system error about ``path`` to an :class:`OutputError` where it is about the disk."""
    if reason.errno not in _DISK_ERRORS:
        return reason
    words = "the disk is full" if reason.errno in _FULL else os.strerror(reason.errno or 0)
    return OutputError(f"Cannot write {path}: {words}. Nothing was changed; free some space or choose another folder.")
