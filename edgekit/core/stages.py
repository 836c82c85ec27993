"""What a program is worth after each step of a recipe, measured on its converted file in its runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.core.measurement import Evidence, Measurement
from edgekit.core.model import Record

if TYPE_CHECKING:
    from edgekit.core.recipe import Recipe

__all__ = ["Stage", "TimedProgram", "is_worth_measuring"]

_RESTRUCTURING = {"prune", "sparsify", "distill"}


class TimedProgram(Record):
    """How fast a converted program runs.

    Args:
        target: What it was converted to.
        device: Profile it ran on.
        latency: Wall time of one inference, ms.
        size_bytes: Size of the file.
        speedup: Latency of the program it was compared with over its own, timed in turn; above 1: it is faster.
        speedup_interval: 95 % confidence interval of that.
    """

    target: str
    device: str
    latency: Measurement
    size_bytes: int
    speedup: float
    speedup_interval: tuple[float, float]

    @property
    def evidence(self) -> Evidence:
        """What the times rest on."""
        return self.latency.evidence

    @property
    def is_slower(self) -> bool:
        """Whether it is slower than what it was compared with, beyond the noise."""
        return self.speedup_interval[1] < 1.0


class Stage(Record):
    """One row of the stage-gain table.

    Args:
        label: The step's word, or ``"dense"`` for the captured program.
        macs: Multiply-accumulates of one sample.
        parameter_count: Weights and biases.
        metric_name: Name of the task's metric.
        metric: Its value on the evaluation data, computed by the converted file in its runtime.
        change: Metric minus that of the captured program, in the metric's unit; better is positive.
        change_interval: 95 % confidence interval of the change, from paired samples.
        timed: Latency, size and speed-up over the captured program's file.
        helped: Whether the step made anything better: metric, MACs, size or latency, against the stage before.
        remark: One sentence where something needs to be said: it did not help, it was backed off.
    """

    label: str
    macs: int
    parameter_count: int
    metric_name: str = ""
    metric: float | None = None
    change: float | None = None
    change_interval: tuple[float, float] | None = None
    timed: TimedProgram | None = None
    helped: bool = True
    remark: str = ""


def is_worth_measuring(recipe: Recipe) -> bool:
    """Whether stages are measured where nobody says: a step prunes or trains a student, or there are several.

    >>> from edgekit.core.recipe import Recipe
    >>> [is_worth_measuring(Recipe.parse_text(text)) for text in ("int8", "prune50", "prune50+int8")]
    [False, True, True]
    """
    return len(recipe.steps) > 1 or any(step.kind in _RESTRUCTURING for step in recipe.steps)
