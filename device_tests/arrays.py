"""Named arrays in one ``.npz`` file: written whole or not at all, read without unpickling."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.core.files import explain_disk
from edgekit.core.npz import read_npz

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["read_arrays", "write_arrays"]


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays by name.

    Raises:
        OutputError: The disk is full, or the place cannot be written.
    """
    import numpy as np

    temporary = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    try:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]  # numpy types **kwds as bool
        temporary.replace(path)
    except OSError as reason:
        raise explain_disk(reason, path) from reason
    finally:
        temporary.unlink(missing_ok=True)


def read_arrays(path: Path) -> dict[str, Array]:
    """All arrays of a file by name.

    Raises:
        IntegrityError: It is missing or damaged.
    """
    return read_npz(path, advice="Validate again.")
