"""One walk through a program in which every value that a file holds is replaced by the file's own.

::

    program   x ── conv ── relu ── conv ── relu ── y        file   x ── CONV_2D ── a ── CONV_2D ── y

    walk      x ── conv ── relu = a?  yes: go on with a ── conv ── relu = y?

So the difference found at a node is what its own operators (those since the last replaced value) do otherwise: the local error.
An error that comes from before reaches both sides and cancels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgekit.device_tests.bisection.matching import Candidate, Tensors, arranged
from edgekit.device_tests.bisection.program import operator_of

if TYPE_CHECKING:
    from torch.fx import Node

    from edgekit.core.tensors import Array
    from edgekit.device_tests.bisection.program import Execution, Values

__all__ = ["Placed", "Tolerance", "Walk", "grid_of", "real_values"]

_ARITHMETIC = 1.001
"""A little more than whole steps, for the float32 arithmetic around them."""
_SAME_INTEGERS = {128, 32768}
"""Zero points that unsigned grids are shifted by."""


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """Largest local difference that counts as rounding.

    Args:
        relative: Of the largest value, for values that are on no grid.
        why: In words.
        steps: For values on a grid.
        scales: Relative difference of a scale.
    """

    relative: float
    why: str
    steps: float = 1.0
    scales: float = 1e-6

    def of(self, node: Node, values: Array) -> float:
        """Absolute tolerance for a node's values."""
        grid = grid_of(node)
        if grid is not None:
            return self.steps * _ARITHMETIC * grid[0]
        if values.dtype.kind in "iub":
            return 0.0
        return self.relative * float(np.abs(values[np.isfinite(values)]).max(initial=0.0))


@dataclasses.dataclass(frozen=True)
class Placed:
    """A node whose value the file holds.

    Args:
        candidate: Where.
        own: What the program's operators make of the file's values before it, ``[S, *shape]``, real numbers.
        tolerance: Largest difference that counts as rounding.
        by: How it was found, as in :class:`~edgekit.core.provenance.TensorMatch`.
        twins: Other tensors with the same values.
        regridded: What the file's grid is, where it is not the program's.
    """

    candidate: Candidate
    own: Array
    tolerance: float
    by: Any
    twins: tuple[str, ...] = ()
    regridded: str = ""

    @property
    def is_equal(self) -> bool:
        """Whether the file computes what the program computes from the same values."""
        return self.candidate.error <= self.tolerance and not self.regridded


class Walk:
    """The result of one walk.

    Args:
        execution: The program.
        tensors: The file's values.
        tolerance: What counts as equal.
        edges: Nodes whose tensor is known because they are outputs.
        anchors: Nodes whose tensor is supposed, though it does not hold the node's value.
        known: Nodes whose tensor is known from the exported file.
        before: A walk with all of these anchors but one: what does not depend on that one is taken from it.
    """

    def __init__(
        self,
        execution: Execution,
        tensors: Tensors,
        tolerance: Tolerance,
        *,
        edges: Mapping[Node, Candidate],
        anchors: Mapping[Node, Candidate],
        known: Mapping[str, Candidate],
        before: Walk | None = None,
    ) -> None:
        self._tensors = tensors
        self._tolerance = tolerance
        self._edges = edges
        self.anchors = anchors
        self._known = known
        self._taken: set[str] = set()
        self.placed: dict[Node, Placed] = {}
        self.alone: dict[Node, Array] = {}
        kept: dict[Node, Values] = {}
        if before is not None:
            (new,) = anchors.keys() - before.anchors.keys()
            changed = execution.behind(new)
            kept = {node: values for node, values in before.values.items() if node not in changed}
            self.placed = {node: placed for node, placed in before.placed.items() if node in kept}
            self.alone = {node: values for node, values in before.alone.items() if node in kept}
            self._taken = {placed.candidate.tensor for placed in self.placed.values()}
        self.values: dict[Node, Values] = execution.run(self._replace, kept=kept)
        self.placed = {node: self.placed[node] for node in execution.calls if node in self.placed}

    @property
    def score(self) -> tuple[int, int]:
        """How many tensors are explained: equal to a node, not by supposition; and how many of them without a step between."""
        supposed = {candidate.tensor for candidate in self.anchors.values()}
        equal = {placed.candidate.tensor: placed for placed in self.placed.values() if placed.is_equal}
        explained = [placed for tensor, placed in equal.items() if tensor not in supposed]
        return len(explained), sum(placed.candidate.error <= placed.tolerance / 2 for placed in explained)

    @property
    def equal_tensors(self) -> set[str]:
        """Tensors that hold a node's value, and their twins; supposed and known ones too."""
        return {name for placed in self.placed.values() for name in (placed.candidate.tensor, *placed.twins)}

    @property
    def known_tensors(self) -> set[str]:
        """The file's tensors that depend on its inputs."""
        return set(self._tensors.real)

    def _replace(self, node: Node, own: Values) -> Values | None:
        values = real_values(node, own)
        if values is None:
            return None
        placed = self._place(node, values)
        if placed is None:
            self.alone[node] = values
            return None
        self.placed[node] = placed
        self._taken.add(placed.candidate.tensor)
        found = arranged(self._tensors.real[placed.candidate.tensor], values.shape[1:], placed.candidate.axes)
        return [_as_computed(node, found[at], own[at]) for at in range(len(own))]

    def _place(self, node: Node, values: Array) -> Placed | None:
        tolerance = self._tolerance.of(node, values)
        for given, by in (
            (self.anchors.get(node), "effect"),
            (self._edges.get(node), "edge"),
            (self._known.get(node.name), "name"),
        ):
            if given is not None:
                held = arranged(self._tensors.real[given.tensor], values.shape[1:], given.axes)
                candidate = dataclasses.replace(given, error=_error(values, held))
                return Placed(candidate, values, tolerance, by, regridded=self._regridded(node, given.tensor))
        if not values.size or float(values.max()) - float(values.min()) <= 2 * tolerance:
            return None  # nearly constant: too many tensors could be meant
        found = self._equal(node, values, tolerance)
        if not found:
            return None
        best = min(
            found, key=lambda one: (round(one.error / (tolerance or 1.0), 1), one.tensor != node.name, one.tensor in self._taken)
        )
        twins = tuple(other.tensor for other in found if other.tensor != best.tensor)
        return Placed(best, values, tolerance, "value", twins=twins, regridded=self._regridded(node, best.tensor))

    def _equal(self, node: Node, values: Array, tolerance: float) -> list[Candidate]:
        """Tensors that hold a value; for one on a grid those on a grid, for real numbers are near it before they are rounded."""
        found = self._tensors.equal(values, tolerance)
        on_grid = [one for one in found if one.tensor in self._tensors.file.grids] if grid_of(node) is not None else []
        return on_grid or found

    def _regridded(self, node: Node, tensor: str) -> str:
        """The file's grid where a quantize node's tensor has another one than the program's."""
        wanted, stored = grid_of(node), self._tensors.file.grids.get(tensor)
        if wanted is None or stored is None:
            return ""
        is_same = abs(stored[0] - wanted[0]) <= self._tolerance.scales * wanted[0] and abs(stored[1] - wanted[1]) in {
            0,
            *_SAME_INTEGERS,
        }
        return "" if is_same else f"scale {stored[0]:.9g}, zero point {stored[1]} instead of {wanted[0]:.9g}, {wanted[1]}"


def grid_of(node: Node) -> tuple[float, int, int, int] | None:
    """Scale, zero point, smallest and largest integer of a quantize node; None for any other."""
    if operator_of(node) != "quantize_per_tensor" or not isinstance(node.args[1], float):
        return None
    return node.args[1], *(int(number) for number in node.args[2:5])  # type: ignore[arg-type, return-value]


def real_values(node: Node, values: Values) -> Array | None:
    """A node's values as real numbers ``[S, *shape]``; None where it makes no tensor of one shape."""
    if not all(isinstance(value, torch.Tensor) for value in values) or len({value.shape for value in values}) != 1:
        return None
    stacked: Array = torch.stack([value.detach() for value in values]).numpy()
    grid = grid_of(node)
    if grid is not None:
        return (stacked.astype(np.float32) - np.float32(grid[1])) * np.float32(grid[0])
    return stacked if stacked.dtype.kind in "fiub" else None


def _as_computed(node: Node, real: Array, like: torch.Tensor) -> torch.Tensor:
    """A real value in the type and on the grid of a node's own."""
    grid = grid_of(node)
    if grid is not None:
        scale, zero_point, low, high = grid
        real = np.clip(np.rint(real.astype(np.float64) / scale) + zero_point, low, high)
    return torch.from_numpy(np.array(real, order="C")).to(like.dtype).reshape(like.shape)


def _error(one: Array, other: Array) -> float:
    same = one == other  # infinities of one sign
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(one.astype(np.float64) - other))
    largest = float(apart.max(initial=0.0))
    return float("inf") if np.isnan(largest) else largest
