"""Search: which layers hurt, what precision each one should have, and the cheapest plan that keeps the metric.

The order of the data flow: :mod:`measure` (which layers hurt) -> :mod:`allocate` (a precision for each) -> :mod:`judge` (does the
plan keep the metric) -> :mod:`auto` (which plan to try next).
Importing this package loads no framework; :data:`RUNNER` does when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.core.recipe import Auto, Step

if TYPE_CHECKING:
    from pathlib import Path

    from edgekit.core.compressed import Compressed, StepRecord
    from edgekit.core.plugins import Bench, Progress
    from edgekit.core.task import Task

__all__ = ["RUNNER", "AutoRunner"]


class AutoRunner:
    """Carries out an :class:`~edgekit.core.recipe.Auto` step."""

    config: type[Step] = Auto

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
        """Find a plan and carry it out; the recipe of the result names that plan.

        Raises:
            DataError: The task has no evaluation data, or its metric cannot be used.
            RecipeError: The bound means nothing for this metric.
        """
        from edgekit.compression.search.auto import search

        if not isinstance(step, Auto):
            raise TypeError(f"expected an Auto step, got {type(step).__name__}")
        return search(state, step=step, task=task, progress=progress, work=work)


RUNNER = AutoRunner()
