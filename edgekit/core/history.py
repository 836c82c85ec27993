"""What validations and benchmarks found, kept over time: recorded by each of them, read by ``edgekit history``.

The store is ``history.sqlite`` in the folder that holds the run folders. ``EDGEKIT_HISTORY`` names another file, or says ``off``.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from edgekit.core.device_bench import BenchedArtifact, BenchedDevice
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.core.history_entry import History, HistoryEntry, HistoryNumber, HistoryResult, number_of, numbers_of, utc
from edgekit.core.history_store import HistoryStore
from edgekit.core.measurement import Evidence
from edgekit.core.run import Manifest, RunFolder, now
from edgekit.core.validation import ArtifactResult, DeviceResult, ValidationReport
from edgekit.core.verdict import Outcome

__all__ = ["bench_entries", "history", "history_path", "record_bench", "record_validation", "validation_entries"]

STORE_NAME = "history.sqlite"
_OFF = {"off", "0", "no", "none"}
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def history_path(run: Path) -> Path | None:
    """Where the history of a run folder lies; None where ``EDGEKIT_HISTORY`` says ``off``."""
    named = os.environ.get("EDGEKIT_HISTORY", "").strip()
    if named.lower() in _OFF:
        return None
    return Path(named) if named else run.resolve().parent / STORE_NAME


def record_validation(report: ValidationReport, run: RunFolder, *, store: Path | None = None) -> tuple[int, ...]:
    """Append what a validation found, an entry for each device, and return the entries' numbers.

    A history that cannot be written fails no validation: then the run's log says why, and nothing is returned.

    Args:
        report: What was found.
        run: The run folder.
        store: The history's file; None: the run's.
    """
    return _record(lambda: validation_entries(report, run), run, store)


def record_bench(bench: BenchedDevice, run: RunFolder, *, store: Path | None = None) -> tuple[int, ...]:
    """Append what a benchmark on one device found; as :func:`record_validation`."""
    return _record(lambda: bench_entries(bench, run), run, store)


def _record(make: Callable[[], Sequence[HistoryEntry]], run: RunFolder, store: Path | None) -> tuple[int, ...]:
    path = store or history_path(run.path)
    if path is None:
        return ()
    try:
        return HistoryStore(path).append(make())
    except (EdgekitError, OSError, ValueError) as reason:
        with contextlib.suppress(OSError), run.log.open("a", encoding="utf-8") as log:
            log.write(f"edgekit: warning: not in the history: {reason}\n")
        return ()


def validation_entries(report: ValidationReport, run: RunFolder) -> tuple[HistoryEntry, ...]:
    """What a validation leaves: an entry for each device.

    Raises:
        UsageError: The folder is no run.
    """
    manifest = run.manifest()
    return tuple(_validation_entry(report, device, run, manifest) for device in report.devices)


def _validation_entry(report: ValidationReport, device: DeviceResult, run: RunFolder, manifest: Manifest) -> HistoryEntry:
    metrics = [result.metric.name for result in device.results if result.metric]
    return HistoryEntry(
        created=_moment(report.created),
        kind="validate",
        run=run.path.resolve().name,
        task=report.compressed.name,
        recipe=str(report.compressed.recipe.get("name", "")),
        metric=metrics[0] if metrics else "",
        program_sha256=report.compressed.sha256.get("program.pt2", ""),
        task_sha256=manifest.task_sha256,
        device=device.profile.name,
        device_title=device.profile.title,
        facts=device.facts,
        versions=report.environment,
        verdict=device.verdict.decision.value,
        open_gates=tuple(
            f"{gate.outcome.value}: {gate.name} of {gate.target}"
            for gate in device.verdict.gates
            if gate.outcome is not Outcome.PASS
        ),
        results=tuple(map(_validated, device.results)),
    )


def _validated(result: ArtifactResult) -> HistoryResult:
    artifact = result.artifact
    return HistoryResult(
        label=artifact.label,
        target=artifact.target,
        precision=artifact.precision,
        artifact_sha256=artifact.sha256,
        runtime=result.runtime,
        runtime_version=result.runtime_version,
        evidence=result.evidence,
        numbers=() if result.failure else (*_judged(result), *numbers_of(result.measurements)),
        failure=result.failure,
    )


def _judged(result: ArtifactResult) -> tuple[HistoryNumber, ...]:
    """The metric, its drop, and layer parity."""
    found: list[HistoryNumber] = []
    kind, is_baseline = result.evidence, result.artifact.is_baseline
    if (metric := result.metric) is not None:
        count, drop = metric.sample_count, metric.drop_interval
        low, high = metric.float_value - drop[1] / 100, metric.float_value - drop[0] / 100
        if metric.p_value is not None:  # every sample scores 0 or 1
            low, high = max(low, 0.0), min(high, 1.0)
        found.append(_number("score", metric.value, "share", kind, count=count, interval=None if is_baseline else (low, high)))
        if not is_baseline:
            found.append(_number("drop", metric.drop_points, "points", kind, count=count, interval=drop))
    if result.layers:
        count = sum(layer.value_count for layer in result.layers)
        exact = sum(layer.exact_share * layer.value_count for layer in result.layers) / max(count, 1)
        steps = max(layer.largest_steps for layer in result.layers)
        found += [
            _number("exact_share", exact, "share", kind, count=count),
            _number("layer_steps", steps, "steps", kind, count=count),
        ]
    return tuple(found)


def _number(
    name: str, value: float, unit: str, evidence: Evidence, *, count: int = 1, interval: tuple[float, float] | None = None
) -> HistoryNumber:
    return HistoryNumber(name=name, value=value, unit=unit, evidence=evidence, sample_count=count, interval=interval)


def bench_entries(bench: BenchedDevice, run: RunFolder) -> tuple[HistoryEntry, ...]:
    """What a benchmark on one device leaves: one entry, with a result for each artifact and scenario.

    Raises:
        UsageError: The folder is no run.
    """
    from edgekit.core.compressed import read_record

    manifest = run.manifest()
    entry = HistoryEntry(
        created=_moment(bench.created),
        kind="bench",
        run=run.path.resolve().name,
        task=manifest.name,
        recipe=manifest.recipe,
        program_sha256=read_record(run.compressed).sha256.get("program.pt2", "") if run.compressed.is_dir() else "",
        task_sha256=manifest.task_sha256,
        device=bench.profile.name,
        device_title=bench.profile.title,
        facts=bench.facts,
        versions=bench.environment,
        results=tuple(result for artifact in bench.artifacts for result in _benched(artifact)),
    )
    return (entry,)


def _benched(artifact: BenchedArtifact) -> list[HistoryResult]:
    """Times of the artifact by itself, and those of each scenario."""
    sustained = artifact.sustained.measurements if artifact.sustained else ()
    found = numbers_of((*artifact.measurements, *sustained))
    if artifact.sustained and (drift := artifact.sustained.drift):
        count, kind = len(artifact.sustained.windows), artifact.sustained.evidence
        found += (_number("drift", drift.ratio, "ratio", kind, count=count, interval=drift.interval),)
    common = HistoryResult(
        label=artifact.label,
        target=artifact.target,
        precision=artifact.precision,
        artifact_sha256=artifact.sha256,
        runtime=artifact.runtime,
        runtime_version=artifact.runtime_version,
        evidence=artifact.evidence,
        numbers=() if artifact.failure else (*found, _number("size", artifact.size_bytes, "bytes", artifact.evidence)),
        failure=artifact.failure,
    )
    scenarios = []
    for one in artifact.scenarios:
        taken = [number for taken in (one.latency, one.throughput, one.slowdown) if taken and (number := number_of(taken))]
        scenarios.append(common.replace(scenario=one.scenario, numbers=tuple(taken)))
    return [common, *scenarios]


def _moment(written: str) -> str:
    found = utc(written)
    return found.isoformat(timespec="seconds") if found else now()


def history(
    source: Path | str | None = None,
    *,
    devices: Collection[str] = (),
    targets: Collection[str] = (),
    metrics: Collection[str] = (),
    since: str = "",
    last: int | None = None,
) -> History:
    """What validations and benchmarks found over time; a notebook shows it as tables and figures.

    Args:
        source: A run folder (its own entries only), the folder that holds run folders, or the history's file. None:
            ``$EDGEKIT_HISTORY``, else ``history.sqlite`` here or in ``runs``.
        devices: Names of profiles; empty: all.
        targets: Targets (``"onnx"``) or labels of artifacts (``"onnx-float32"``); empty: all.
        metrics: What is to be shown: ``"score"``, ``"latency"``, ``"size"`` …; see :class:`HistoryNumber`.
        since: A moment (``"2026-11-01"``), or how long ago (``"12h"``, ``"30d"``, ``"2w"``); empty: from the first.
        last: At most so many entries, the latest; None: all.

    >>> import tempfile
    >>> entry = HistoryEntry(created="2026-11-22T09:00:00Z", kind="bench", run="a", task="t", recipe="int8", device="host")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     numbers = HistoryStore(Path(folder, "history.sqlite")).append([entry, entry.replace(run="b")])
    ...     [found.run for found in history(folder, last=1).entries]
    ['b']

    Raises:
        UsageError: There is no history, or ``since`` is no moment.
        IntegrityError: The history is damaged, or the file is none.
    """
    path, run = _place(source)
    start = _start(since) if since else None
    found = []
    for entry in HistoryStore(path).read(run=run, devices=devices, since=start, last=last):
        results = tuple(one for one in entry.results if not targets or {one.target, one.label} & set(targets))
        if results or not targets:
            found.append(entry.replace(results=results))
    return History(entries=tuple(found), metrics=tuple(metrics))


def _place(source: Path | str | None) -> tuple[Path, str]:
    """The file, and the name of the run that was asked for.

    Raises:
        UsageError: There is no such file.
    """
    named = os.environ.get("EDGEKIT_HISTORY", "").strip()
    elsewhere = [Path(named)] if named and named.lower() not in _OFF else []
    run = ""
    if source is None:
        places = elsewhere or [Path(STORE_NAME), Path("runs", STORE_NAME)]
    elif RunFolder(source := Path(source)).manifest_path.is_file():
        places, run = [*elsewhere, source.resolve().parent / STORE_NAME], source.resolve().name
    else:
        places = [source] if source.is_file() else [*elsewhere, source / STORE_NAME][::-1]
    path = next((place for place in places if place.is_file()), places[0])
    if not path.is_file():
        raise UsageError(
            f"There is no history at {path}. Every edgekit validate and edgekit bench of a run folder appends to one, beside the"
            " run folder; name a run, its parent folder, or the file."
        )
    return path, run


def _start(since: str) -> dt.datetime:
    if found := re.fullmatch(r"(\d{1,5})([hdw])", since.strip()):
        return dt.datetime.now(dt.UTC) - dt.timedelta(**{_UNITS[found[2]]: int(found[1])})
    moment = utc(since.strip())
    if moment is None:
        raise UsageError(f"'{since}' is no moment: give one as 2026-11-01 or 2026-11-01T12:00, or how long ago as 12h, 30d, 2w.")
    return moment
