"""Checkpoints of a training run: enough to go on after a kill as if nothing had happened.

A checkpoint holds parameters, optimizer state, the place in the data, the states of all random number generators, and a
digest of what is being trained, so that another recipe, model or calibration set starts anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekit.core.errors import IntegrityError
from edgekit.core.files import write_bytes

__all__ = ["Checkpoint", "Generators", "digest_of", "read_checkpoint", "write_checkpoint"]

_FILE = "training.pt"


@dataclasses.dataclass(frozen=True)
class Generators:
    """States of the generators user code may draw from: Python's, NumPy's global one and torch's."""

    python: list[Any]
    numpy: list[Any]
    torch: torch.Tensor

    @classmethod
    def now(cls) -> Generators:
        """The present states."""
        version, words, gauss = random.getstate()
        kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002  the user's code may draw from the global generator
        return cls([version, list(words), gauss], [kind, [int(key) for key in keys], *rest], torch.get_rng_state())

    def restore(self) -> None:
        """Go back to these states."""
        version, words, gauss = self.python
        random.setstate((version, tuple(words), gauss))
        kind, keys, *rest = self.numpy
        np.random.set_state((kind, np.array(keys, np.uint32), *rest))  # noqa: NPY002
        torch.set_rng_state(self.torch)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The state of a training run between two batches.

    Args:
        job: Digest of what is trained; see :func:`digest_of`.
        epoch: Epochs completed.
        batch: Batches of the next epoch completed.
        parameters: The net's state.
        optimizer: The optimizer's state.
        generators: Random generators, as they are after ``batch``.
        last_batch: Digest of the last batch that was used; empty at the start of an epoch.
        losses: Mean loss of each completed epoch.
        loss_sum: Sum of the losses of the epoch that is under way.
        threads: Threads torch computed with: another number rounds otherwise.
    """

    job: str
    epoch: int
    batch: int
    parameters: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    generators: Generators
    last_batch: str
    losses: list[float]
    loss_sum: float
    threads: int


def digest_of(*parts: Any) -> str:
    """SHA-256 over tensors, arrays and anything with a ``repr``, in order."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.Tensor | np.ndarray):
            array = np.ascontiguousarray(part.detach().cpu().numpy() if isinstance(part, torch.Tensor) else part)
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(array.tobytes())
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint over the one before, whole or not at all.

    Raises:
        OutputError: The disk is full, or the place cannot be written.
    """
    data = {field.name: getattr(checkpoint, field.name) for field in dataclasses.fields(checkpoint)}
    data["generators"] = dataclasses.asdict(checkpoint.generators)
    stream = io.BytesIO()
    torch.save(data, stream)
    write_bytes(folder / _FILE, stream.getvalue())


def read_checkpoint(folder: Path, *, job: str) -> Checkpoint | None:
    """The checkpoint of this very job, or None where there is none.

    Raises:
        IntegrityError: The file is damaged.
    """
    path = folder / _FILE
    if not path.is_file():
        return None
    try:
        data: dict[str, Any] = torch.load(path, weights_only=True)
        data["generators"] = Generators(**data["generators"])
        checkpoint = Checkpoint(**data)
    except Exception as reason:
        raise IntegrityError(f"{path} is not a checkpoint this edgekit can read: {reason}. Remove it to train anew.") from reason
    return checkpoint if checkpoint.job == job else None
