"""Run the jobs that lie in a folder, on the device the folder was carried to."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgekit.core.errors import EdgekitError, IntegrityError, UsageError
from edgekit.core.model import Record
from edgekit.core.plugins import Progress, silent
from edgekit.device_tests.host import host_facts
from edgekit.device_tests.job_store import JobStore, job_digest
from edgekit.device_tests.jobs import Job
from edgekit.device_tests.profiles import load_profile
from edgekit.device_tests.transports.local import LocalTransport

__all__ = ["FolderJob", "list_jobs", "run_jobs"]


class FolderJob(Record):
    """One job of a folder.

    Args:
        path: Its own folder.
        what: The work in words.
        is_done: It was run, and its results are those that were recorded.
        failure: Why it could not be run, or what is wrong with its results.
    """

    path: str
    what: str
    is_done: bool
    failure: str = ""


def list_jobs(folder: Path) -> list[FolderJob]:
    """All jobs below a folder, and which of them were run.

    Raises:
        UsageError: There are none.
    """
    found = []
    for store, place in _jobs(folder):
        what, is_done, failure = place.name, False, ""
        try:
            what = Job.read_json(place / "job.json").what
            is_done = store.done(place.name) is not None
        except EdgekitError as reason:
            failure = str(reason)
        found.append(FolderJob(path=str(place), what=what, is_done=is_done, failure=failure))
    return found


def run_jobs(folder: Path, *, timeout_s: float = 900.0, log: Path | None = None, progress: Progress = silent) -> list[FolderJob]:
    """Run every job below a folder that was not run yet; each one's results are whole or not there.

    A job that fails does not keep the others from running.

    Args:
        folder: Where ``edgekit jobs export`` left them.
        timeout_s: Limit of each job.
        log: File the agents' output is appended to.
        progress: Called as the work advances.

    Raises:
        UsageError: There are no jobs.
    """
    jobs, machine = _jobs(folder), host_facts()
    found = []
    for at, (store, place) in enumerate(jobs):
        progress(f"job {place.name[:12]}", at, len(jobs))
        what, failure = place.name, ""
        try:
            what = Job.read_json(place / "job.json").what
            if store.done(place.name) is None:
                _run(store, place, timeout_s=timeout_s, log=log, machine=machine)
        except EdgekitError as reason:
            failure = str(reason)
        found.append(FolderJob(path=str(place), what=what, is_done=not failure, failure=failure))
    progress("done", len(jobs), len(jobs))
    return found


def _jobs(folder: Path) -> Sequence[tuple[JobStore, Path]]:
    """Every job below a folder, with the store it lies in: of one device, or of several in a folder each."""
    places = sorted({*folder.glob("job.json"), *folder.glob("*/job.json"), *folder.glob("*/*/job.json")})
    if not places:
        raise UsageError(f"{folder} holds no jobs. Make some with: edgekit jobs export RUN --device NAME -o {folder}")
    return [(JobStore(place.parent.parent), place.parent) for place in places]


def _run(store: JobStore, place: Path, *, timeout_s: float, log: Path | None, machine: dict[str, str]) -> None:
    if job_digest(place) != place.name:
        raise IntegrityError(
            f"{place} is not the job it is named after: a file in it was changed or cut. Bring the folder again."
        )
    with tempfile.TemporaryDirectory(prefix="edgekit-job-") as name:
        work = Path(name, "job")
        shutil.copytree(place, work)
        LocalTransport(load_profile("host")).run_agent(work, timeout_s=timeout_s, log=log)
        store.finish(place.name, work, machine=machine)
