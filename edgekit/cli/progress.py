"""Progress bars on stderr: done, rate and time left where the amount is known, else the time it has taken.

Work is done one piece after the other: a piece ends when the next begins. Pieces that share one count
(``run onnx`` 1 of 4, ``run tflite`` 2 of 4) share one bar, whose label changes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

    from edgekit.core.plugins import Progress as Report

__all__ = ["bars", "lines"]

_ALIKE = 20
"""From this many on, pieces are alike (samples); fewer are steps of unlike length (workers), which have no rate."""


class _Pace(ProgressColumn):
    """``12.4/s, 0:08 left``; the time it has taken where there is no rate to go by."""

    def render(self, task: Task) -> Text:
        if task.finished or task.total is None or task.total < _ALIKE or not task.speed:
            return Text(_clock(task.finished_time if task.finished else task.elapsed), style="dim")
        return Text(f"{task.speed:.1f}/s, {_clock((task.total - task.completed) / task.speed)} left", style="dim")


class _Count(MofNCompleteColumn):
    """``32/64``; nothing for work that is one piece."""

    def render(self, task: Task) -> Text:
        return Text("") if task.total is None or task.total <= 1 else super().render(task)


@contextlib.contextmanager
def bars(console: Console) -> Iterator[Report]:
    """Yield a progress function that draws one bar for each piece of work."""
    spinner = SpinnerColumn(finished_text="[green]✓[/]")
    width = BarColumn(bar_width=20, finished_style="green")
    columns = (spinner, TextColumn("{task.description}", markup=False), width, _Count(), _Pace())
    with Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False) as progress:
        report = _Bars(progress)
        yield report
        report.finish()


class _Bars:
    """The progress function behind :func:`bars`."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.task: Task | None = None

    def __call__(self, what: str, done: int, total: int | None) -> None:
        if self.task is None or (self.task.description != what and not self._goes_on(done, total)):
            self.finish()
            self.progress.add_task(what, total=total)
            self.task = self.progress.tasks[-1]
        self.progress.update(self.task.id, description=what, completed=done, total=total)

    def _goes_on(self, done: int, total: int | None) -> bool:
        """The next piece belongs to the same count."""
        return self.task is not None and total is not None and self.task.total == total and self.task.completed < done

    def finish(self) -> None:
        """Fill the bar at what was done: fewer samples than asked for are all there are."""
        if self.task is not None:
            amount = self.task.completed if self.task.total is not None else 1
            self.progress.update(self.task.id, completed=amount, total=amount)


@contextlib.contextmanager
def lines(console: Console) -> Iterator[Report]:
    """Yield a progress function that prints one line when a piece of work begins: for logs and pipes."""
    latest = ""

    def report(what: str, done: int, total: int | None) -> None:
        nonlocal latest
        if what != latest:
            latest = what
            console.print(what if done == total else f"{what} …", markup=False, soft_wrap=True)

    yield report


def _clock(seconds: float | None) -> str:
    whole = int(seconds or 0)
    return f"{whole // 60}:{whole % 60:02d}"
