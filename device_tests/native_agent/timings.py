"""Times that edgekit-runner measured, as results of jobs: models in turn, starts, sustained runs; and what disturbed them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgekit.core.device_bench import Interference
from edgekit.core.errors import IntegrityError
from edgekit.core.sustained import Window
from edgekit.device_tests.interference import describe, keep_undisturbed
from edgekit.device_tests.jobs import Start, SustainedTimes, Timing

if TYPE_CHECKING:
    from edgekit.core.artifact import Artifact
    from edgekit.core.tensors import Array

__all__ = ["read_start", "read_sustained", "read_timing", "version_in"]

_COLD_SHARE = 0.05
"""Read-ahead may bring a page back at once."""


def version_in(report: Mapping[str, Any], version: str) -> str:
    """The runtime's version as the library says it, or else ``version``."""
    return str(report["runtime"]["version"] or version)


def read_timing(report: Mapping[str, Any], artifacts: Sequence[Artifact], *, version: str) -> tuple[Timing, dict[str, Array]]:
    """Samples of models timed in turn: result and arrays of a timing job.

    Args:
        report: The program's.
        artifacts: The models, in the order they were given.
        version: The library's, where the report says none.

    Raises:
        IntegrityError: The report lacks a model, or its arrays have different lengths.
    """
    with _explained():
        rounds, loads = report["rounds"], report["rounds"]["loads"]
        quiet, is_flagged = keep_undisturbed(_waiting_shares(rounds["models"], len(loads)))
        arrays: dict[str, Array] = {}
        for artifact, model in zip(artifacts, rounds["models"], strict=True):
            if model["sha256"] != artifact.sha256:
                raise IntegrityError(f"The device timed another file than '{artifact.label}'. Validate again.")
            arrays |= {f"{artifact.label}/{name}": array for name, array in _samples(model, loads, quiet).items()}
        counts = {one.label: int(model["preemptions"]) for one, model in zip(artifacts, rounds["models"], strict=True)}
        interference = _interference(report, quiet, is_flagged=is_flagged, preemption_count=sum(counts.values()))
        return Timing(preemption_counts=counts, runtime_version=version_in(report, version), interference=interference), arrays


def read_start(report: Mapping[str, Any], *, version: str, is_cold: bool) -> Start:
    """Result of a start job.

    Raises:
        IntegrityError: A number is missing.
    """
    with _explained():
        share = _known(report.get("cached_share"))
        return Start(
            runtime_version=version_in(report, version),
            is_cold=is_cold and share is not None and share <= _COLD_SHARE,
            cached_share=share,
            load_ms=report["load_ns"] / 1e6,
            load_cpu_ms=report["load_cpu_ns"] / 1e6,
            first_inference_ms=report["first_inference_ns"] / 1e6,
            base_bytes=report["memory"]["before_load_bytes"],
            peak_bytes=report["memory"]["peak_bytes"],
        )


def read_sustained(report: Mapping[str, Any], *, version: str) -> SustainedTimes:
    """Result of a sustained job.

    Raises:
        IntegrityError: A number is missing.
    """
    with _explained():
        windows = tuple(_window(row) for row in report["sustained"]["windows"])
        governors = sorted({clock["governor"] for clock in report["conditions"]["before"]["clocks"]} - {""})
        return SustainedTimes(
            runtime_version=version_in(report, version),
            windows=windows,
            inference_count=report["sustained"]["inferences"],
            governor=", ".join(governors),
        )


@contextmanager
def _explained() -> Iterator[None]:
    """A report in which something is missing, or is no number."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError) as reason:
        raise IntegrityError(
            f"The device's report is not whole: {type(reason).__name__}: {reason}. Measure again; if that does not help, send an"
            " edgekit-runner of this version."
        ) from reason


def _waiting_shares(models: Sequence[Mapping[str, Any]], round_count: int) -> list[float | None]:
    """Of each round: the largest share of a model's block that it waited for a processor."""
    import numpy as np

    worst: list[float | None] = [None] * round_count
    for model in models:
        ends = np.cumsum(model["lengths"])[:-1]
        walls = [int(part.sum()) for part in np.split(np.array(model["wall_ns"], np.int64), ends)]
        for number, (waited, wall) in enumerate(zip(model["waited_ns"], walls, strict=True)):
            if waited >= 0:
                worst[number] = max(worst[number] or 0.0, waited / max(wall, 1))
    return worst


def _samples(model: Mapping[str, Any], loads: Sequence[int], quiet: Sequence[bool]) -> dict[str, Array]:
    import numpy as np

    lengths = np.array(model["lengths"], np.int64)
    rounds = np.repeat(np.arange(len(loads)), lengths)
    found: dict[str, Array] = {
        "wall_ns": np.array(model["wall_ns"], np.int64),
        "cpu_ns": np.array(model["cpu_ns"], np.int64),
        "rounds": rounds,
        "loads": np.array(loads, np.int64)[rounds],
        "disturbed": ~np.array(quiet, bool)[rounds],
    }
    sizes = {name: array.size for name, array in found.items()}
    if not rounds.size or len(set(sizes.values())) != 1:
        raise ValueError(f"samples of different lengths: {sizes}")
    return found


def _interference(report: Mapping[str, Any], quiet: Sequence[bool], *, is_flagged: bool, preemption_count: int) -> Interference:
    """What else the device did, by its counters before and after, and by the blocks themselves."""
    conditions, rounds = report["conditions"], report["rounds"]
    before, after, wall_s = conditions["before"], conditions["after"], max(conditions["wall_ns"] / 1e9, 1e-9)
    own_s, processors = conditions["cpu_ns"] / 1e9, conditions["processors"]
    busy, steal, pressure = (_grown(before, after, key) for key in ("busy_s", "steal_s", "pressure_s"))
    shares = [share for share in _waiting_shares(rounds["models"], len(quiet)) if share is not None]
    clocks = [clock for clock in rounds["clocks_khz"] if clock > 0]
    found = Interference(
        waiting_share=sum(shares) / len(shares) if shares else None,
        preemption_count=preemption_count,
        other_cpu_share=None if busy is None else min(max(busy - own_s, 0.0) / wall_s / processors, 1.0),
        steal_share=None if steal is None else min(steal / wall_s / processors, 1.0),
        pressure_share=None if pressure is None else min(pressure / wall_s, 1.0),
        clock_change=(max(clocks) - min(clocks)) / max(clocks) if clocks else None,
        round_count=len(quiet),
        discarded_count=list(quiet).count(False),
        is_flagged=is_flagged,
    )
    return found.replace(sentence=describe(found))


def _grown(before: Mapping[str, Any], after: Mapping[str, Any], key: str) -> float | None:
    if before[key] < 0 or after[key] < 0:
        return None
    return float(max(after[key] - before[key], 0.0))


def _window(row: Mapping[str, Any]) -> Window:
    heat = [one["celsius"] for one in row["temperatures"] if 1 < one["celsius"] < 150]
    clocks = [one["mhz"] for one in row["clocks"]]
    waited = _known(row["waited_ns"])
    return Window(
        start_s=row["start_ns"] / 1e9,
        seconds=row["wall_ns"] / 1e9,
        inference_count=row["inferences"],
        p50_ms=row["p50_ns"] / 1e6,
        p90_ms=row["p90_ns"] / 1e6,
        cpu_ms=row["cpu_ns"] / 1e6,
        waiting_share=None if waited is None else waited / row["wall_ns"],
        temperature_c=max(heat, default=None),
        clock_mhz=sum(clocks) / len(clocks) if clocks else None,
    )


def _known(value: float | None) -> float | None:
    """What the program says with -1 where the system does not tell."""
    return None if value is None or value < 0 else value
