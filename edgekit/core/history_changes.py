"""How numbers of the history changed: against the entry before, or between two entries, and whether that is more than noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from edgekit.core.history_entry import History, HistoryEntry, HistoryNumber, HistoryResult

__all__ = ["SHOWN", "Change", "Place", "changes", "compared", "series"]

SHOWN = ("score", "latency", "size")
"""Numbers that are shown where none were asked for."""

_EXACT = {"size", "exact_share", "layer_steps"}
"""Counted, not sampled: any change of them is one."""

_LARGER_IS_BETTER = {"score", "exact_share", "throughput"}
_FACTS = ("processor", "cores", "governor", "system version", "model")
_RUNTIME_PACKAGES = ("edgekit", "onnxruntime", "ai-edge-litert", "coremltools", "numpy")


@dataclasses.dataclass(frozen=True)
class Place:
    """A number where it stands."""

    entry: HistoryEntry
    result: HistoryResult
    number: HistoryNumber

    @property
    def series(self) -> tuple[str, ...]:
        """What it may be compared along: the same task, device, artifact, scenario, kind of entry, number and evidence."""
        entry, result, number = self.entry, self.result, self.number
        return (entry.task, entry.device, result.label, result.scenario, entry.kind, number.name, number.evidence.value)


@dataclasses.dataclass(frozen=True)
class Change:
    """A number, and the one it is compared with.

    Args:
        now: The number.
        before: The one before it in its series, or the other entry's; None where there is none.
    """

    now: Place
    before: Place | None = None

    @property
    def difference(self) -> float | None:
        """Now minus before, in the number's unit."""
        return None if self.before is None else self.now.number.value - self.before.number.value

    @property
    def ratio(self) -> float | None:
        """Now over before; None where there is no before, or it is not positive."""
        if self.before is None or self.before.number.value <= 0:
            return None
        return self.now.number.value / self.before.number.value

    @property
    def is_clear(self) -> bool | None:
        """Whether the two 95 % intervals have nothing in common; None where one of the numbers is a sample without interval.

        Two intervals of equal width that just part are 2.8 standard errors of the difference apart: of changes that are noise
        alone, fewer than one in a hundred are called clear. Noise between sittings, which neither interval holds, comes on top.
        """
        if self.before is None:
            return None
        ends = [_ends(place.number) for place in (self.now, self.before)]
        if ends[0] is None or ends[1] is None:
            return None
        return ends[0][0] > ends[1][1] or ends[1][0] > ends[0][1]

    @property
    def is_better(self) -> bool | None:
        """Whether a clear change is for the better; None where it is not clear."""
        if not self.is_clear or not self.difference:
            return None
        return (self.difference > 0) is (self.now.number.name in _LARGER_IS_BETTER)

    @property
    def is_same_file(self) -> bool:
        """Whether both numbers are of the very same file."""
        return self.before is not None and self.before.result.artifact_sha256 == self.now.result.artifact_sha256

    @property
    def differences(self) -> tuple[str, ...]:
        """What else is not as it was: machine, runtime, tools, program."""
        if self.before is None:
            return ()
        return tuple(_differences(self.before, self.now))


def _ends(number: HistoryNumber) -> tuple[float, float] | None:
    if number.interval is not None:
        return number.interval
    return (number.value, number.value) if number.name in _EXACT else None


def _differences(before: Place, now: Place) -> Iterator[str]:
    for name in _FACTS:
        old, new = (place.entry.facts.get(name, "") for place in (before, now))
        if old != new and old and new:
            yield f"{name}: {old} → {new}"
    runtimes = [f"{place.result.runtime} {place.result.runtime_version}".strip() for place in (before, now)]
    if runtimes[0] != runtimes[1]:
        yield f"{runtimes[0]} → {runtimes[1]}"
    for name in _RUNTIME_PACKAGES:
        old, new = (place.entry.versions.get(name, "") for place in (before, now))
        if old != new and old and new and not any(name in runtime for runtime in runtimes):
            yield f"{name} {old} → {new}"
    if before.entry.recipe != now.entry.recipe:
        yield f"recipe {before.entry.recipe} → {now.entry.recipe}"
    if before.entry.task_sha256 != now.entry.task_sha256:
        yield "the task file"


def changes(history: History, name: str) -> tuple[Change, ...]:
    """Every number called ``name``, or every score of a metric called so, against the one before it in its series; by series."""
    return tuple(change for found in series(history, name).values() for change in found)


def series(history: History, name: str) -> dict[tuple[str, ...], tuple[Change, ...]]:
    """The same, each series by itself, in the order of their first entries."""
    found: dict[tuple[str, ...], list[Change]] = {}
    for place in (Place(*row) for row in history.rows()):
        if place.number.name != ("score" if name == place.entry.metric else name):
            continue
        line = found.setdefault(place.series, [])
        line.append(Change(place, line[-1].now if line else None))
    return {key: tuple(line) for key, line in found.items()}


def compared(first: Iterable[HistoryEntry], second: Sequence[HistoryEntry]) -> tuple[Change, ...]:
    """Numbers that both have, second against first, device by device."""
    before = {_name(place): place for place in _places(first)}
    return tuple(Change(place, before[_name(place)]) for place in _places(second) if _name(place) in before)


def _places(entries: Iterable[HistoryEntry]) -> list[Place]:
    return [Place(*row) for row in History(entries=tuple(entries)).rows()]


def _name(place: Place) -> tuple[str, ...]:
    """As :attr:`Place.series`, for a task under any name."""
    return place.series[1:]
