"""Carry out the rewrites a target needs, and prove that the program still computes the same."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from edgekit.converters.program_edit import ProgramEdit
from edgekit.converters.rewrites.table import rewrites_of
from edgekit.core.artifact import RewriteRecord
from edgekit.core.errors import ConversionError
from edgekit.core.program import answer_samples

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from edgekit.core.compressed import Compressed
    from edgekit.core.tensors import Array

__all__ = ["carry_out", "rewrite_for"]

_LARGEST_ERROR = 1e-4
"""Of the largest output. A rewrite adds in another order; it may not do more."""
_STEPS = 0.05
"""The same for programs with activations on a grid, where another order of additions can move a value by a step."""


def rewrite_for(compressed: Compressed, target: str) -> tuple[Compressed, tuple[RewriteRecord, ...]]:
    """The program as a target's vendor can take it, and what was rewritten.

    Raises:
        ConversionError: A rewritten program answers otherwise on the golden inputs (a bug in the rewrite: nothing is exported).
    """
    program, records = carry_out(compressed.program, target)
    if not records:
        return compressed, ()
    changed = dataclasses.replace(compressed, program=program)
    error = _largest_error(changed)
    allowed = _STEPS if compressed.contract.activations else _LARGEST_ERROR
    if not error <= allowed:
        names = ", ".join(record.name for record in records)
        raise ConversionError(
            f"Rewriting '{compressed.name}' for {target} ({names}) changed its answers by {error:.2g} of the largest output;"
            f" at most {allowed:g} is allowed. Nothing was exported. This is a bug in edgekit; other targets may be unaffected."
        )
    return changed, tuple(record.replace(largest_error=error) for record in records)


def carry_out(program: ExportedProgram, target: str) -> tuple[ExportedProgram, tuple[RewriteRecord, ...]]:
    """The program rewritten for a target, unchecked, and what was rewritten."""
    records = []
    edit = ProgramEdit(program)  # copying the graph costs more than looking for what to rewrite
    for rewrite in rewrites_of(target):
        count = rewrite.carry_out(edit)
        if count:
            program = edit.finish()
            edit = ProgramEdit(program)
            records.append(RewriteRecord(name=rewrite.name, count=count, because=rewrite.because))
    return program, tuple(records)


def _largest_error(compressed: Compressed) -> float:
    """Largest difference of any output from the golden one, relative to that output's largest value."""
    names = [spec.name for spec in compressed.record.outputs]
    found = answer_samples(compressed.program, compressed.golden.inputs, names)
    return max((_difference(found[name], compressed.golden.outputs[name]) for name in names), default=0.0)


def _difference(found: Array, expected: Array) -> float:
    """NaN where one is finite and the other is not."""
    if found.shape != expected.shape:
        return float("inf")
    if found.dtype.kind not in "fc":
        return float(np.mean(found != expected)) if found.size else 0.0
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    apart = np.where(same, 0, np.abs(found - expected))
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=0.0) or 1.0
    return float(apart.max(initial=0.0) / scale)
