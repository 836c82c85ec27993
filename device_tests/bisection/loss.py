"""Where accuracy is lost: a file's values beside the float program's, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgekit.core.errors import UsageError
from edgekit.device_tests.alignment import Alignment
from edgekit.device_tests.bisection.program import Execution
from edgekit.device_tests.bisection.walk import grid_of, real_values
from edgekit.device_tests.parity import snr_db

if TYPE_CHECKING:
    from edgekit.core.bisection import Bisection
    from edgekit.core.compressed import Compressed
    from edgekit.core.tensors import Array
    from edgekit.device_tests.bisection.examine import Examination

__all__ = ["with_float_snr"]

_FEWEST_VALUES = 16
"""Of a channel, from which on a factor is fitted to it: recipes move factors between channels (equalization)."""
_SAME_DB = 200.0
"""Stands for values that are equal bit by bit."""


def with_float_snr(result: Bisection, examination: Examination, compressed: Compressed) -> Bisection:
    """The result with each value's signal-to-noise ratio against the float program, where that has such a value.

    Raises:
        UsageError: The file is the float program's own.
    """
    if examination.artifact.is_baseline or not compressed.contract.entries:
        raise UsageError(f"{result.label} is a float artifact: there is no other float program to compare it with.")
    samples = {name: values[: result.sample_count] for name, values in compressed.golden.inputs.items()}
    original = Execution(compressed.float_program, samples)
    values = original.run()
    alignment = Alignment(examination.execution.graph, original.graph)
    nodes = {node.name: node for node in examination.walk.placed}
    results, rows = set(examination.execution.results), []
    for row in result.layers:
        node = nodes[row.node]
        if grid_of(node) is None and node not in results:
            rows.append(row)  # before its activation, which the float program's value has behind it
            continue
        counterpart = alignment.counterpart(node)
        expected = real_values(counterpart, values[counterpart]) if counterpart is not None and counterpart in values else None
        found = examination.file_value(node)
        if expected is None or expected.shape != found.shape:
            rows.append(row)
            continue
        if _has_factors(found):
            found = _fitted(found, expected)
        elif not {node, *node.users} & results:
            rows.append(row)  # too few values to tell a moved factor from an error
            continue
        ratio = snr_db(found, expected)
        rows.append(row.replace(float_snr_db=_SAME_DB if ratio is None else ratio))
    return result.replace(layers=tuple(rows))


def _has_factors(values: Array) -> bool:
    """Whether every channel of ``[S, N, C, ...]`` has values enough to fit a factor."""
    return values.ndim >= 4 and values.size >= _FEWEST_VALUES * values.shape[2]


def _fitted(found: Array, expected: Array) -> Array:
    """``[S, N, C, ...]`` with a factor for each channel that brings it nearest to what is expected."""
    axes = tuple(axis for axis in range(found.ndim) if axis != 2)
    one, other = found.astype(np.float64), expected.astype(np.float64)
    energy = (one**2).sum(axes, keepdims=True)
    factors = (one * other).sum(axes, keepdims=True) / np.where(energy > 0, energy, 1.0)
    fitted: Array = one * np.where(factors > 0, factors, 1.0)
    return fitted
