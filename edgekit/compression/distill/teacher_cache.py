"""What the teachers answered, kept from the first epoch on, where later epochs bring the same inputs.

Answers are kept sample by sample under a digest of the sample's inputs, so a loader may shuffle. Random augmentation changes
the digests: the second epoch finds none of its samples, and the cache is given up. Only outputs are kept, never features.

A training run that is killed must go on with the very same answers (another batch may round another way), so
:meth:`TeacherCache.state` appends what is new to files beside the checkpoint.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgekit.core.errors import DataError, IntegrityError
from edgekit.core.files import write_bytes

if TYPE_CHECKING:
    from edgekit.compression.training.objective import TrainingBatch

__all__ = ["LARGEST_BYTES", "TeacherCache"]

LARGEST_BYTES = 2**30
_DIGEST_BYTES = 16
_FEW_SAMPLES = 32

Inputs = Mapping[str, torch.Tensor]
Outputs = Mapping[str, torch.Tensor]


class TeacherCache:
    """Answers of one or more teachers, by sample.

    Args:
        required: Refuse data whose inputs change, instead of giving the cache up; then there is no limit of size either.
        folder: Where :meth:`state` keeps the answers; None: nowhere.
        largest_bytes: The cache is given up where the answers take more.
    """

    def __init__(self, *, required: bool = False, folder: Path | None = None, largest_bytes: int = LARGEST_BYTES) -> None:
        self.required, self.folder, self.largest_bytes = required, folder, largest_bytes
        self.given_up = ""
        """Why nothing is kept any more; empty while it is."""
        self.hits = 0
        """Samples that no teacher had to be asked for."""
        self._places: dict[bytes, int] = {}
        self._rows: list[dict[str, _Rows]] = []
        self._stored = 0
        self._tally = [0, 0, 0]  # epoch, and its samples that were new, and known

    def answers(self, batch: TrainingBatch, ask: Callable[[Inputs], Sequence[Outputs]]) -> Sequence[Outputs]:
        """Each teacher's outputs ``[N, ...]`` for a batch.

        Args:
            batch: Its inputs are looked up sample by sample.
            ask: Has the teachers answer samples that are not known yet.

        Raises:
            DataError: The cache is required, and this epoch's inputs are not those of the first.
        """
        keys = [] if self.given_up else _digests(batch.inputs)
        unknown = {key: row for row, key in enumerate(keys) if key not in self._places}
        self._judge(batch, new=len(unknown), known=len(keys) - len(unknown))
        if self.given_up:
            return ask(batch.inputs)
        self.hits += len(keys) - len(unknown)
        rows = torch.tensor(list(unknown.values()), dtype=torch.long)
        if not self._places or len(unknown) == len(keys):
            answers = ask(batch.inputs)
            if self._is_by_sample(answers, len(keys)):
                self._keep(list(unknown), [{name: tensor[rows] for name, tensor in outputs.items()} for outputs in answers])
                self._check_size()
            return answers
        if unknown:
            self._keep(list(unknown), ask({name: tensor[rows] for name, tensor in batch.inputs.items()}))
        found = self._gather([self._places[key] for key in keys], device=next(iter(batch.inputs.values())).device)
        self._check_size()
        return found

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold; writes the answers that are new since the last call into the folder."""
        count = len(self._places)
        if self.folder is not None and count > self._stored:
            arrays = {"keys": np.frombuffer(b"".join(list(self._places)[self._stored :]), np.uint8).reshape(-1, _DIGEST_BYTES)}
            for teacher, outputs in enumerate(self._rows):
                arrays |= {f"{teacher}/{name}": rows.part(self._stored, count).numpy() for name, rows in outputs.items()}
            stream = io.BytesIO()
            np.savez(stream, **arrays)  # type: ignore[arg-type]  # numpy types **kwds as bool
            self.folder.mkdir(parents=True, exist_ok=True)
            write_bytes(self._file(self._stored), stream.getvalue())
            self._stored = count
        kept = count if self.folder is not None else 0
        return {"count": kept, "given_up": self.given_up, "hits": self.hits, "tally": list(self._tally)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go back to a checkpoint's state.

        Raises:
            IntegrityError: A file beside the checkpoint is missing or damaged.
        """
        self._places, self._rows, self._stored = {}, [], 0
        self.given_up, self.hits = str(state["given_up"]), int(state["hits"])
        self._tally = [int(number) for number in state["tally"]]
        while self._stored < int(state["count"]):
            file = self._file(self._stored)
            try:
                with np.load(file, allow_pickle=False) as found:
                    self._take(found)
            except (OSError, ValueError, KeyError) as reason:
                raise IntegrityError(
                    f"{file}, which the checkpoint beside it needs, cannot be read: {reason}. Remove {self.folder} to train anew."
                ) from reason

    def _take(self, found: Any) -> None:
        keys = [bytes(key) for key in found["keys"]]
        names = [name for name in found.files if name != "keys"]
        teachers = 1 + max(int(name.partition("/")[0]) for name in names)
        answers: list[dict[str, torch.Tensor]] = [{} for _ in range(teachers)]
        for name in names:
            teacher, _, output = name.partition("/")
            answers[int(teacher)][output] = torch.from_numpy(found[name])
        self._keep(keys, answers)
        self._stored = len(self._places)

    def _file(self, start: int) -> Path:
        return (self.folder or Path()) / f"answers-{start:09d}.npz"

    def _keep(self, keys: Sequence[bytes], answers: Sequence[Outputs]) -> None:
        if not self._rows:
            self._rows = [{name: _Rows() for name in outputs} for outputs in answers]
        for key in keys:
            self._places[key] = len(self._places)
        for held, outputs in zip(self._rows, answers, strict=True):
            for name, tensor in outputs.items():
                held[name].append(tensor.detach().cpu())

    def _gather(self, places: Sequence[int], *, device: torch.device) -> list[Outputs]:
        chosen = torch.tensor(places)
        return [{name: rows.held[chosen].to(device) for name, rows in held.items()} for held in self._rows]

    def _is_by_sample(self, answers: Sequence[Outputs], count: int) -> bool:
        whole = [name for outputs in answers for name, tensor in outputs.items() if tensor.shape[:1] != (count,)]
        if whole and self.required:
            raise DataError(
                f"cached = true, but the teacher's output '{whole[0]}' is not one for each sample. Set cached = false."
            )
        if whole:
            self._give_up(f"output '{whole[0]}' is not one for each sample")
        return not whole

    def _check_size(self) -> None:
        size = sum(rows.size_bytes for held in self._rows for rows in held.values())
        if size > self.largest_bytes and not self.required:
            self._give_up(f"the answers take more than {self.largest_bytes / 2**20:.0f} MiB")

    def _judge(self, batch: TrainingBatch, *, new: int, known: int) -> None:
        """Are later epochs' inputs those of the first? A few new ones are what a loader that drops its last batch brings."""
        if batch.epoch != self._tally[0]:
            self._tally = [batch.epoch, 0, 0]
        self._tally[1:] = self._tally[1] + new, self._tally[2] + known
        _, all_new, all_known = self._tally
        if batch.epoch == 0 or all_new <= max(_FEW_SAMPLES, all_known):
            return
        found = f"{all_new} of the first {all_new + all_known} of epoch {batch.epoch + 1} are new"
        if self.required:
            raise DataError(
                f"cached = true, but the inputs change from epoch to epoch: {found}. Remove the random augmentation, or set"
                " cached = false."
            )
        self._give_up(f"the inputs change from epoch to epoch: {found}")

    def _give_up(self, why: str) -> None:
        self.given_up = why
        self._places, self._rows, self._stored = {}, [], 0


class _Rows:
    """A tensor ``[count, ...]`` that grows."""

    def __init__(self) -> None:
        self.held, self.count = torch.empty(0), 0

    @property
    def size_bytes(self) -> int:
        return self.count * self.held[:1].nbytes

    def append(self, rows: torch.Tensor) -> None:
        needed = self.count + len(rows)
        if needed > len(self.held) or not self.count:
            grown = torch.empty((max(needed, 2 * len(self.held)), *rows.shape[1:]), dtype=rows.dtype)
            if self.count:
                grown[: self.count] = self.held[: self.count]
            self.held = grown
        self.held[self.count : needed] = rows
        self.count = needed

    def part(self, start: int, end: int) -> torch.Tensor:
        return self.held[start:end]


def _digests(inputs: Mapping[str, torch.Tensor]) -> list[bytes]:
    """A digest for each sample of a batch."""
    arrays = [np.ascontiguousarray(tensor.detach().cpu().numpy()) for tensor in inputs.values()]
    rows = [array.reshape(len(array), -1).view(np.uint8) for array in arrays]
    digests = []
    for at in range(len(rows[0])):
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        for array in rows:
            digest.update(array[at].data)
        digests.append(digest.digest())
    return digests
