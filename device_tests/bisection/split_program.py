"""What the compressed program computes before each rounding, and what float weights would have computed from the same integers.

The compressed program is run as it is. The float program is run beside it with the compressed program's dequantized integers in
place of every value that both have, so that each of its layers sees what the compressed one sees. Where a recipe moved factors
between channels (cross-layer equalization), the factors are fitted and taken out again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgekit.device_tests.alignment import Alignment
from edgekit.device_tests.bisection.program import Execution
from edgekit.device_tests.bisection.walk import real_values
from edgekit.device_tests.parity import snr_db

if TYPE_CHECKING:
    from torch.fx import Node

    from edgekit.core.compressed import Compressed
    from edgekit.core.contract import TensorQuantization
    from edgekit.core.tensors import Array

__all__ = ["ProgramLayer", "program_layers"]

_FEWEST_VALUES = 16
"""Of a channel, from which on a factor is fitted to it."""
_MOVED_DB = 3.0
"""Factors count as moved where fitting them brings the programs nearer by this much."""
_ALIKE_DB = 10.0
"""Two programs' answers this near have no factors between them."""
_LEAST_RANK = 3
"""``[S, N, C]``."""


@dataclasses.dataclass(frozen=True)
class ProgramLayer:
    """One activation entry; all arrays ``[S, *entry.shape]``.

    Args:
        real: What the program rounds, after the model's own clamp.
        integers: What it rounds it to.
        floated: What the float program's weights make of the same integers; None where the float program has no such value.
        reason: Why not.
    """

    real: Array
    integers: Array
    floated: Array | None = None
    reason: str = ""


def program_layers(compressed: Compressed, inputs: Mapping[str, Array]) -> dict[str, ProgramLayer]:
    """Every activation entry of a program, on some samples.

    Args:
        compressed: The program.
        inputs: Input name -> ``[S, *shape]``, in the program's input order.
    """
    execution = Execution(compressed.program, inputs)
    own = execution.run()
    nodes = {node.name: node for node in execution.graph.nodes}
    original = Execution(compressed.float_program, inputs)
    alignment = Alignment(execution.graph, original.graph)
    found: dict[str, ProgramLayer] = {}
    places: dict[str, Node] = {}
    for entry in compressed.contract.activations:
        node = nodes.get(entry.node)
        source: Any = node.args[0] if node is not None else None
        real = real_values(source, own[source]) if node in own and source in own else None
        if node is None or real is None or real.shape[1:] != entry.shape:
            continue
        places[entry.name] = node
        integers = torch.stack(own[node]).numpy()
        found[entry.name] = ProgramLayer(_clamped(real, entry, alignment.clamp(node)), integers)
    forced = _Forced(compressed, original, found, {name: alignment.counterpart(node) for name, node in places.items()}, places)
    return {name: forced.complete(name) for name in found}


def _clamped(real: Array, entry: TensorQuantization, clamp: str) -> Array:
    """The value the model means: with its own clamp, where saturation stands for one."""
    if not clamp:
        return real
    low, high = ((limit - entry.zero_point[0]) * entry.scale[0] for limit in (entry.minimum, entry.maximum))
    kept: Array = np.clip(real, low, None if clamp == "relu" else high)
    return kept


class _Forced:
    """The float program, fed the compressed program's values at every place both have.

    A recipe may have moved a factor ``f[c]`` into a layer's channels (cross-layer equalization, arXiv:1906.04721) and out of its
    readers' weights. A layer with weights is fed values divided by its sources' factors; its own are fitted to what comes out.
    """

    def __init__(
        self, compressed: Compressed, original: Execution, layers: Mapping[str, ProgramLayer],
        counterparts: Mapping[str, Node | None], places: Mapping[str, Node],
    ) -> None:  # fmt: skip
        self._entries = {entry.name: entry for entry in compressed.contract.activations}
        self._weighted = {entry.layer for entry in compressed.contract.parameters if entry.layer}
        self._layers, self._counterparts, self._places = layers, counterparts, places
        self._quantizers = {node: name for name, node in places.items()}
        self._factors: dict[str, Array | None] = {}
        self._found: dict[str, Array] = {}
        self._run(original)

    def complete(self, name: str) -> ProgramLayer:
        """The layer with its float value, or the reason why there is none."""
        layer = self._layers[name]
        if not self._has_weights(name):
            return dataclasses.replace(layer, floated=layer.real)
        value, factors = self._found.get(name), self._factors.get(name)
        if value is None or value.shape != layer.real.shape:
            return dataclasses.replace(layer, reason="the float program has no value at this place: the layer was rewritten")
        if factors is None or any(self._factors.get(source) is None for source in self._sources(name)):
            return dataclasses.replace(layer, reason="what the recipe moved between channels cannot be told")
        return dataclasses.replace(layer, floated=value.astype(np.float64) * factors)

    def _has_weights(self, name: str) -> bool:
        return self._entries[name].role == "activation" and self._entries[name].layer in self._weighted

    def _dequantized(self, name: str) -> Array:
        entry = self._entries[name]
        real: Array = (self._layers[name].integers.astype(np.float64) - entry.zero_point[0]) * entry.scale[0]
        return real

    def _factors_of(self, name: str, floated: Array) -> Array | None:
        """Factor of every channel, to broadcast over ``[S, N, C, ...]``; None where it cannot be told."""
        real = self._layers[name].real.astype(np.float64)
        if real.shape != floated.shape:
            return None
        if not self._has_weights(name):
            return self._passed_on(name, real.ndim)
        factors = _fitted_factors(real, floated.astype(np.float64))
        one = np.ones((1,) * real.ndim)
        before = snr_db(floated, real)
        if factors is None:
            return one if before is None or before > _ALIKE_DB else None
        after = snr_db(floated * factors, real)
        is_moved = before is not None and (after is None or after > before + _MOVED_DB)
        return factors if is_moved else one

    def _passed_on(self, name: str, rank: int) -> Array | None:
        """Factors of a layer without weights: those of what it reads, where channels stay apart."""
        one = np.ones((1,) * rank)
        sources = [self._factors.get(source) for source in self._sources(name)]
        if not sources:
            return one
        known = [factors for factors in sources if factors is not None]
        if len(known) < len(sources):
            return None
        moved = [factors for factors in known if factors.size > 1]
        if not moved:
            return one
        shape = self._entries[name].shape
        fits = len(shape) > 1 and all(factors.size == shape[1] for factors in moved)
        return moved[0].reshape(1, 1, -1, *(1 for _ in shape[2:])) if fits else None

    def _sources(self, name: str) -> tuple[str, ...]:
        """Entries that a layer reads."""
        found, pending = dict[str, None](), list(self._places[name].all_input_nodes)
        while pending:
            node = pending.pop()
            if node in self._quantizers:
                found[self._quantizers[node]] = None
            else:
                pending.extend(node.all_input_nodes)
        return tuple(found)

    def _run(self, original: Execution) -> None:
        """Run the float program once; every value both have is replaced for its readers as soon as it is computed."""
        by_node: dict[Node, str] = {}
        for name, node in self._counterparts.items():
            if node is not None:
                by_node.setdefault(node, name)

        def replace(node: Node, values: list[Any]) -> list[Any] | None:
            name = by_node.get(node)
            real = real_values(node, values) if name is not None else None
            if name is None or real is None:
                return None
            self._found[name] = real
            self._factors[name] = self._factors_of(name, real)
            return self._fed(name, values)

        kept = {}
        for node, values in original.inputs.items():
            if node in by_node:
                self._factors[by_node[node]] = np.ones((1,) * self._layers[by_node[node]].real.ndim)
                kept[node] = self._fed(by_node[node], values)
        original.run(replace, kept=kept)
        for name in self._layers:  # a value of the compressed program alone: a view that the float program does without
            if name not in self._factors and not self._has_weights(name):
                self._factors[name] = self._passed_on(name, self._layers[name].real.ndim)

    def _fed(self, name: str, like: list[Any]) -> list[Any]:
        """The compressed program's values in the float program's units; its own where the factors are unknown."""
        factors = self._factors[name]
        if factors is None:
            return like
        values = self._dequantized(name) / factors
        return [torch.from_numpy(row).to(one.dtype).reshape(one.shape) for row, one in zip(values, like, strict=True)]


def _fitted_factors(real: Array, floated: Array) -> Array | None:
    """The factor of each channel of ``[S, N, C, ...]`` that brings the second nearest to the first; None with too few values."""
    if real.ndim < _LEAST_RANK or real.size < _FEWEST_VALUES * real.shape[2]:
        return None
    axes = tuple(axis for axis in range(real.ndim) if axis != 2)
    energy = (floated**2).sum(axes, keepdims=True)
    factors = (real * floated).sum(axes, keepdims=True) / np.where(energy > 0, energy, 1.0)
    positive: Array = np.where((energy > 0) & (factors > 0), factors, 1.0)
    return positive
