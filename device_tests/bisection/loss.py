"""Where accuracy is lost: a file's values beside the float program's, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.core.errors import UsageError
from edgekit.device_tests.alignment import Alignment
from edgekit.device_tests.bisection.program import Execution
from edgekit.device_tests.bisection.walk import real_values
from edgekit.device_tests.parity import snr_db

if TYPE_CHECKING:
    from edgekit.core.bisection import Bisection
    from edgekit.core.compressed import Compressed
    from edgekit.device_tests.bisection.examine import Examination

__all__ = ["with_float_snr"]

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
    rows = []
    for row in result.layers:
        node = nodes[row.node]
        counterpart = alignment.counterpart(node)
        expected = real_values(counterpart, values[counterpart]) if counterpart is not None and counterpart in values else None
        found = examination.file_value(node)
        if expected is None or expected.shape != found.shape:
            rows.append(row)
            continue
        ratio = snr_db(found, expected)
        rows.append(row.replace(float_snr_db=_SAME_DB if ratio is None else ratio))
    return result.replace(layers=tuple(rows))
