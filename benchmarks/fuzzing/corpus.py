"""Mutants that did something new: kept, become seeds, replaced by smaller ones that do the same, and committed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from edgekit.core.files import write_text
from fuzzing.formats import Mutant, read_case, write_case

__all__ = ["CORPUS", "SEEDS", "Corpus"]

_HERE = Path(__file__).resolve().parent
SEEDS, CORPUS = _HERE / "seeds", _HERE / "corpus"
_MOST_OF_ONE_ERROR = 30
"""Mutants kept of one format and one type of error: messages that quote a mutant's bytes would be new for ever."""


class Corpus:
    """Mutants by what they did.

    Args:
        folder: Where they lie: ``FORMAT-DIGEST.FORMAT`` and ``index.json``, signature -> name.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._index = folder, folder / "index.json"
        self.names: dict[str, str] = json.loads(self._index.read_text()) if self._index.is_file() else {}
        self._sizes = {signature: self.read(name).size_bytes for signature, name in self.names.items()}

    def read(self, name: str) -> Mutant:
        """A mutant that was kept."""
        return read_case(self._folder / name)

    def of(self, suffix: str) -> Iterator[Mutant]:
        """All of one format, in the order of their signatures."""
        yield from (self.read(name) for _, name in sorted(self.names.items()) if name.endswith(f".{suffix}"))

    def offer(self, signature: str, suffix: str, mutant: Mutant, *, most_bytes: int) -> bool:
        """Keep a mutant if what it did is new, or if it is smaller than what did it before.

        Returns:
            Whether it is new.
        """
        signature = f"{suffix}|{signature}"
        known = self.names.get(signature)
        if mutant.size_bytes > most_bytes or (known and mutant.size_bytes >= self._sizes[signature] * 0.8):
            return False
        kind = "|".join(signature.split("|")[:3])
        if not known and sum(other.startswith(kind) for other in self.names) >= _MOST_OF_ONE_ERROR:
            return False
        digest = hashlib.sha256()
        for name, content in sorted({**mutant.files, **{k: v.encode() for k, v in mutant.links.items()}}.items()):
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        name = f"{digest.hexdigest()[:16]}.{suffix}"
        if name in self.names.values():
            return False
        self._folder.mkdir(parents=True, exist_ok=True)
        write_case(mutant, self._folder / name)
        self.names[signature], self._sizes[signature] = name, mutant.size_bytes
        self._save()
        if known:
            self._remove(known)
        return not known

    def _save(self) -> None:
        write_text(self._index, json.dumps(dict(sorted(self.names.items())), indent=1) + "\n")

    def _remove(self, name: str) -> None:
        place = self._folder / name
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
