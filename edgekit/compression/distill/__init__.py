"""Knowledge distillation: a student learns what a teacher makes of the same inputs (Hinton et al., arXiv:1503.02531).

Importing this package loads no framework; :data:`RUNNER` does when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.core.distillation import Distill
from edgekit.core.step import Step

if TYPE_CHECKING:
    from pathlib import Path

    from edgekit.core.compressed import Compressed, StepRecord
    from edgekit.core.plugins import Bench, Progress
    from edgekit.core.task import Task

__all__ = ["RUNNER", "DistillRunner"]


class DistillRunner:
    """Carries out a :class:`~edgekit.core.distillation.Distill` step."""

    config: type[Step] = Distill

    def __call__(
        self,
        state: Compressed,
        *,
        step: Step,
        task: Task,
        progress: Progress,
        work: Path | None = None,
        bench: Bench | None = None,  # noqa: ARG002  a student is what it is: nothing is searched
    ) -> tuple[Compressed, StepRecord]:
        """Train ``state.module``, or the step's student, with the task's dense model as teacher.

        Raises:
            RecipeError: The step stands after quantization, or names a loss or student there is not.
            TaskError: Student and teacher do not answer alike, or the loss became NaN.
        """
        from edgekit.compression.distill.step import distill_step

        if not isinstance(step, Distill):
            raise TypeError(f"expected a Distill step, got {type(step).__name__}")
        return distill_step(state, step=step, task=task, progress=progress, work=work)


RUNNER = DistillRunner()
