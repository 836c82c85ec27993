"""A sweep: the same recipe behind several pruning ratios, each judged on its converted file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from edgekit.core.model import Record
from edgekit.core.stages import Stage

__all__ = ["RENDERERS", "SweepPoint", "SweepReport", "with_front"]

RENDERERS: dict[str, Callable[[SweepReport], str]] = {}
"""How a notebook shows a report, by MIME type; ``edgekit.report`` enters itself. Empty, a report shows as its fields."""


class SweepPoint(Record):
    """One program of a sweep.

    Args:
        label: ``"dense"``, or the words of its recipe: ``"prune40+int8"``.
        ratio: The pruning ratio, in (0, 1); None where nothing was pruned.
        run: Its run folder, below the sweep's; empty for the dense program and for a sweep in memory.
        stage: What the finished program is worth, measured on its converted file; None where there is none.
        failure: Why there is none.
        on_front: No other point is at least as good in accuracy, size and latency, and better in one of them.
    """

    label: str
    ratio: float | None = None
    run: str = ""
    stage: Stage | None = None
    failure: str = ""
    on_front: bool = False


class SweepReport(Record):
    """What a sweep found.

    Args:
        task: Name of the task.
        task_sha256: Digest of its file; empty for a task made in a notebook.
        recipe: What follows the pruning, every field.
        target: The converted file that was measured.
        device: The profile it was measured on.
        finished: Time of the last point, UTC; empty while points are missing.
        points: The dense program, the recipe without pruning, and the ratios in ascending order, as far as they are done.
    """

    schema_version: Literal[1] = 1
    task: str
    task_sha256: str = ""
    recipe: dict[str, Any]
    target: str
    device: str
    finished: str = ""
    points: tuple[SweepPoint, ...] = ()

    @property
    def front(self) -> tuple[SweepPoint, ...]:
        """The points on the front, from the largest file to the smallest."""
        found = [point for point in self.points if point.on_front]
        return tuple(sorted(found, key=lambda point: _merits(point.stage)[1]))

    def _repr_html_(self) -> str | None:
        draw = RENDERERS.get("text/html")
        return draw(self) if draw else None


def with_front(points: Sequence[SweepPoint]) -> tuple[SweepPoint, ...]:
    """The points, those on the front marked: accuracy, size and latency count; latency as speed-up, which was timed in turn.

    >>> fast = Stage(label="a", macs=1, parameter_count=1, change=-0.01)
    >>> good = Stage(label="b", macs=2, parameter_count=2, change=0.0)
    >>> [point.on_front for point in with_front([SweepPoint(label="a", stage=fast), SweepPoint(label="b", stage=good)])]
    [True, True]
    """
    merits = {index: _merits(point.stage) for index, point in enumerate(points) if point.stage is not None}
    return tuple(
        point.replace(on_front=index in merits and not any(_beats(other, merits[index]) for other in merits.values()))
        for index, point in enumerate(points)
    )


def _merits(stage: Stage | None) -> tuple[float, float, float]:
    """What is to be large: accuracy, smallness, speed. Parameters and MACs stand in where no file was measured."""
    if stage is None:
        return (0.0, 0.0, 0.0)
    change = stage.change if stage.change is not None else 0.0
    if stage.timed is None:
        return (change, -float(stage.parameter_count), -float(stage.macs))
    return (change, -float(stage.timed.size_bytes), stage.timed.speedup)


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))
