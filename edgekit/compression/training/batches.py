"""The training data as the trainer draws it: again in the same order after an interruption, and apart from the net's own draws.

The loader draws from the global generators of Python, NumPy and torch, which are seeded before each epoch; what the net and
its loss draw from torch's (dropout) comes from a stream of its own. So batches do not depend on the net, and those that an
interrupted run has used can be drawn again without calling it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgekit.compression.training.checkpoint import Checkpoint, Generators, digest_of
from edgekit.compression.training.objective import TrainingBatch
from edgekit.compression.training.processes import Processes, take_rows
from edgekit.core.errors import DataError

if TYPE_CHECKING:
    from edgekit.core.task import Task
    from edgekit.core.tensors import Array

__all__ = ["Loader", "count_batches"]


class Loader:
    """A task's training data, epoch by epoch.

    Args:
        task: With training data.
        seed: Of everything that is drawn.
        processes: Whose share is taken.
        folder: Named in errors, where there are checkpoints.
    """

    def __init__(self, task: Task, *, seed: int, processes: Processes, folder: Path | None) -> None:
        self.task, self.seed, self.processes, self.folder = task, seed, processes, folder
        self.weight = 1.0
        """Share of the last batch's rows that this process took."""
        self._inputs: dict[str, Array] = {}
        self._data: torch.Tensor | None = None

    def epoch(self, number: int, *, start: int = 0, resumed: Checkpoint | None = None) -> Iterator[TrainingBatch]:
        """Batches of an epoch (from 0), beginning with batch ``start``; the net's random numbers are in place between them.

        Args:
            number: The epoch.
            start: Batches that an earlier run has used; they are drawn again and not yielded.
            resumed: That run's checkpoint.

        Raises:
            DataError: No data, bad data, or not the data it was.
        """
        _seed(self.seed, number)
        draws = torch.Generator().manual_seed(_word(self.seed, number, 1 + self.processes.index)).get_state()
        if self.processes.device.type == "cuda":
            torch.cuda.manual_seed(_word(self.seed, number, 1 + self.processes.index))
        count = 0
        for count, (arrays, targets) in enumerate(self.task.training_batches(), start=1):
            if count > start:
                self._inputs, self._data = arrays, torch.get_rng_state()
                batch = self._batch(arrays, targets, count - 1, number)
                torch.set_rng_state(draws)
                yield batch
                draws = torch.get_rng_state()
                torch.set_rng_state(self._data)
            elif count == start and resumed is not None:
                if digest_of(*arrays.values()) != resumed.last_batch:
                    raise self._changed(start)
                resumed.data.restore()
                draws = resumed.draws
        if count < start:
            raise self._changed(start)
        self._inputs = {}

    def state(self) -> tuple[Generators, str]:
        """The generators as the loader left them, and the digest of its last batch."""
        draws = torch.get_rng_state()
        if self._data is not None:
            torch.set_rng_state(self._data)
        data = Generators.now()
        torch.set_rng_state(draws)
        return data, digest_of(*self._inputs.values()) if self._inputs else ""

    def _batch(self, arrays: dict[str, Array], targets: Any, at: int, epoch: int) -> TrainingBatch:
        inputs = {name: _tensor(array) for name, array in arrays.items()}
        targets = _tensor(targets) if isinstance(targets, np.ndarray) else targets
        if self.processes.count > 1:
            rows, self.weight = self.processes.share(next(iter(inputs.values())).shape[0])
            inputs = {name: tensor[rows] for name, tensor in inputs.items()}
            targets = take_rows(targets, rows, where=f"Task '{self.task.name}': training batch {at}")
        if self.processes.device.type != "cpu":
            from accelerate.utils import send_to_device

            inputs, targets = send_to_device((inputs, targets), self.processes.device, non_blocking=True)
        return TrainingBatch(inputs, targets, at, epoch)

    def _changed(self, count: int) -> DataError:
        return DataError(
            f"Task '{self.task.name}': batch {count} of the training data is not what it was before the interruption,"
            f" so training cannot go on where it stopped. Let the loader draw from the global generators, which are seeded"
            f" for it, or from one with a fixed seed; to train anew, remove {self.folder}."
        )


def count_batches(task: Task) -> int:
    """Batches an epoch: from the loader's length, or counted once; twice, to find out whether it can be read again.

    Raises:
        DataError: No data, bad data, or data that can be read only once.
    """
    data: Any = task.training() if callable(task.training) else task.training
    try:
        return max(1, len(data))
    except TypeError:
        pass
    before = Generators.now()
    count = sum(1 for _ in task.training_batches())
    before.restore()
    if not callable(task.training) and iter(data) is data:
        raise DataError(
            f"Task '{task.name}': the training data can be read only once ({type(data).__name__}); give a list, a DataLoader, or"
            " a function that returns the batches of one epoch."
        )
    return count


def _tensor(array: Array) -> torch.Tensor:
    array = np.ascontiguousarray(array)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _seed(seed: int, epoch: int) -> None:
    words = np.random.SeedSequence([seed, epoch]).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002  the user's loader may draw from the global generator
    torch.manual_seed(int(words[2]))


def _word(*numbers: int) -> int:
    return int(np.random.SeedSequence(list(numbers)).generate_state(1)[0])
