"""Arrays from a ``.npz`` file, of which nothing is believed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.core.errors import EdgekitError, IntegrityError

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["read_npz"]


def read_npz(path: Path, *, advice: str, error: type[EdgekitError] = IntegrityError) -> dict[str, Array]:
    """All arrays of a file by name; objects are refused, and so are arrays that say they are larger than memory.

    Args:
        path: The file.
        advice: What to do where it is damaged, a sentence.
        error: What is raised.

    Raises:
        EdgekitError: ``error``: it is missing or damaged.
    """
    import numpy as np

    with _explained(path, advice, error), path.open("rb") as stream:
        stored = np.load(stream, allow_pickle=False)
        if not isinstance(stored, np.lib.npyio.NpzFile):
            raise error(f"{path} holds a single array, expected several by name (.npz). {advice}")
        found = {name: stored[name] for name in stored.files}
        for name, array in found.items():
            if not isinstance(array, np.ndarray):  # numpy hands out the bytes of a member that is no array
                raise error(f"{path} holds {name[:80]!r}, which is no array. {advice}")
        return found


@contextlib.contextmanager
def _explained(path: Path, advice: str, error: type[EdgekitError]) -> Iterator[None]:
    try:
        yield
    except EdgekitError:
        raise
    except FileNotFoundError as reason:
        raise error(f"{path} does not exist. {advice}") from reason
    except Exception as reason:  # zip directories, deflate streams and headers written as Python literals break in many ways
        words = " ".join(str(reason).split())[:300] or type(reason).__name__
        raise error(f"{path} cannot be read as arrays: {words}. {advice}") from reason
