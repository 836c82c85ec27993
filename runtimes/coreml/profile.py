"""Times of single operations in the reference executor: where *its* time goes, not the Neural Engine's."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgekit.core.measurement import Evidence
from edgekit.core.operator_profile import OperatorKind, OperatorProfile, OperatorTime, with_shares
from edgekit.runtimes.coreml.ops.library import builder

if TYPE_CHECKING:
    from edgekit.core.tensors import Array
    from edgekit.runtimes.coreml import program as mil
    from edgekit.runtimes.coreml.executable import Executable

__all__ = ["profile_program"]

_CONVERSIONS = {"quantize", "dequantize", "cast"}
_MOVING_FAMILIES = {"shape", "indexing", "padding", "lists"}
"""Files of kernels that only move values."""


def profile_program(
    executable: Executable, name: str, inputs: Mapping[str, Array], *, runtime: str, threads: int, run_count: int
) -> OperatorProfile:
    """Run a program operation by operation; see :meth:`edgekit.core.operator_profile.Profiler.profile`."""
    tensors = {given: torch.from_numpy(np.array(values, order="C")) for given, values in inputs.items()}
    fed = {given: tensor.float() if tensor.is_floating_point() else tensor for given, tensor in tensors.items()}
    first = executable.clocked(fed)
    spent = [0] * len(first)
    started = time.perf_counter()
    for _ in range(run_count):
        for at, (_operation, elapsed_ns) in enumerate(executable.clocked(fed)):
            spent[at] += elapsed_ns
    inference_ms = (time.perf_counter() - started) * 1e3 / run_count
    return OperatorProfile(
        model=name,
        runtime=f"coreml-reference {runtime}",
        provider="torch",
        threads=threads,
        run_count=run_count,
        inference_ms=inference_ms,
        operators=with_shares(
            OperatorTime(
                name=operation.name,
                type=operation.type,
                time_ms=elapsed_ns / 1e6 / run_count,
                kind=_kind(operation),
                provider="torch",
            )
            for (operation, _), elapsed_ns in zip(first, spent, strict=True)
        ),
        evidence=Evidence.REFERENCE,
        note="Reference semantics, not the Neural Engine: no device spends its time so.",
    )


def _kind(operation: mil.Operation) -> OperatorKind:
    if operation.type in _CONVERSIONS:
        return "conversion"
    if builder(operation).__module__.rpartition(".")[2] in _MOVING_FAMILIES:
        return "movement"
    return "float" if any(output.dtype.startswith("float") for output in operation.outputs) else "integer"
