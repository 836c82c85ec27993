"""Structured pruning and sparsity: parts of a net are removed, or weights set to zero, and the rest is trained to make up for it.

Importing this package loads no framework; :data:`PRUNE` and :data:`SPARSIFY` do when they are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.core.pruning import Prune, Sparsify
from edgekit.core.step import Step

if TYPE_CHECKING:
    from pathlib import Path

    from edgekit.core.compressed import Compressed, StepRecord
    from edgekit.core.plugins import Bench, Progress
    from edgekit.core.task import Task

__all__ = ["PRUNE", "SPARSIFY", "PruneRunner", "SparsifyRunner"]


class PruneRunner:
    """Carries out a :class:`~edgekit.core.pruning.Prune` step."""

    config: type[Step] = Prune

    def __call__(
        self,
        state: Compressed,
        *,
        step: Step,
        task: Task,
        progress: Progress,
        work: Path | None = None,
        bench: Bench | None = None,
    ) -> tuple[Compressed, StepRecord]:
        """Take channels out of ``state.module``.

        Raises:
            RecipeError: The step has no goal, or stands after quantization.
            PruningError: A layer cannot be pruned, or the goal cannot be reached.
        """
        from edgekit.compression.prune.step import prune

        if not isinstance(step, Prune):
            raise TypeError(f"expected a Prune step, got {type(step).__name__}")
        return prune(state, step=step, task=task, progress=progress, work=work, bench=bench)


class SparsifyRunner:
    """Carries out a :class:`~edgekit.core.pruning.Sparsify` step."""

    config: type[Step] = Sparsify

    def __call__(
        self,
        state: Compressed,
        *,
        step: Step,
        task: Task,
        progress: Progress,
        work: Path | None = None,
        bench: Bench | None = None,
    ) -> tuple[Compressed, StepRecord]:
        """Set weights of ``state.module`` to zero.

        Raises:
            RecipeError: The step stands after quantization.
        """
        from edgekit.compression.prune.sparsity import sparsify

        if not isinstance(step, Sparsify):
            raise TypeError(f"expected a Sparsify step, got {type(step).__name__}")
        return sparsify(state, step=step, task=task, progress=progress, work=work, bench=bench)


PRUNE = PruneRunner()
SPARSIFY = SparsifyRunner()
