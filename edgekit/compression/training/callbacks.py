"""Looking on while a net is trained, from a notebook or a program of one's own."""

from __future__ import annotations

import dataclasses
from typing import Any

__all__ = ["Callback", "EpochReport", "StepReport"]


@dataclasses.dataclass(frozen=True)
class StepReport:
    """One step.

    Args:
        epoch: From 1.
        step: In the epoch, from 1.
        done: Steps of all epochs.
        total: Steps there will be.
        terms: Terms of the loss, ``"loss"`` among them.
    """

    epoch: int
    step: int
    done: int
    total: int
    terms: dict[str, float]


@dataclasses.dataclass(frozen=True)
class EpochReport:
    """One epoch; a line of the metrics file.

    Args:
        epoch: From 1.
        loss: Mean over the steps.
        terms: Mean of each term of the loss, the weighted total ``"loss"`` among them.
        learning_rate: Of the last step.
        validation: The task's metric on its validation data; None where it has none.
        seconds: Wall time, interruptions left out.
    """

    epoch: int
    loss: float
    terms: dict[str, float]
    learning_rate: float
    validation: float | None
    seconds: float

    def as_row(self) -> dict[str, Any]:
        """As plain data."""
        return dataclasses.asdict(self)


class Callback:
    """Called by the trainer; override what you need.

    >>> class Half(Callback):
    ...     def on_epoch(self, report):
    ...         return report.loss > 0.5  # enough is enough
    """

    def on_step(self, report: StepReport) -> None:
        """After each step. Reading the loss makes a GPU wait: only done where a callback overrides this."""

    def on_epoch(self, report: EpochReport) -> bool | None:
        """After each epoch; return False to stop."""
        del report
        return None
