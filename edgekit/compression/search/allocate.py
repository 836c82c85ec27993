"""A precision for each layer, by the noise that rounding makes and what removing it costs.

The optimisation problem: make the least costly change to a plan of int8 kernels so that the noise at the outputs, the sum of
what each source contributes (:mod:`measure`), is at most a bound; a multiple-choice knapsack, solved greedily by noise removed
per cost added (Dantzig 1957), which is within one move of the best.

======= ======= ================= ============== ==================================================
word    work    bits per weight   weight noise   activation noise
======= ======= ================= ============== ==================================================
int8    1       8                 int8           int8
w4a8    1       4                 int4           int8
w8a16   2       8                 int8           int8 / 2**16
w8      4       8                 int8           none
fp16    4       16                none           none
======= ======= ================= ============== ==================================================

Work is relative time of a multiply-accumulate: float kernels take about four times as long as int8 ones on the mobile processors
that int8 is for, 16-bit activations twice. A value's noise goes only when no int8 kernel is left that makes or reads it: so a
move frees one layer, or a value's maker and readers together.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from edgekit.compression.quantize.nodes import shape_of
from edgekit.compression.search.sensitivity import macs_of, weight_count
from edgekit.core.recipe import LayerPrecision

if TYPE_CHECKING:
    from torch.fx import Node

    from edgekit.compression.quantize.plan import Kernel, Plan
    from edgekit.compression.search.measure import NoiseMap

__all__ = ["WORK", "Allocation", "Problem", "allocate", "exceptions"]

WORK = {"int8": 1.0, "w4a8": 1.0, "dynamic-int8": 1.5, "w8a16": 2.0, "w8": 4.0, "w4": 4.0, "fp16": 4.0, "float32": 4.0}
_BITS = {"int8": 8, "w4a8": 4, "w8a16": 8, "w8": 8, "fp16": 16}
_WEIGHTS_AS = {"int8": "int8", "w4a8": "int4", "w8a16": "int8", "w8": "int8"}
_ON_INT8 = {"int8", "w4a8"}
_WIDE = 2.0**-16
_MOVES = {"max_pool", "concat", "move", "pad"}


@dataclasses.dataclass(frozen=True)
class Allocation:
    """A precision for each layer.

    Args:
        words: Layer -> word, for layers that are not int8.
        noise: Noise at the outputs over that of int8 everywhere, by the model.
        work: Relative time, 1 for int8 everywhere.
        weight_bytes: Bytes of all weights.
        is_enough: The bounds are kept.
    """

    words: dict[str, str]
    noise: float
    work: float
    weight_bytes: int
    is_enough: bool


class Problem:
    """Sources of noise and the layers that touch them."""

    def __init__(self, plan: Plan, noise: NoiseMap) -> None:
        kernels = [*plan.kernels, *plan.weight_only]
        self.layers = tuple(dict.fromkeys(kernel.layer for kernel in kernels if kernel.layer))
        self.macs: dict[str, float] = defaultdict(float)
        self.weights: dict[str, int] = defaultdict(int)
        self.sources: list[tuple[frozenset[str], dict[str, float] | float]] = []
        for kernel in kernels:
            self.macs[kernel.layer] += macs_of(kernel) + math.prod(shape_of(kernel.node))
            self.weights[kernel.layer] += weight_count(kernel)
            if kernel.node in noise.weights:
                held = {kind: found.reached for kind, found in noise.weights[kernel.node].items()}
                self.sources.append((frozenset([kernel.layer]), held))
        touching = _touching(plan)
        self.sources += [(touching[node], found.reached) for node, found in noise.values.items()]
        self.by_layer: dict[str, list[int]] = defaultdict(list)
        for index, (layers, _) in enumerate(self.sources):
            for layer in layers:
                self.by_layer[layer].append(index)

    def moves(self) -> list[frozenset[str]]:
        """Sets of layers worth freeing together."""
        singles = [frozenset([layer]) for layer in self.layers]
        return list(dict.fromkeys([*singles, *(layers for layers, _ in self.sources if layers and "" not in layers)]))

    def noise(self, words: Mapping[str, str], indices: Iterable[int] | None = None) -> float:
        """Noise at the outputs, of some sources or all."""
        chosen = range(len(self.sources)) if indices is None else indices
        return sum(self._source(index, words) for index in chosen)

    def _source(self, index: int, words: Mapping[str, str]) -> float:
        layers, held = self.sources[index]
        own = [words.get(layer, "int8") for layer in layers]
        if isinstance(held, dict):
            return held.get(_WEIGHTS_AS.get(own[0], ""), 0.0)
        if not own or any(word in _ON_INT8 for word in own):
            return held
        return held * _WIDE if "w8a16" in own else 0.0

    def work(self, words: Mapping[str, str]) -> float:
        """Relative time."""
        whole = sum(self.macs.values()) or 1.0
        return sum(macs * WORK[words.get(layer, "int8")] for layer, macs in self.macs.items()) / whole

    def weight_bytes(self, words: Mapping[str, str]) -> float:
        """Bytes of the weights."""
        return sum(count * _BITS[words.get(layer, "int8")] / 8 for layer, count in self.weights.items())


def allocate(problem: Problem, *, noise_share: float, relief: Sequence[str], size_bytes: int | None = None) -> Allocation:
    """Free layers until the noise is at most ``noise_share`` of that of int8 everywhere.

    Args:
        problem: Sources and layers.
        noise_share: Bound, over the noise of int8 everywhere.
        relief: Words a layer may get instead of int8.
        size_bytes: Bound of all weights' bytes: layers go to 4 bits first where the fewest bytes are bought with least noise.
    """
    whole = problem.noise({}) or 1.0
    words = _shrink(problem, size_bytes)
    noise = problem.noise(words)
    moves = problem.moves()
    while noise > noise_share * whole:
        best = _best_move(problem, words, moves, relief, size_bytes)
        if best is None:
            break
        words, removed = best
        noise -= removed
    fits = size_bytes is None or problem.weight_bytes(words) <= size_bytes
    kept = {layer: word for layer, word in words.items() if word != "int8"}
    enough = fits and noise <= noise_share * whole
    return Allocation(kept, noise / whole, problem.work(words), round(problem.weight_bytes(words)), enough)


def _shrink(problem: Problem, size_bytes: int | None) -> dict[str, str]:
    words: dict[str, str] = {}
    if size_bytes is None:
        return words

    def price(layer: str) -> float:
        indices = problem.by_layer[layer]
        added = problem.noise({layer: "w4a8"}, indices) - problem.noise({}, indices)
        return added / max(problem.weights[layer], 1)

    for layer in sorted((layer for layer in problem.layers if problem.weights[layer]), key=price):
        if problem.weight_bytes(words) <= size_bytes:
            break
        words[layer] = "w4a8"
    return words


def _best_move(
    problem: Problem, words: Mapping[str, str], moves: Sequence[frozenset[str]], relief: Sequence[str], size_bytes: int | None
) -> tuple[dict[str, str], float] | None:
    """The words after the move that removes most noise for its cost, and how much it removes."""
    best: tuple[float, dict[str, str], float] | None = None
    weights, macs = sum(problem.weights.values()) or 1, sum(problem.macs.values()) or 1.0
    for layers in moves:
        indices = {index for layer in layers for index in problem.by_layer[layer]}
        before = problem.noise(words, indices)
        for word in relief:
            changed = [layer for layer in layers if WORK[word] + _BITS[word] > _dearness(words.get(layer, "int8"))]
            if not changed:
                continue
            after = {**words, **dict.fromkeys(changed, word)}
            removed = before - problem.noise(after, indices)
            if removed <= 0 or (size_bytes is not None and problem.weight_bytes(after) > size_bytes):
                continue
            time = sum(problem.macs[layer] * (WORK[word] - WORK[words.get(layer, "int8")]) for layer in changed) / macs
            bits = sum(problem.weights[layer] * (_BITS[word] - _BITS[words.get(layer, "int8")]) for layer in changed)
            gain = removed / max(time + bits / 8 / weights, 1e-9)
            if best is None or gain > best[0]:
                best = (gain, after, removed)
    return None if best is None else best[1:]


def _dearness(word: str) -> float:
    return WORK[word] + _BITS[word]


def _touching(plan: Plan) -> dict[Node, frozenset[str]]:
    """Layers whose kernels make or read each value; what only moves values is looked through."""
    makers = {kernel.end: kernel for kernel in plan.kernels}
    readers: dict[Node, list[Kernel]] = defaultdict(list)
    for kernel in plan.kernels:
        for argument in kernel.activation_arguments:
            readers[argument].append(kernel)

    def reading(node: Node) -> set[str]:
        found: set[str] = set()
        for kernel in readers[node]:
            found |= reading(kernel.end) if kernel.family.name in _MOVES else {kernel.layer}
        return found

    def making(node: Node) -> set[str]:
        kernel = makers.get(node)
        if kernel is None:
            return set()
        if kernel.family.name not in _MOVES:
            return {kernel.layer}
        return set().union(*(making(argument) for argument in kernel.activation_arguments))

    return {node: frozenset(reading(node) | making(node)) for node in plan.values}


def exceptions(words: Mapping[str, str], layers: Iterable[str]) -> tuple[LayerPrecision, ...]:
    """Words by layer as a recipe's patterns: a pattern also names what lies inside its module, so that is named after it.

    >>> [(rule.layers, rule.precision) for rule in exceptions({"block": "fp16"}, ["block", "block.conv", "head"])]
    [('block', 'fp16'), ('block.conv', 'int8')]
    """
    inside = [layer for layer in layers if layer in words or any(layer.startswith(f"{freed}.") for freed in words)]
    ordered = sorted(inside, key=lambda layer: layer.count("."))
    return tuple(LayerPrecision(layers=layer, precision=words.get(layer, "int8")) for layer in ordered)
