"""The program with the example's sizes in place of open ones: asked for, or because a target knows fixed shapes only."""

from __future__ import annotations

import dataclasses
import warnings
from typing import TYPE_CHECKING

from edgekit.core.errors import ConversionError

if TYPE_CHECKING:
    from edgekit.core.artifact import ExportOptions
    from edgekit.core.compressed import Compressed

__all__ = ["fix_shapes"]

_FIXED_ONLY = {"tflite": "litert-torch 0.10 compiles fixed shapes only"}
"""Targets that take no open axes, and why."""


def fix_shapes(compressed: Compressed, *, target: str, options: ExportOptions) -> Compressed:
    """The program as it is where the target takes its open axes; with the example's sizes where that was asked for.

    Raises:
        ConversionError: The target takes fixed shapes only, and nobody asked for them.
    """
    record = compressed.record
    open_inputs = [spec for spec in record.inputs if spec.flexible]
    if not open_inputs or (not options.fixed_shapes and target not in _FIXED_ONLY):
        return compressed
    if not options.fixed_shapes:
        found = ", ".join(f"'{spec.name}' {spec.sizes}" for spec in open_inputs)
        example = ", ".join(f"{list(spec.shape)}" for spec in open_inputs)
        raise ConversionError(
            f"Target {target} cannot take inputs with open axes: {found} ({_FIXED_ONLY[target]}). Export it with --fixed-shapes,"
            f" which fixes them to the example's sizes {example}, or leave out this target."
        )
    import torch

    arguments = tuple(torch.from_numpy(compressed.golden.inputs[spec.name][0]) for spec in record.inputs)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch warns about its own pytree API here
        program = torch.export.export(compressed.program.module(check_guards=False), arguments, strict=False)
    fixed = record.replace(
        inputs=tuple(spec.replace(flexible=()) for spec in record.inputs),
        outputs=tuple(spec.replace(flexible=()) for spec in record.outputs),
    )
    return dataclasses.replace(compressed, program=program, record=fixed)
