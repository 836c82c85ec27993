"""The samples themselves: digests that show copies, and statistics by channel."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgekit.core.calibration import InputStatistics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgekit.core.plugins import Progress
    from edgekit.core.tensors import Array

__all__ = ["DataSet", "read_samples"]


@dataclasses.dataclass
class DataSet:
    """What one pass over a data set leaves behind.

    Args:
        digests: sha256 of each sample's bytes, all inputs together, in order.
        inputs: Statistics of each float input.
    """

    digests: list[bytes]
    inputs: tuple[InputStatistics, ...]

    @property
    def copies(self) -> dict[int, int]:
        """Sample -> the earlier sample it is a copy of."""
        first: dict[bytes, int] = {}
        return {at: first[digest] for at, digest in enumerate(self.digests) if first.setdefault(digest, at) != at}

    def shared_with(self, other: DataSet) -> list[int]:
        """Samples that are also in another data set."""
        known = set(other.digests)
        return [at for at, digest in enumerate(self.digests) if digest in known]


class _Moments:
    """Extremes, sum and sum of squares by channel, about the first sample's mean so that nothing cancels; float64."""

    def __init__(self, axis: int) -> None:
        self.axis = axis
        self.low = self.high = self.shift = self.total = self.square = np.zeros(0)
        self.count = 0

    def add(self, batch: Array) -> None:
        """Take in ``[N, ...]``."""
        batch = batch[:, None] if batch.ndim == 1 else batch
        rows = np.moveaxis(batch, self.axis, 0).reshape(batch.shape[self.axis], -1).astype(np.float64)
        low, high = rows.min(1), rows.max(1)
        if not self.count:
            self.shift, self.low, self.high = rows.mean(1), low, high
            self.total = self.square = np.zeros(len(rows))
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)
        rows -= self.shift[:, None]
        self.total, self.square = self.total + rows.sum(1), self.square + (rows**2).sum(1)
        self.count += rows.shape[1]

    def statistics(self, name: str) -> InputStatistics:
        mean = self.total / self.count
        spread = np.sqrt(np.maximum(self.square / self.count - mean**2, 0.0))
        columns = {"low": self.low, "high": self.high, "mean": mean + self.shift, "std": spread}
        return InputStatistics(
            name=name, channel_axis=self.axis, **{key: tuple(values.tolist()) for key, values in columns.items()}
        )


def read_samples(
    batches: Iterable[Mapping[str, Array]],
    *,
    axes: Mapping[str, int],
    sample_count: int | None = None,
    what: str,
    progress: Progress,
) -> DataSet:
    """Read a data set once.

    Args:
        batches: Input batches by name, of any size.
        axes: Channel axis of each input.
        sample_count: Stop after so many samples; None: read all.
        what: What progress calls it.
        progress: Called after each batch.
    """
    moments: dict[str, _Moments] = {}
    digests: list[bytes] = []
    for batch in _limited(batches, sample_count):
        count = next(iter(batch.values())).shape[0]
        for at in range(count):
            digest = hashlib.sha256()
            for name in sorted(batch):
                digest.update(np.ascontiguousarray(batch[name][at]).tobytes())
            digests.append(digest.digest())
        for name, array in batch.items():
            if array.dtype.kind == "f":
                moments.setdefault(name, _Moments(axes[name])).add(array)
        progress(what, len(digests), sample_count)
    return DataSet(digests, tuple(found.statistics(name) for name, found in moments.items()))


def _limited(batches: Iterable[Mapping[str, Array]], sample_count: int | None) -> Iterator[Mapping[str, Array]]:
    if sample_count is None:
        yield from batches
        return
    left = sample_count
    for batch in batches:
        yield {name: array[:left] for name, array in batch.items()}
        left -= next(iter(batch.values())).shape[0]
        if left <= 0:
            return
