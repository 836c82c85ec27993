"""Quantization: from a captured float program to a Q/DQ program and its contract, decided once for all targets.

The data flow, one module each (:mod:`static` is the whole of it):

==================== ================================================================================================
:mod:`canonical`     one form for each thing that must be recognised; :mod:`attention`, :mod:`arithmetic`, … are its passes
:mod:`plan`          what becomes integers, from :mod:`capability`'s table; :mod:`precision` says which integers
:mod:`calibrate`     ranges from data, by the rules of :mod:`estimate`
:mod:`equalize`      channels scaled until each uses its grid; :mod:`smooth` for normalised activations
:mod:`lower`         grids and integers written into the graph, scales moved by :mod:`exact` until roundings are tie-free
:mod:`repair`        weights rounded and biases moved until each layer's outputs are right
:mod:`exactness`     the proof, read from the finished program
==================== ================================================================================================

Importing this package loads no framework; :data:`RUNNER` does when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.core.recipe import Quantize, Step

if TYPE_CHECKING:
    from pathlib import Path

    from edgekit.core.compressed import Compressed, StepRecord
    from edgekit.core.plugins import Bench, Progress
    from edgekit.core.task import Task

__all__ = ["RUNNER", "QuantizeRunner"]


class QuantizeRunner:
    """Carries out a :class:`~edgekit.core.recipe.Quantize` step."""

    config: type[Step] = Quantize

    def __call__(
        self,
        state: Compressed,
        *,
        step: Step,
        task: Task,
        progress: Progress,
        work: Path | None = None,
        bench: Bench | None = None,  # noqa: ARG002  everything it needs is in the program
    ) -> tuple[Compressed, StepRecord]:
        """Quantize ``state.program``.

        Raises:
            DataError: Calibration data is missing or bad.
            ContractError: A layer cannot be put on an integer grid.
        """
        from edgekit.compression.quantize.static import quantize_static

        if not isinstance(step, Quantize):
            raise TypeError(f"expected a Quantize step, got {type(step).__name__}")
        return quantize_static(state, step=step, task=task, progress=progress, work=work)


RUNNER = QuantizeRunner()
