"""Zip archives (``.pt2``, ``.pt``, ``.keras``) are looked over before a framework unpacks them."""

from __future__ import annotations

import stat
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath

from edgekit.core.errors import IntegrityError
from edgekit.core.file_kinds import is_whole_zip

__all__ = ["check_archive"]

_MOST_MEMBERS = 200_000
_LARGEST_RATIO = 200
"""Weights hardly compress; deflate itself ends at about 1000."""
_SMALL_BYTES = 64 * 2**20
"""What may be unpacked whatever the ratio is."""
_DEFLATED_OR_STORED = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


def check_archive(path: Path) -> tuple[str, ...]:
    """The names of an archive's members, once they are known to be harmless.

    Raises:
        IntegrityError: It is damaged, or holds links, names that lead outside, one name twice, or far more than it seems to.
    """
    if not is_whole_zip(path):
        raise IntegrityError(
            f"{path} is damaged: the list of its members is not at its end. It may have been cut off while copied."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as reason:
        raise IntegrityError(f"{path} is damaged: {reason}. It may have been cut off while it was copied.") from reason
    if len(members) > _MOST_MEMBERS:
        raise IntegrityError(f"{path} holds {len(members):,} members; a model has at most {_MOST_MEMBERS:,}. It was not opened.")
    for member in members:
        _check_member(path, member)
    (name, count), *_ = Counter(member.filename for member in members).most_common(1) or [("", 0)]
    if count > 1:
        raise IntegrityError(f"{path} holds '{name}' {count} times: two readers may see two different models. It was not opened.")
    _check_size(path, members)
    return tuple(member.filename for member in members)


def _check_member(path: Path, member: zipfile.ZipInfo) -> None:
    name = member.filename
    mode = member.external_attr >> 16
    wrong = ""
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        wrong = "is a link or a device"
    elif name.startswith(("/", "\\")) or ":" in name.partition("/")[0] or ".." in PurePosixPath(name.replace("\\", "/")).parts:
        wrong = "leads out of the archive"
    elif member.flag_bits & 0x1:
        wrong = "is encrypted"
    elif member.compress_type not in _DEFLATED_OR_STORED:
        wrong = f"is compressed by method {member.compress_type}, which no framework writes"
    if wrong:
        raise IntegrityError(f"{path}: member '{name}' {wrong}. The file was not opened.")


def _check_size(path: Path, members: list[zipfile.ZipInfo]) -> None:
    unpacked, packed = sum(member.file_size for member in members), path.stat().st_size
    if unpacked > max(_SMALL_BYTES, _LARGEST_RATIO * packed):
        raise IntegrityError(
            f"{path} has {packed / 1e6:.1f} MB and unpacks to {unpacked / 1e6:,.0f} MB: it is made to fill memory or disk."
            " It was not opened."
        )
