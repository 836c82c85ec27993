"""A model's first load in a process: cold, with its file dropped from the system's cache, or warm.

What is dropped are the pages of the model's own file (``posix_fadvise(2)``, ``POSIX_FADV_DONTNEED``), which needs no privilege;
the runtime's libraries stay where they are, as on a device that runs other models too. Whether the pages are gone is looked up
(``mincore(2)``) and said: a file system that lives in memory keeps them.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import time
from collections.abc import Sequence
from pathlib import Path

from edgekit.core.measurement import Distribution, Evidence, Measurement
from edgekit.device_tests.job_models import JobModels
from edgekit.device_tests.jobs import Job, Start
from edgekit.device_tests.memory import peak_bytes

__all__ = ["cached_share", "drop_from_cache", "run_start", "start_measurements"]

_COLD_SHARE = 0.05
"""Read-ahead may bring a page back at once."""


def run_start(plan: Job, folder: Path) -> None:
    """Carry out a start job."""
    models = JobModels(plan, folder)
    sample, path = models.calls(models.only)[0], models.path(models.only)
    version = models.runtime.version()
    if plan.cold:
        drop_from_cache(path)
    share, base_bytes = cached_share(path), peak_bytes()
    start, cpu_start = time.perf_counter(), time.process_time()
    session = models.load(models.only)
    load_s, load_cpu_s = time.perf_counter() - start, time.process_time() - cpu_start
    start = time.perf_counter()
    session.run(sample)
    first_s = time.perf_counter() - start
    peak = peak_bytes()
    session.close()
    Start(
        runtime_version=version,
        is_cold=plan.cold and share is not None and share <= _COLD_SHARE,
        cached_share=share,
        load_ms=load_s * 1e3,
        load_cpu_ms=load_cpu_s * 1e3,
        first_inference_ms=first_s * 1e3,
        base_bytes=base_bytes,
        peak_bytes=peak,
    ).write_json(folder / "result.json")


def drop_from_cache(path: Path) -> None:
    """Ask the system to forget a file's pages, or those of all files below a folder."""
    for file in _files(path):
        with contextlib.suppress(OSError, AttributeError), file.open("rb") as stream:
            with contextlib.suppress(OSError):  # pages that are not on the disk yet cannot be dropped
                os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cached_share(path: Path) -> float | None:
    """Share of a file's pages, or of all files' below a folder, that are in memory; None where the system does not tell."""
    held = total = 0
    for file in _files(path):
        found = _cached_pages(file)
        if found is None:
            return None
        held, total = held + found[0], total + found[1]
    return held / total if total else None


def start_measurements(cold: Sequence[Start], warm: Sequence[Start], *, evidence: Evidence) -> tuple[Measurement, ...]:
    """Load times, first inference and memory of several starts.

    Args:
        cold: Of processes whose model file was dropped from the cache.
        warm: Of processes that found it there.
        evidence: What the times rest on.
    """
    found: list[Measurement] = []
    for name, starts in (("cold_load_time", cold), ("warm_load_time", warm)):
        if not starts:
            continue
        is_cold = name.startswith("cold")
        failed = is_cold and not all(start.is_cold for start in starts)
        state = "dropped from the system's cache" if is_cold else "in the system's cache"
        note = f"{len(starts)} fresh processes, the model's file {state}; runtime libraries included"
        if failed:
            note += "; the file system kept the file in memory, or does not tell: not a cold start"
        found.append(_measurement(name, [start.load_ms for start in starts], "ms", evidence, note))
    both = [*warm, *cold]
    grown = max(start.peak_bytes - start.base_bytes for start in both) / 2**20
    found.append(
        _measurement("first_inference", [one.first_inference_ms for one in both], "ms", evidence, "after the first load")
    )
    note = f"up to {grown:.1f} MiB more than before the model was loaded, the runtime's libraries included"
    found.append(_measurement("peak_memory", [float(one.peak_bytes) for one in both], "bytes", evidence, note))
    return tuple(found)


def _measurement(name: str, values: list[float], unit: str, evidence: Evidence, note: str) -> Measurement:
    spread = Distribution.of(values)
    return Measurement(name=name, value=spread.p50, unit=unit, evidence=evidence, distribution=spread, note=note)


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _cached_pages(file: Path) -> tuple[int, int] | None:
    """Pages in memory, and all pages."""
    size = file.stat().st_size
    if not size:
        return 0, 0
    count = -(-size // mmap.PAGESIZE)
    try:
        mincore = ctypes.CDLL(None, use_errno=True).mincore
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
            states = (ctypes.c_ubyte * count)()
            first = ctypes.c_char.from_buffer(mapped)
            failed = mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(size), states)
            del first  # the map cannot be closed while something points into it
    except (OSError, AttributeError, ValueError):
        return None
    return None if failed else (sum(state & 1 for state in states), count)
