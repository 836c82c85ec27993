"""A run and its targets -> artifacts.

What is there already is kept, what was made before is taken from the cache, the rest is converted, side by side where memory
allows. A target that refuses does not keep the others from being made.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edgekit import registry
from edgekit.conversion import convert_apart
from edgekit.core.artifact import Artifact, ExportOptions
from edgekit.core.cache import FolderCache, key_of
from edgekit.core.compressed import CompressedRecord, read_record
from edgekit.core.contract import QuantizationContract
from edgekit.core.errors import ConversionError, EdgekitError, OutputError, UsageError
from edgekit.core.files import sha256, size_bytes, writing_folder
from edgekit.core.plugins import Converter, Progress, silent
from edgekit.core.run import RunFolder, tool_versions

__all__ = ["Artifacts", "export_run"]

_WORKER_BYTES = 900_000_000
"""Memory a conversion holds besides the program: what the frameworks take; a converter's own ``peak_bytes`` stands before it."""
_COPIES = 8
"""So many times a program's file is in memory at worst."""


@dataclasses.dataclass(frozen=True)
class Artifacts(Sequence[Artifact]):
    """The artifacts of one run, in the order they were asked for."""

    run: RunFolder
    items: tuple[Artifact, ...]

    def __getitem__(self, index: Any) -> Any:
        """An artifact by position."""
        return self.items[index]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.items)

    def __iter__(self) -> Iterator[Artifact]:
        """The artifacts in order."""
        return iter(self.items)


@dataclasses.dataclass(frozen=True)
class _Job:
    """One file to make: for a target, into a folder, from the compressed or from the float program."""

    target: str
    folder: Path
    as_float: bool


def export_run(
    run: RunFolder,
    *,
    targets: Sequence[str],
    options: ExportOptions,
    float_baseline: bool,
    force: bool = False,
    cached: bool = True,
    jobs: int | None = None,
    progress: Progress = silent,
) -> Artifacts:
    """Convert a run's program to each target.

    Args:
        run: Holds the compressed program.
        targets: Names in the ``edgekit.converters`` group.
        options: Choices of the export.
        float_baseline: Also convert the float program.
        force: Replace artifacts that are there already.
        cached: Use and fill the user's cache of conversions.
        jobs: At most so many at a time; None: as many as there are processors.
        progress: Called as the work advances.

    Raises:
        MissingExtraError: A target's framework is not installed (nothing was converted).
        OutputError: An artifact is there already.
        ConversionError: Targets that cannot take the program, each with its reason; what the others made is kept.
    """
    converters = {name: registry.converter(name) for name in dict.fromkeys(targets)}
    if not converters:
        raise UsageError(f"No target was asked for; known: {', '.join(registry.names('converters'))}.")
    for converter in converters.values():
        registry.require(converter)
    wanted = _planned(run, converters, float_baseline=float_baseline)
    missing = [job for job in wanted if not _is_made(job, run, options, force=force)]
    cache = FolderCache.of_user("conversions") if cached else None
    failures = _Queue(run, missing, converters, options=options, cache=cache, jobs=jobs, progress=progress).carry_out()
    if failures:
        raise _summary(failures, made=[job.folder.name for job in wanted if job.folder.name not in failures])
    return Artifacts(run, tuple(Artifact.load(job.folder) for job in wanted))


def _planned(run: RunFolder, targets: Iterable[str], *, float_baseline: bool) -> list[_Job]:
    contract = QuantizationContract.read_json(run.compressed / "contract.json")
    if not contract.entries and not read_record(run.compressed).is_restructured:
        return [_Job(name, run.artifacts / f"{name}-float32", False) for name in targets]
    floats = [True] if float_baseline else []
    return [
        _Job(name, run.artifacts / (f"{name}-float32" if as_float else name), as_float)
        for name in targets
        for as_float in (False, *floats)
    ]


def _is_made(job: _Job, run: RunFolder, options: ExportOptions, *, force: bool) -> bool:
    """Whether an earlier export left exactly this artifact, so that an interrupted export goes on where it stopped.

    Raises:
        OutputError: Another artifact lies there.
    """
    if force or not job.folder.exists():
        return False
    made = Artifact.load(job.folder)
    if made.source_sha256 == sha256(run.compressed / "compressed.json") and made.options == options:
        return True
    raise OutputError(f"{job.folder} holds an artifact of another program or with other options. Replace it with --force.")


def _summary(failures: dict[str, ConversionError], *, made: Sequence[str]) -> ConversionError:
    """One error for all targets that refused; the only one as it is."""
    kept = f"\nMade and kept: {', '.join(made)}." if made else ""
    if len(failures) == 1:
        [(_, reason)] = failures.items()
        return type(reason)(f"{reason}{kept}")
    said = "\n".join(f"{name}: {reason}" for name, reason in failures.items())
    return ConversionError(f"{len(failures)} conversions failed.\n{said}{kept}")


class _Queue:
    """Conversions of one run, as many at a time as processors and memory allow."""

    def __init__(
        self,
        run: RunFolder,
        jobs_to_do: Sequence[_Job],
        converters: dict[str, Converter],
        *,
        options: ExportOptions,
        cache: FolderCache | None,
        jobs: int | None,
        progress: Progress,
    ) -> None:
        self._run, self._options, self._cache, self._progress = run, options, cache, progress
        self._waiting, self._total = list(jobs_to_do), len(jobs_to_do)
        self._most = max(1, min(jobs or os.cpu_count() or 1, len(jobs_to_do)))
        program = size_bytes(run.compressed / "program.pt2") if jobs_to_do else 0
        self._needs = {
            name: int(getattr(converter, "peak_bytes", _WORKER_BYTES)) + _COPIES * program
            for name, converter in converters.items()
        }
        self._record = read_record(run.compressed) if jobs_to_do else None
        self._stop = threading.Event()
        self._shown: list[str] = []

    def carry_out(self) -> dict[str, ConversionError]:
        """Do all of them; what refused, by the artifact's name."""
        failures: dict[str, ConversionError] = {}
        running: dict[concurrent.futures.Future[str], _Job] = {}
        with concurrent.futures.ThreadPoolExecutor(self._most) as pool:
            try:
                while self._waiting or running:
                    while self._waiting and self._has_room(running.values()):
                        job = self._waiting.pop(0)
                        running[pool.submit(self._convert, job)] = job
                    self._report(running.values())
                    ended, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED, timeout=1.0)
                    for future in ended:
                        self._settle(running.pop(future), future, failures)
            finally:
                self._stop.set()  # after Ctrl-C or a full disk no worker goes on
        self._progress("export", self._total, self._total)
        return failures

    def _has_room(self, running: Iterable[_Job]) -> bool:
        """Whether one more fits: always, where none is running."""
        import psutil

        now = list(running)
        if not now:
            return True
        need = self._needs[self._waiting[0].target]
        return len(now) < self._most and psutil.virtual_memory().available > 2 * need

    def _report(self, running: Iterable[_Job]) -> None:
        names = [job.folder.name for job in running]
        if names != self._shown and names:
            self._shown = names
            self._progress(f"export {', '.join(names)}", self._total - len(self._waiting) - len(names), self._total)

    def _settle(self, job: _Job, future: concurrent.futures.Future[str], failures: dict[str, ConversionError]) -> None:
        try:
            digest = future.result()
        except ConversionError as reason:
            failures[job.folder.name] = reason
            return
        self._run.record_stage(f"export {job.folder.name}", digest=digest)

    def _convert(self, job: _Job) -> str:
        log = self._run.log if self._total == 1 else self._run.path / f".{job.folder.name}.log"
        with writing_folder(job.folder) as temporary:  # not the worker's: it vanishes even when the worker is killed
            try:
                return self._made(job, temporary, log)
            finally:
                if log != self._run.log and log.exists():  # two workers that write into one log tear each other's lines
                    with contextlib.suppress(OSError), _LOGGING, self._run.log.open("ab") as kept:  # the disk may be full
                        kept.write(log.read_bytes())
                    log.unlink()

    def _made(self, job: _Job, folder: Path, log: Path) -> str:
        key = self._key(job) if self._cache is not None else ""
        if self._cache is not None and self._cache.take(key, folder):
            try:
                made = Artifact.load(folder).replace(source_sha256=sha256(self._run.compressed / "compressed.json"))
                made.save(folder)
            except EdgekitError:
                FolderCache._empty(folder)
            else:
                return made.sha256
        digest = convert_apart(
            self._run.compressed, folder, target=job.target, options=self._options, as_float=job.as_float,
            label=job.folder.name, log=log, threads=max(1, (os.cpu_count() or 1) // self._most), stop=self._stop,
        )  # fmt: skip
        if self._cache is not None:
            self._cache.put(key, folder)
        return digest

    def _key(self, job: _Job) -> str:
        """What an artifact depends on: the program, what is said about it, the choices, and every tool."""
        record: CompressedRecord = self._record or read_record(self._run.compressed)
        kept = record.model_dump(mode="json", exclude={"history", "versions", "sha256", "program_digests"})
        digests = {**record.sha256, **record.program_digests}
        programs = {name: digests.get(name, "") for name in ("program.pt2", "float.pt2", "source.pt2")}
        golden = {name: record.sha256.get(name, "") for name in ("contract.json", "golden.npz")}
        facts = {"record": kept, "steps": [step.kind for step in record.history], **programs, **golden}
        return key_of(
            {
                **facts,
                "options": self._options.model_dump(mode="json"),
                "target": job.target,
                "as_float": job.as_float,
                "versions": tool_versions(),
                "code": _code_digest(),
            }
        )


_LOGGING = threading.Lock()


@functools.cache
def _code_digest() -> str:
    """Tells one state of edgekit's own code from another, by size and time of its files."""
    home = Path(__file__).parent
    files = sorted(path for folder in (home, home / "converters", home / "runtimes") for path in folder.rglob("*.py"))
    return key_of({str(path): [(facts := path.stat()).st_size, facts.st_mtime_ns] for path in files})
