"""Quantization: plan from the capability table, stream calibration, decide grids, write the Q/DQ program.

The order of the data flow: :mod:`canonical` -> :mod:`plan` -> :mod:`calibrate` -> :mod:`equalize` -> :mod:`grid` ->
:mod:`lower` -> :mod:`correct`.
Importing this package loads no framework; :data:`RUNNER` does when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.core.recipe import Quantize, Step

if TYPE_CHECKING:
    from pathlib import Path

    from edgekit.core.compressed import Compressed, StepRecord
    from edgekit.core.plugins import Progress
    from edgekit.core.task import Task

__all__ = ["RUNNER", "QuantizeRunner"]


class QuantizeRunner:
    """Carries out a :class:`~edgekit.core.recipe.Quantize` step."""

    config: type[Step] = Quantize

    def __call__(
        self, state: Compressed, *, step: Step, task: Task, progress: Progress, work: Path | None = None
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
