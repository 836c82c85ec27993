"""The history prepared for the page and for notebooks: a panel for each device, a figure and a table for each number."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from edgekit.core.history_changes import SHOWN, Change, series
from edgekit.core.history_entry import History, HistoryEntry
from edgekit.core.measurement import Evidence
from edgekit.report.drawn import HALF_PX, Drawn
from edgekit.report.figure_front import front_figure, points_of_history
from edgekit.report.figure_history import history_figure
from edgekit.report.history import says_something, title_of

__all__ = ["HistoryPanel", "HistoryView", "history_view", "of_report"]

_MOST_ENTRIES = 60
_FRONT_RUNS = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class HistoryPanel:
    """One number on one device over time.

    Args:
        device: The device's title.
        device_name: Its profile's name.
        title: What is shown.
        heading: Above the figure.
        evidence: What the numbers rest on.
        kind: What was done: validate or bench.
        scenario: Of a bench; empty where the artifact was timed by itself.
        lines: A series for each artifact.
        figure: Figure; empty where no series has two entries.
    """

    device: str
    device_name: str
    title: str
    heading: str
    evidence: Evidence
    kind: str
    scenario: str
    lines: tuple[tuple[Change, ...], ...]
    figure: Drawn

    @property
    def changes(self) -> tuple[Change, ...]:
        """The last number of each line, as it changed."""
        return tuple(line[-1] for line in self.lines)

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """Label and target of each line that is drawn."""
        return tuple((line[-1].now.result.label, line[-1].now.result.target) for line in self.lines if len(line) > 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HistoryView:
    """Panels, the entries behind them, and the front over releases.

    Args:
        panels: Those with something to compare first.
        entries: The latest first.
        runs: Names of the latest runs, as the front numbers them.
        front: Figure; empty where there is but one run.
        tasks: Names of the tasks.
    """

    panels: tuple[HistoryPanel, ...]
    entries: tuple[HistoryEntry, ...]
    runs: tuple[str, ...]
    front: Drawn
    tasks: tuple[str, ...]

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """Targets, as the front colours them."""
        found = [result.target for entry in self.entries for result in entry.results]
        return tuple((target, target) for target in dict.fromkeys(found))


def history_view(found: History) -> HistoryView:
    """Prepare a history: its latest entries, float baselines left out."""
    found = found.replace(entries=found.entries[-_MOST_ENTRIES:]).without_baselines()
    runs = list(dict.fromkeys(entry.run for entry in found.entries))
    metric = next((entry.metric for entry in reversed(found.entries) if entry.metric), "score")
    shown = runs[-_FRONT_RUNS:]
    points = points_of_history(found, shown) if len(runs) > 1 else []
    return HistoryView(
        panels=tuple(_panels(found)),
        entries=tuple(reversed(found.entries)),
        runs=tuple(shown),
        front=Drawn.by(lambda width: front_figure(points, metric=metric, width=width)),
        tasks=tuple(dict.fromkeys(entry.task for entry in found.entries)),
    )


def of_report(found: History, *, task: str, devices: Sequence[str]) -> History:
    """Entries of the report's own task and devices."""
    return found.replace(entries=tuple(one for one in found.entries if one.task == task and one.device in devices))


def _panels(found: History) -> list[HistoryPanel]:
    grouped: dict[tuple[str, ...], list[tuple[Change, ...]]] = {}
    first: dict[tuple[str, ...], str] = {}
    for name in found.metrics or SHOWN:
        for key, line in series(found, name).items():
            task, device, _, scenario, kind, _, evidence = key
            if not says_something(name, Evidence(evidence)):
                continue
            if name == "size" and first.setdefault((task, key[2], kind), device) != device:
                continue  # the same file on every device
            grouped.setdefault((task, device, scenario, kind, name, evidence), []).append(line)
    panels = [_panel(lines) for lines in grouped.values()]
    return sorted(panels, key=lambda panel: max(map(len, panel.lines)) < 2)


def _panel(lines: Sequence[tuple[Change, ...]]) -> HistoryPanel:
    last = lines[0][-1].now
    title = title_of(last.number.name, last.entry.metric)
    device = last.entry.device_title or last.entry.device
    about = " ".join(part for part in (last.result.scenario, title) if part)
    return HistoryPanel(
        device=device,
        device_name=last.entry.device,
        title=title,
        heading=f"{about[:1].upper()}{about[1:]} on {device}",
        evidence=last.number.evidence,
        kind=last.entry.kind,
        scenario=last.result.scenario,
        lines=tuple(lines),
        figure=Drawn.by(lambda width: history_figure(lines, title=f"{about} on {device}", width=width), wide=HALF_PX),
    )
