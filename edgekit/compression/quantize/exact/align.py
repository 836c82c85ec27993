"""Scales for which executors round alike: bit for bit with ``exact=True``, nearly so without, at almost no price in accuracy.

Every requantization gets a tie-free multiplier (see :mod:`rational`), by the smallest change of whatever scale is still free:

==================== ===================================== ================================================================
kernel               multiplier                            what gives way
==================== ===================================== ================================================================
quantize an input    ``1 / s``                             ``s``: the next power of two, so that dividing is exact (only with
                                                           ``exact=True``: it may cost the input a bit)
conv, linear         ``s_in * s_w[c] / s_out``             ``s_w[c]``, a little wider (:func:`exact_weight_scales`)
add, sub             ``s_a / s_out``, ``s_b / s_out``      all three: small integer multiples of one unit, odd at the output
mul, matmul          ``s_a * s_b / s_out``                 ``s_out``
mean over n          ``s_in / (n * s_out)``                ``s_out``
clamp                ``s_in / s_out``                      ``s_out``
sigmoid, tanh, …     a table of 256 entries                ``s_in`` or ``s_out``, so that no entry lies near a tie
shared grids         1                                     nothing: max pooling, concat, reshape only move integers
==================== ===================================== ================================================================

:mod:`exactness` checks the result from the program alone, and names what could not be made exact.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from edgekit.compression.quantize.exact.rational import nearby_multiplier, odd_multipliers
from edgekit.compression.quantize.exact.table import tie_distance
from edgekit.compression.quantize.grid import Grid

if TYPE_CHECKING:
    from torch.fx import Node

    from edgekit.compression.quantize.plan import Kernel, Plan
    from edgekit.core.tensors import Array

__all__ = ["align_grids", "averaged_count", "exact_weight_scales"]

_SUMS = {"add", "sub"}
_UNITS = 32  # the narrowest scale of an addition in units: a scale grows by 3 % at most
_TABLE_TRIALS = [1 + step / 1000 for step in range(40)]


def align_grids(plan: Plan, grids: Mapping[int, Grid], *, exact: bool) -> dict[int, Grid]:
    """Grids moved so that requantizations between them are tie-free.

    Args:
        plan: Kernels in graph order and the groups of their values.
        grids: Group -> grid.
        exact: Also quantize inputs by powers of two.
    """
    aligned = _Alignment(plan, dict(grids))
    if exact:
        aligned.align_inputs()
    for kernel in plan.kernels:
        aligned.align_kernel(kernel)
    return aligned.grids


def exact_weight_scales(scales: Array, *, input_scale: float, output_scale: float) -> Array:
    """Weight scales ``[C]``, float32, each the next wider one whose multiplier is tie-free."""
    multipliers = odd_multipliers(scales.astype(np.float64) * input_scale / output_scale)
    result: Array = (multipliers * output_scale / input_scale).astype(np.float32)
    return result


def averaged_count(node: Node) -> int:
    """Values under each mean of a ``mean`` or global pooling node."""
    source = node.args[0]
    shapes = [math.prod(part.meta["val"].shape) for part in (source, node)]  # type: ignore[union-attr]
    return int(shapes[0] // shapes[1])


class _Alignment:
    """The grids so far, and which of them an earlier kernel depends on."""

    def __init__(self, plan: Plan, grids: dict[int, Grid]) -> None:
        self.plan = plan
        self.grids = grids
        self.settled = {  # a constant's range is known, too, but its grid may be any
            value.group for node, value in plan.values.items() if value.fixed_range is not None and node.op != "get_attr"
        }

        self.sums = self._coupled(kernel for kernel in plan.kernels if kernel.family.name in _SUMS)

    def align_inputs(self) -> None:
        """Divide inputs by powers of two: exact, so that all executors meet the same ties and round them to even."""
        for value in self.plan.values.values():
            if value.is_input and value.group not in self.settled:
                self._set(value.group, 2.0 ** math.ceil(math.log2(self.grids[value.group].scale)))

    def _align_sums(self, kernel: Kernel) -> None:
        """Put the grids that additions couple with this one on multiples of one unit, odd ones where a sum is rounded."""
        groups, outputs = next(found for found in self.sums if self._output(kernel) in found[0])
        fixed = groups & self.settled
        unit = _coarse(min(self.grids[group].scale for group in fixed or groups)) / _UNITS
        if fixed:
            unit = min(self.grids[group].scale for group in fixed) / _UNITS
        for group in groups - fixed:
            count = math.ceil(self.grids[group].scale / unit - 1e-9)
            self._set(group, unit * (count | 1 if group in outputs else count))

    def _coupled(self, kernels: Iterable[Kernel]) -> list[tuple[set[int], set[int]]]:
        """(groups, those of them that sums are rounded to) for each set of additions that share a grid."""
        sets: list[tuple[set[int], set[int]]] = []
        for kernel in kernels:
            output = self._output(kernel)
            groups, outputs = {output, *self._inputs(kernel)}, {output}
            apart = []
            for known in sets:
                if known[0] & groups:
                    groups, outputs = groups | known[0], outputs | known[1]
                else:
                    apart.append(known)
            sets = [*apart, (groups, outputs)]
        return sets

    def align_kernel(self, kernel: Kernel) -> None:
        """Settle the grids one kernel reads and writes."""
        rule: Callable[[Kernel], None] | None = {
            "mul": self._align_product, "matmul": self._align_product, "mean": self._align_mean, "clamp": self._align_product,
            "add": self._align_sums, "sub": self._align_sums,
        }.get(kernel.family.name)  # fmt: skip
        if rule is not None:
            rule(kernel)
        elif kernel.family.name in {"sigmoid", "tanh", "hardswish", "leaky_relu"}:
            self._align_table(kernel)
        self.settled |= {self._output(kernel), *self._inputs(kernel)} if rule else set()

    def _align_product(self, kernel: Kernel) -> None:
        inputs, output = self._inputs(kernel), self._output(kernel)
        numerator = math.prod(self.grids[group].scale for group in inputs)
        free = next((group for group in inputs if group not in self.settled and inputs.count(group) == 1), None)
        if output in self.settled and free is not None:
            multiplier = nearby_multiplier(numerator / self.grids[output].scale, larger=True)
            self._set(free, float(multiplier) * self.grids[output].scale / (numerator / self.grids[free].scale))
        else:
            self._settle_output(kernel, numerator)

    def _align_mean(self, kernel: Kernel) -> None:
        self._settle_output(kernel, self.grids[self._inputs(kernel)[0]].scale / averaged_count(kernel.node))

    def _settle_output(self, kernel: Kernel, numerator: float) -> None:
        """Widen the output's grid until ``numerator / s_out`` is tie-free."""
        output = self._output(kernel)
        if output not in self.settled:
            multiplier: Fraction = nearby_multiplier(numerator / self.grids[output].scale, larger=False)
            self._set(output, float(np.float32(numerator / float(multiplier))))

    def _align_table(self, kernel: Kernel) -> None:
        """Move the one free grid of a table until its 256 entries stay clear of ties."""
        source, output = self._inputs(kernel)[0], self._output(kernel)
        free = output if output not in self.settled else source if source not in self.settled else None
        if free is not None:
            start = self.grids[free].scale

            def distance(factor: float) -> float:
                moved = _with_scale(self.grids[free], float(np.float32(start * factor)))
                pair = (self.grids[source], moved) if free == output else (moved, self.grids[output])
                return tie_distance(kernel.node, *pair)

            self._set(free, float(np.float32(start * max(_TABLE_TRIALS, key=distance))))
        self.settled |= {source, output}

    def _inputs(self, kernel: Kernel) -> list[int]:
        return [self.plan.values[argument].group for argument in kernel.activation_arguments]

    def _output(self, kernel: Kernel) -> int:
        return self.plan.values[kernel.end].group

    def _set(self, group: int, scale: float) -> None:
        self.grids[group] = _with_scale(self.grids[group], scale)
        self.settled.add(group)


def _with_scale(grid: Grid, scale: float) -> Grid:
    """The grid widened to ``scale``: symmetric if it was, else with its lowest value as near as a whole zero point allows."""
    if grid.zero_point == 0:
        return dataclasses.replace(grid, scale=float(np.float32(scale)))
    low = (grid.minimum - grid.zero_point) * grid.scale
    zero_point = int(np.clip(np.rint(grid.minimum - low / scale), grid.minimum, grid.maximum))
    return dataclasses.replace(grid, scale=float(np.float32(scale)), zero_point=zero_point)


def _coarse(scale: float) -> float:
    """The next larger number with a mantissa of 12 bits: its multiples up to 4096 are exact float32 numbers."""
    mantissa, exponent = math.frexp(scale)
    return math.ldexp(math.ceil(mantissa * 4096) / 4096, exponent)
