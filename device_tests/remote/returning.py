"""What a job left on the device comes back whole: digest by digest, and into the job's folder only when all is there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from edgekit.core.errors import DeviceError, IntegrityError
from edgekit.core.files import inside, sha256
from edgekit.core.supervision import plain
from edgekit.device_tests.remote.running import JobState, RemoteJob

__all__ = ["JobGoneError", "fetch_returns"]

_MOST_DAMAGED = 3


class JobGoneError(Exception):
    """The job's folder is no longer there, or no longer ours: it has to be done again."""


def fetch_returns(
    job: RemoteJob, state: JobState, folder: Path, *, names: Sequence[str], arriving: Callable[[Path, int], object]
) -> None:
    """Bring files back.

    Args:
        job: The job, done.
        state: Its digests.
        folder: The local job folder.
        names: What must come back.
        arriving: Called with each file's temporary place and its size in bytes, before it travels.

    Raises:
        DeviceError: The device was lost, or damages files.
        IntegrityError: The job did not leave what it should have.
        JobGoneError: Somebody took the device over.
    """
    if lacking := [name for name in names if name not in state.files]:
        raise IntegrityError(
            f"The job on device '{job.patience.name}' ended as if all were well, and did not leave {plain(', '.join(lacking))}."
        )
    waiting = folder / f".returned-{job.key}"
    waiting.mkdir()
    try:
        for number, name in enumerate(names):
            arriving(waiting / str(number), state.files[name][1])
            _fetch(job, name, waiting / str(number), state.files[name])
        for number, name in enumerate(names):
            target = inside(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            (waiting / str(number)).replace(target)
    finally:
        shutil.rmtree(waiting, ignore_errors=True)


def _fetch(job: RemoteJob, name: str, target: Path, expected: tuple[str, int]) -> None:
    """One file, from where the last cut left it."""
    digest, size_bytes = expected
    source = f"jobs/{job.key}/work/{name}"
    most_bytes, is_first = 0, True

    def attempt() -> None:
        nonlocal most_bytes, is_first
        there = target.stat().st_size if target.exists() else 0
        if there > most_bytes:
            most_bytes = there
            job.patience.note_progress()
        if not is_first and job.look().word != "done":
            raise JobGoneError
        is_first = False
        if there < size_bytes or not target.exists():
            job.shell.link.pull(source, target, offset=there)

    for _ in range(_MOST_DAMAGED):
        job.patience.keep_trying(attempt, what=f"fetching {name}")
        if target.stat().st_size == size_bytes and sha256(target) == digest:
            return
        target.unlink()
        most_bytes = 0
    raise DeviceError(
        f"{name} came back from device '{job.patience.name}' damaged {_MOST_DAMAGED} times: its digest there says otherwise.",
        is_final=True,
    )
