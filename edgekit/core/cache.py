"""Folders kept by what they were made from, so that the same work is not done twice.

::

    ~/.cache/edgekit/conversions/3f/3f9c…/entry.json      sha256 of everything in content/
                                         /content/        the folder that was made

``EDGEKIT_CACHE`` names another folder, or says ``off``; ``EDGEKIT_CACHE_MB`` its size in megabytes. What was used longest ago
goes first. An entry is used only if it belongs to this user and its digest is the recorded one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.core.files import sha256, size_bytes, write_text

__all__ = ["FolderCache", "cache_folder", "key_of"]

_LIMIT_MB = 2000


def cache_folder() -> Path | None:
    """Where caches lie: ``EDGEKIT_CACHE``, else the platform's place for a user's caches; None where it says ``off``."""
    named = os.environ.get("EDGEKIT_CACHE", "").strip()
    if named.lower() in {"off", "0", "no", "none"}:
        return None
    if named:
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"), "edgekit", "cache")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "edgekit"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "edgekit")


def key_of(facts: Mapping[str, Any]) -> str:
    """Digest of what a result depends on; JSON values.

    >>> key_of({"b": 1, "a": [2]}) == key_of({"a": [2], "b": 1})
    True
    """
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class FolderCache:
    """A cache of folders.

    Args:
        path: Where it lies; made when something is put into it.
        limit_bytes: Its size, at most.
    """

    path: Path
    limit_bytes: int

    @classmethod
    def of_user(cls, name: str) -> FolderCache | None:
        """The user's cache of one kind of folders; None where it is switched off."""
        place = cache_folder()
        if place is None:
            return None
        with contextlib.suppress(ValueError):
            return cls(place / name, int(float(os.environ.get("EDGEKIT_CACHE_MB", _LIMIT_MB)) * 1e6))
        return cls(place / name, _LIMIT_MB * 1_000_000)

    def take(self, key: str, target: Path) -> bool:
        """Copy an entry's content into the empty folder ``target``; False, and nothing copied, where there is no sound entry."""
        entry = self.path / key[:2] / key
        try:
            if not self._is_own(entry):
                return False
            recorded = json.loads((entry / "entry.json").read_text(encoding="utf-8"))["sha256"]
            shutil.copytree(entry / "content", target, dirs_exist_ok=True, symlinks=True)
            if any(file.is_symlink() for file in target.rglob("*")) or sha256(target) != recorded:
                raise ValueError("the content is not what was recorded")
            os.utime(entry)
        except FileNotFoundError:
            return False
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            self._empty(target)
            shutil.rmtree(entry, ignore_errors=True)
            return False
        return True

    def put(self, key: str, source: Path) -> None:
        """Keep a copy of a folder. A cache that cannot be written is no error."""
        entry = self.path / key[:2] / key
        with contextlib.suppress(OSError):
            if entry.exists() or size_bytes(source) > self.limit_bytes:
                return
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            entry.parent.mkdir(exist_ok=True, mode=0o700)
            temporary = Path(tempfile.mkdtemp(prefix=".", dir=entry.parent))
            try:
                shutil.copytree(source, temporary / "content")
                write_text(temporary / "entry.json", json.dumps({"sha256": sha256(temporary / "content")}))
                temporary.rename(entry)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            self._make_room()

    def _is_own(self, entry: Path) -> bool:
        """Whether nobody else can have written an entry."""
        if not hasattr(os, "getuid"):
            return entry.is_dir()
        return all(
            (facts := place.lstat()).st_uid == os.getuid() and not facts.st_mode & 0o022
            for place in (entry, entry.parent, self.path)
        )

    def _make_room(self) -> None:
        entries = sorted((entry for entry in self.path.glob("??/*") if entry.is_dir()), key=lambda entry: entry.stat().st_mtime)
        sizes = {entry: size_bytes(entry) for entry in entries}
        total = sum(sizes.values())
        for entry in entries:
            if total <= self.limit_bytes:
                return
            shutil.rmtree(entry, ignore_errors=True)
            total -= sizes[entry]

    @staticmethod
    def _empty(folder: Path) -> None:
        for place in folder.iterdir():
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place, ignore_errors=True)
            else:
                place.unlink(missing_ok=True)
