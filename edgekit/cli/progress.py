"""Progress bars on stderr: done, rate and time left where the amount is known, else the time it has taken."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

    from edgekit.core.plugins import Progress as Report

__all__ = ["bars", "lines"]


class _Pace(ProgressColumn):
    """``12.4/s, 0:08 left``, or how long it has been going on."""

    def render(self, task: Task) -> Text:
        if task.finished or task.total is None or not task.speed:
            return Text(_clock(task.finished_time if task.finished else task.elapsed), style="dim")
        left = (task.total - task.completed) / task.speed
        return Text(f"{task.speed:.1f}/s, {_clock(left)} left", style="dim")


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
        known: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int | None) -> None:
            if what not in known:
                _finish_unmeasured(progress)
                known[what] = progress.add_task(what, total=total)
            progress.update(known[what], completed=done, total=total)

        yield report
        _finish_unmeasured(progress)


@contextlib.contextmanager
def lines(console: Console) -> Iterator[Report]:
    """Yield a progress function that prints one line when a piece of work begins: for logs and pipes."""
    known: set[str] = set()

    def report(what: str, _done: int, total: int | None) -> None:
        if what not in known:
            known.add(what)
            amount = f" ({total})" if total and total > 1 else ""
            console.print(f"{what}{amount} …", markup=False, highlight=False, soft_wrap=True)

    yield report


def _finish_unmeasured(progress: Progress) -> None:
    """Work whose amount is not known ends when the next begins."""
    for task in progress.tasks:
        if task.total is None:
            progress.update(task.id, total=1, completed=1)


def _clock(seconds: float | None) -> str:
    whole = int(seconds or 0)
    return f"{whole // 60}:{whole % 60:02d}"
