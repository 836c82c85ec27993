"""From an output that is wrong back to the first operators that compute otherwise.

A walk (:mod:`edgekit.device_tests.bisection.walk`) finds every tensor up to the fault and none behind it. Behind it the program's
values are right and the file's wrong, so nothing is equal. Then a pair of node and tensor is *supposed* to belong together
although they differ. If it is the right pair, the walk goes on with the file's wrong value from there and everything behind it
is equal again: the supposition that explains most of the file is taken. Then the next fault is looked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edgekit.device_tests.bisection.matching import Candidate, Tensors
from edgekit.device_tests.bisection.walk import Tolerance, Walk, grid_of

if TYPE_CHECKING:
    from torch.fx import Node

    from edgekit.device_tests.bisection.program import Execution

__all__ = ["Found", "Suspect", "find_faults", "group_of"]

_MOST_FAULTS = 4
_TENSORS = 6
"""Tensors right behind the last equal ones that are tried; the faulty one is the first that a node stands for."""
_NODES = 10
"""Nodes of fitting size that are compared with each."""
_TRIED = 3
"""Of these, so many of the most alike are walked."""


@dataclasses.dataclass(frozen=True)
class Suspect:
    """A node at which the file computes otherwise.

    Args:
        node: The node.
        group: It and the operators before it that the file has no equal tensor for, in the program's order.
        sources: Nodes with equal tensors (or inputs) that the group reads.
    """

    node: Node
    group: tuple[Node, ...]
    sources: tuple[Node, ...]


@dataclasses.dataclass(frozen=True)
class Found:
    """The end of the search.

    Args:
        walk: The walk with all suppositions.
        suspects: In the program's order.
    """

    walk: Walk
    suspects: tuple[Suspect, ...]


def find_faults(
    execution: Execution,
    tensors: Tensors,
    tolerance: Tolerance,
    *,
    edges: Mapping[Node, Candidate],
    known: Mapping[str, Candidate] | None = None,
) -> Found:
    """Find every node at which a file computes otherwise than the program, as far as the file still shows them.

    Args:
        execution: The program.
        tensors: The file's values.
        tolerance: What counts as equal.
        edges: Nodes that the program returns, and their tensors.
        known: Node -> tensor, where it is known from the exported file.
    """
    return _Search(execution, tensors, tolerance, edges=edges, known=known or {}).run()


class _Search:
    def __init__(
        self,
        execution: Execution,
        tensors: Tensors,
        tolerance: Tolerance,
        *,
        edges: Mapping[Node, Candidate],
        known: Mapping[str, Candidate],
    ) -> None:
        self._execution = execution
        self._tensors = tensors
        self._tolerance = tolerance
        self._edges = edges
        self._known = known
        self._anchors: dict[Node, Candidate] = {}
        self._given_up: set[frozenset[str]] = set()

    def run(self) -> Found:
        walk = Walk(self._execution, self._tensors, self._tolerance, edges=self._edges, anchors={}, known=self._known)
        while len(self._anchors) < _MOST_FAULTS:
            better = self._better(walk)
            if better is None:
                break
            node, candidate, walk = better
            self._anchors[node] = candidate
        suspects = [node for node, placed in walk.placed.items() if not placed.is_equal]
        return Found(walk, tuple(Suspect(node, *group_of(node, walk)) for node in suspects))

    def _walk(self, node: Node, candidate: Candidate, *, before: Walk) -> Walk:
        return Walk(
            self._execution,
            self._tensors,
            self._tolerance,
            edges=self._edges,
            anchors={**self._anchors, node: candidate},
            known=self._known,
            before=before,
        )

    def _better(self, walk: Walk) -> tuple[Node, Candidate, Walk] | None:
        """A supposition that explains more: before a wrong output, or in a gap.

        A gap is what lies between equal tensors and holds nothing of the program: a fault whose effect fades, or the
        converter's own steps on the way, in which nothing can be explained.
        """
        equal = walk.equal_tensors
        for node, placed in walk.placed.items():
            is_wrong = node in self._edges and not placed.is_equal
            behind = _behind(self._tensors, equal - {placed.candidate.tensor}, placed.candidate.tensor)
            gap = [name for name in behind if name not in equal]
            if not (is_wrong or gap) or frozenset((placed.candidate.tensor, *gap)) in self._given_up:
                continue
            found = self._best_supposition(walk, node, behind if is_wrong else gap)
            if found is not None:
                return found
            self._given_up.add(frozenset((placed.candidate.tensor, *gap)))
        return None

    def _best_supposition(self, walk: Walk, wrong: Node, behind: Sequence[str]) -> tuple[Node, Candidate, Walk] | None:
        """The pair of node and tensor before a node that explains more tensors than are explained without it."""
        best: tuple[Node, Candidate, Walk] | None = None
        score = walk.score
        for node, candidate in _pairs(self._tensors, walk, wrong=wrong, behind=behind):
            if node in self._anchors:
                continue
            tried = self._walk(node, candidate, before=walk)
            if tried.score > score:  # the first of equals: tensors come in the order they are computed
                best, score = (node, candidate, tried), tried.score
                if self._explains_all(tried, wrong, candidate.tensor, behind):
                    break
        return best

    def _explains_all(self, walk: Walk, wrong: Node, tensor: str, behind: Sequence[str]) -> bool:
        """Whether every tensor from a supposed one to a node that was wrong is a node's value, but for those no node fits."""
        sizes, equal = {values[0].size for values in walk.alone.values()}, walk.equal_tensors
        later = [name for name in behind if self._tensors.order[name] > self._tensors.order[tensor] and name not in equal]
        return walk.placed[wrong].is_equal and not any(self._tensors.real[name][0].size in sizes for name in later)


def group_of(node: Node, walk: Walk) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    """The operators since the last placed values that compute a node, itself included, and the nodes they read."""
    group, pending = {node}, [node]
    sources: dict[Node, None] = {}
    while pending:
        for source in pending.pop().all_input_nodes:
            if source in walk.placed or (source in walk.values and source.op == "placeholder"):
                sources[source] = None
            elif source in walk.values and source not in group:
                group.add(source)
                pending.append(source)
    return tuple(one for one in node.graph.nodes if one in group), tuple(one for one in node.graph.nodes if one in sources)


def _pairs(tensors: Tensors, walk: Walk, *, wrong: Node, behind: Sequence[str]) -> list[tuple[Node, Candidate]]:
    """Nodes and tensors that may belong together, the first tensors behind the equal ones first; likely nodes first."""
    group, sources = group_of(wrong, walk)
    values = {node: walk.alone[node] for node in group if node is not wrong and node in walk.alone}
    values |= {node: walk.placed[node].own for node in sources if node in walk.placed and walk.placed[node].by == "value"}
    pairs: list[tuple[Node, Candidate]] = []
    tensor_count = 0
    for tensor in behind:
        fitting = [node for node, value in values.items() if value[0].size == tensors.real[tensor][0].size]
        alike = [(node, tensors.alike(values[node], tensor)) for node in fitting[:_NODES]]
        found = [(node, candidate) for node, candidate in alike if candidate is not None]
        found.sort(key=lambda pair: (-round(pair[1].likeness, 3), not _fits_grid(tensors, *pair)))
        pairs += found[:_TRIED]
        tensor_count += bool(found)
        if tensor_count >= _TENSORS:
            break
    return pairs


def _fits_grid(tensors: Tensors, node: Node, candidate: Candidate) -> bool:
    """Whether node and tensor are both on a grid, or both not."""
    return (grid_of(node) is not None) == (candidate.tensor in tensors.file.grids)


def _behind(tensors: Tensors, equal: set[str], tensor: str) -> list[str]:
    """Tensors between the last equal ones and a tensor, those last equal ones included, in the order they are computed."""
    found, pending = {tensor}, [tensor]
    while pending:
        operation = tensors.operations.get(pending.pop())
        for source in operation.reads if operation is not None else ():
            if source in tensors.real and source not in found:
                found.add(source)
                if source not in equal:
                    pending.append(source)
    inputs = set(tensors.file.inputs.values())
    return sorted(found - {tensor} - inputs, key=lambda name: tensors.order[name])
