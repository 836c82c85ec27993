"""What one validation or one benchmark leaves in the history: flat numbers, and everything needed to judge a change of them."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal

from edgekit.core.errors import EdgekitError, IntegrityError
from edgekit.core.measurement import Evidence, Measurement
from edgekit.core.model import Record

__all__ = ["RENDERERS", "History", "HistoryEntry", "HistoryNumber", "HistoryResult", "number_of", "numbers_of", "utc"]

RENDERERS: dict[str, Callable[[History], str]] = {}
"""How a notebook shows a history, by MIME type; ``edgekit.report.history`` enters itself. Empty, it shows as its fields."""


class HistoryNumber(Record):
    """One number.

    Args:
        name: As the measurement is called (``"latency"``, ``"size"`` …); ``"score"`` and ``"drop"`` for the task's metric,
            ``"exact_share"`` and ``"layer_steps"`` for layer parity.
        value: The headline; a distribution's median.
        unit: ``"ms"``, ``"bytes"``, ``"share"``, ``"points"`` …
        evidence: What it rests on.
        interval: Its 95 % interval; None where it is exact, or has none. A score's is that of its paired drop.
        sample_count: Samples behind it.
    """

    name: str
    value: float
    unit: str
    evidence: Evidence
    interval: tuple[float, float] | None = None
    sample_count: int = 1


class HistoryResult(Record):
    """One artifact on the entry's device.

    Args:
        label: ``"onnx"``, ``"onnx-float32"``.
        target: ``"onnx"``.
        precision: ``"int8"``.
        artifact_sha256: Digest of the file.
        runtime: Runtime name.
        runtime_version: Its version.
        evidence: What the result rests on.
        scenario: How it was asked: empty for a validation, else the benchmark's scenario.
        numbers: What was found.
        failure: Why there is nothing.
    """

    label: str
    target: str
    precision: str
    artifact_sha256: str
    runtime: str
    runtime_version: str
    evidence: Evidence
    scenario: str = ""
    numbers: tuple[HistoryNumber, ...] = ()
    failure: str = ""

    def find(self, name: str) -> HistoryNumber | None:
        """The number called ``name``."""
        return next((number for number in self.numbers if number.name == name), None)


class HistoryEntry(Record):
    """One validation, or one benchmark, on one device.

    Args:
        number: Its place in the store, from 1 on; 0 while it is in none.
        created: ISO 8601, UTC.
        kind: What was done.
        run: Name of the run's folder.
        task: Name of the task.
        recipe: The recipe's name.
        metric: Name of the task's metric; empty where there is none.
        program_sha256: Digest of the compressed program.
        task_sha256: Digest of the task's file.
        device: Name of the profile.
        device_title: What a person calls it.
        facts: What the device said of itself.
        versions: Versions of the tools.
        verdict: ``SHIP``, ``BLOCK``, ``INCONCLUSIVE``; empty for a benchmark.
        open_gates: Gates that did not pass, ``"fail: latency p90 of onnx"``.
        results: By artifact, and by scenario.
    """

    error: ClassVar[type[EdgekitError]] = IntegrityError

    number: int = 0
    created: str
    kind: Literal["validate", "bench"]
    run: str
    task: str
    recipe: str
    metric: str = ""
    program_sha256: str = ""
    task_sha256: str = ""
    device: str
    device_title: str = ""
    facts: dict[str, str] = {}
    versions: dict[str, str] = {}
    verdict: str = ""
    open_gates: tuple[str, ...] = ()
    results: tuple[HistoryResult, ...] = ()

    def find(self, label: str, scenario: str = "") -> HistoryResult | None:
        """The result of one artifact."""
        return next((one for one in self.results if (one.label, one.scenario) == (label, scenario)), None)


class History(Record):
    """Entries of one store, in the order they were appended.

    Args:
        entries: The entries.
        metrics: Names of numbers that a reader asked for; empty: score, latency and size.

    >>> len(History(entries=()))
    0
    """

    error: ClassVar[type[EdgekitError]] = IntegrityError

    schema_version: Literal[1] = 1
    entries: tuple[HistoryEntry, ...]
    metrics: tuple[str, ...] = ()

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self.entries)

    def without_baselines(self) -> History:
        """The same without float artifacts whose target has a compressed one in the same entry."""
        return self.replace(entries=tuple(entry.replace(results=_compressed(entry.results)) for entry in self.entries))

    def rows(self) -> Iterator[tuple[HistoryEntry, HistoryResult, HistoryNumber]]:
        """Every number with the artifact and the entry it belongs to."""
        for entry in self.entries:
            for result in entry.results:
                for number in result.numbers:
                    yield entry, result, number

    def _repr_html_(self) -> str | None:
        draw = RENDERERS.get("text/html")
        return draw(self) if draw else None


def _compressed(results: Sequence[HistoryResult]) -> tuple[HistoryResult, ...]:
    known = {(one.target, one.scenario) for one in results if one.precision != "float32"}
    return tuple(one for one in results if one.precision != "float32" or (one.target, one.scenario) not in known)


def number_of(measurement: Measurement) -> HistoryNumber | None:
    """A measurement without its samples; None where it is not finite.

    >>> number_of(Measurement(name="size", value=51300, unit="bytes", evidence=Evidence.MEASURED)).value
    51300.0
    """
    spread = measurement.distribution
    interval = measurement.interval or (spread.p50_interval if spread and spread.p50 == measurement.value else None)
    if not math.isfinite(measurement.value):
        return None
    return HistoryNumber(
        name=measurement.name,
        value=measurement.value,
        unit=measurement.unit,
        evidence=measurement.evidence,
        interval=interval if interval and all(map(math.isfinite, interval)) else None,
        sample_count=spread.sample_count if spread else 1,
    )


def numbers_of(measurements: Sequence[Measurement]) -> tuple[HistoryNumber, ...]:
    """The finite ones, each name once: the first."""
    found = {number.name: number for one in reversed(measurements) if (number := number_of(one)) is not None}
    return tuple(found[name] for name in dict.fromkeys(one.name for one in measurements) if name in found)


def utc(written: str) -> dt.datetime | None:
    """A moment that was written in ISO 8601; without a zone it is UTC. None where it is no moment.

    >>> utc("2026-11-22T10:30:00+01:00").isoformat()
    '2026-11-22T09:30:00+00:00'
    """
    try:
        found = dt.datetime.fromisoformat(written)
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)
