"""Checkpoints of a training run: enough to go on after a kill as if nothing had happened.

A checkpoint holds weights, optimizer state, the place in the data, the states of all random number generators, what was
chosen so far, and what identifies the job, so that one of another recipe or model is refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekit.core.errors import IntegrityError, RecipeError
from edgekit.core.files import write_bytes

__all__ = ["Checkpoint", "Course", "Generators", "check_job", "digest_of", "read_checkpoint", "write_checkpoint"]

_FILE = "training.pt"


@dataclasses.dataclass(frozen=True)
class Generators:
    """States of the generators user code may draw from: Python's, NumPy's global one, torch's, and the GPU's."""

    python: list[Any]
    numpy: list[Any]
    torch: Tensor
    gpu: Tensor | None = None

    @classmethod
    def now(cls) -> Generators:
        """The present states."""
        version, words, gauss = random.getstate()
        kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002  the user's code may draw from the global generator
        return cls(
            [version, list(words), gauss],
            [kind, [int(key) for key in keys], *rest],
            torch.get_rng_state(),
            torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        )

    def restore(self) -> None:
        """Go back to these states."""
        version, words, gauss = self.python
        random.setstate((version, tuple(words), gauss))
        kind, keys, *rest = self.numpy
        np.random.set_state((kind, np.array(keys, np.uint32), *rest))  # noqa: NPY002
        torch.set_rng_state(self.torch)
        if self.gpu is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(self.gpu)


@dataclasses.dataclass
class Course:
    """How far a training is, and what it found on the way.

    Args:
        epoch: Epochs completed.
        batch: Batches of the next epoch completed.
        sums: Sum of each term of the loss over those batches.
        epochs: What is known of each completed epoch: the lines of the metrics file.
        best: Best validation result so far, and its epoch (from 1).
        seconds: Wall time spent on the epoch that is under way.
        is_over: Training stopped before its last epoch, and shall not go on.
    """

    epoch: int = 0
    batch: int = 0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    epochs: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    best: tuple[float, int] | None = None
    seconds: float = 0.0
    is_over: bool = False


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The state of a training run between two batches.

    Args:
        job: What is trained, part by part; see :func:`check_job`.
        course: How far it is.
        model: The net's state.
        objective: The objective's.
        optimizer: The optimizer's.
        scaler: The gradient scaler's, in fp16.
        average: Averaged weights, and over how many steps.
        best: The net's state after the best epoch.
        data: Random generators as the loader left them.
        draws: State of torch's generator as the net left it (dropout).
        last_batch: Digest of the last batch that was used; empty at the start of an epoch.
        threads: Threads torch computed with: another number rounds otherwise.
    """

    job: dict[str, Any]
    course: Course
    model: dict[str, torch.Tensor]
    objective: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any] | None
    average: tuple[dict[str, torch.Tensor], int] | None
    best: dict[str, torch.Tensor] | None
    data: Generators
    draws: torch.Tensor
    last_batch: str
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
    data["course"] = dataclasses.asdict(checkpoint.course)
    data["data"] = dataclasses.asdict(checkpoint.data)
    stream = io.BytesIO()
    torch.save(data, stream)
    write_bytes(folder / _FILE, stream.getvalue())


def read_checkpoint(folder: Path, *, job: Mapping[str, Any]) -> Checkpoint | None:
    """The checkpoint of this very job, or None where there is none.

    Raises:
        IntegrityError: The file is damaged.
        RecipeError: It is another job's.
    """
    path = folder / _FILE
    if not path.is_file():
        return None
    try:
        data: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        data["course"] = Course(**data["course"])
        data["data"] = Generators(**data["data"])
        checkpoint = Checkpoint(**data)
    except Exception as reason:
        raise IntegrityError(f"{path} is not a checkpoint this edgekit can read: {reason}. Remove it to train anew.") from reason
    check_job(checkpoint.job, job, folder=folder)
    return checkpoint


def check_job(found: Mapping[str, Any], wanted: Mapping[str, Any], *, folder: Path) -> None:
    """Make sure that a checkpoint belongs to what is to be trained.

    Args:
        found: The checkpoint's job: plain values, and tables of them.
        wanted: This one's.
        folder: Where the checkpoint lies.

    Raises:
        RecipeError: Something is not the same; says what.
    """
    before, now = _flat(found), _flat(wanted)
    changed = [
        f"{name} is another"
        if len(str(before.get(name))) > 40 or len(str(now.get(name))) > 40
        else f"{name} was {before.get(name)!r}, now it is {now.get(name)!r}"
        for name in dict.fromkeys([*now, *before])
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise RecipeError(
            f"{folder} holds a checkpoint of another training: {'; '.join(changed)}. Go on with what it was made with, or remove"
            " that folder to train anew."
        )


def _flat(job: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in job.items():
        flat |= value if isinstance(value, Mapping) else {name: value}
    return flat
