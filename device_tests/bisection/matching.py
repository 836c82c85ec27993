"""Is a program's value a tensor of a file? By numbers alone: any order of axes, any shape, integers or real numbers.

Files keep few of a program's names, and those they keep may mean something else after a vendor's passes. So a value is looked up
by its extremes and its mean first, then compared number by number on every sample, in every order of axes that fits.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edgekit.core.provenance import TracedFile
    from edgekit.core.tensors import Array

__all__ = ["Candidate", "Tensors", "arranged", "axis_orders"]

_HIGHEST_RANK = 5
_PROBE = 2048
"""Values of the first sample that are compared before all of them are."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A tensor that can hold a value.

    Args:
        tensor: Its name.
        axes: Axis of the value that each axis of the tensor runs along, in the value's numbering; ``()``: same order.
        error: Largest difference.
        likeness: Correlation of the two, 1 for equal up to a positive factor and an offset.
    """

    tensor: str
    axes: tuple[int, ...]
    error: float
    likeness: float = 1.0


def axis_orders(wanted: Sequence[int], stored: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Orders of a value's axes in which a tensor of the given sizes can hold it, likely ones first; ``()`` is the value's own.

    >>> list(axis_orders((1, 8, 5, 5), (1, 5, 5, 8)))
    [(), (0, 2, 3, 1), (0, 3, 2, 1)]
    """
    if math.prod(wanted) != math.prod(stored):
        return
    yield ()
    rank, sizes = len(wanted), [size for size in stored if size != 1]
    if not 1 < rank <= _HIGHEST_RANK:
        return
    last = (0, *range(2, rank), 1)
    seen = {tuple(axis for axis in range(rank) if wanted[axis] != 1)}
    for order in (last, *itertools.permutations(range(rank))):
        long = tuple(axis for axis in order if wanted[axis] != 1)
        if long not in seen and [wanted[axis] for axis in long] == sizes:
            seen.add(long)
            yield order


def arranged(tensor: Array, shape: Sequence[int], axes: tuple[int, ...]) -> Array:
    """A tensor's values ``[S, *stored]`` in the program's order and shape, ``[S, *shape]``."""
    if not axes:
        return tensor.reshape(len(tensor), *shape)
    turned = tensor.reshape(len(tensor), *(shape[axis] for axis in axes))
    back = np.argsort(axes)
    return turned.transpose(0, *(int(axis) + 1 for axis in back))


class Tensors:
    """Computed tensors of a file by what they hold.

    Args:
        file: What the file computed.
        constant: Tensors that depend on no input: they hold no node's value.
    """

    def __init__(self, file: TracedFile) -> None:
        self.file = file
        self.real: dict[str, Array] = {}
        self.operations = {name: operation for operation in file.operations for name in operation.writes}
        self.order = {name: at for at, name in enumerate([*file.inputs.values(), *self.operations])}
        depends = set(file.inputs.values())
        for operation in file.operations:
            if depends.intersection(operation.reads):
                depends.update(operation.writes)
        for name in file.values:
            if name in depends and file.values[name].dtype.kind in "fiub":
                self.real[name] = file.real(name)
        self._by_size: dict[int, list[str]] = {}
        for name, values in sorted(self.real.items(), key=lambda item: self.order.get(item[0], 0)):
            self._by_size.setdefault(values[0].size, []).append(name)
        self._extremes: Mapping[str, tuple[float, float, float]] = {
            name: _extremes(values) for name, values in self.real.items() if values.size
        }

    def of_size(self, size: int) -> list[str]:
        """Tensors with so many values a sample, in the order they are computed."""
        return self._by_size.get(size, [])

    def equal(self, values: Array, tolerance: float) -> list[Candidate]:
        """Tensors equal to a value on every sample, in the order they are computed.

        Args:
            values: ``[S, *shape]``, real numbers.
            tolerance: Largest difference allowed.
        """
        if not values.size:
            return []
        extremes, found = _extremes(values), []
        for name in self.of_size(values[0].size):
            near = zip(extremes, self._extremes[name], strict=True)
            if not all(abs(one - other) <= tolerance for one, other in near):
                continue
            candidate = self._nearest(values, name, tolerance)
            if candidate is not None:
                found.append(candidate)
        return found

    def alike(self, values: Array, name: str) -> Candidate | None:
        """The order of axes in which a tensor is most like a value; None where its sizes do not fit."""
        wanted, best = values.astype(np.float64), None
        for axes in axis_orders(values.shape[1:], self.real[name].shape[1:]):
            held = arranged(self.real[name], values.shape[1:], axes).astype(np.float64)
            likeness = _correlation(wanted, held)
            if best is None or likeness > best.likeness + 1e-9:
                best = Candidate(name, axes, _largest(wanted - held), likeness)
        return best

    def _nearest(self, values: Array, name: str, tolerance: float) -> Candidate | None:
        for axes in axis_orders(values.shape[1:], self.real[name].shape[1:]):
            held = arranged(self.real[name], values.shape[1:], axes)
            probe = values[0].reshape(-1)[:_PROBE].astype(np.float64) - held[0].reshape(-1)[:_PROBE]
            if not _largest(probe) <= tolerance:
                continue
            error = _largest(values.astype(np.float64) - held)
            if error <= tolerance:
                return Candidate(name, axes, error)
        return None


def _extremes(values: Array) -> tuple[float, float, float]:
    finite = values.astype(np.float64)
    return float(finite.min()), float(finite.max()), float(finite.mean())


def _largest(difference: Array) -> float:
    """Largest absolute value; infinite where anything is not a number."""
    largest = float(np.abs(difference).max(initial=0.0))
    return float("inf") if np.isnan(largest) else largest


def _correlation(one: Array, other: Array) -> float:
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return 0.0
    left, right = one - one.mean(), other - other.mean()
    scale = float(np.sqrt((left**2).sum() * (right**2).sum()))
    return float((left * right).sum() / scale) if scale else 0.0
