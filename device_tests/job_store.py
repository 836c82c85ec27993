"""Jobs and what became of them, by content: for a validation that goes on where it stopped, and for a lab without a network.

::

    FOLDER/<digest of the job>/
      job.json, models, arrays      the job itself, where somebody else is to run it (:mod:`edgekit.device_tests.jobs`)
      result.json, outputs.npz      what an agent found
      done.json                     written last: digests of the two, who found it and when (:class:`Done`)
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import pydantic

from edgekit.core.errors import EdgekitError, IntegrityError
from edgekit.core.files import sha256, writing_folder
from edgekit.core.model import Record
from edgekit.core.run import now
from edgekit.device_tests.arrays import read_arrays

__all__ = ["RESULTS", "Done", "JobStore", "data_digest", "job_digest"]

RESULTS = ("result.json", "outputs.npz")
"""What an agent leaves in a job's folder."""
_DONE = "done.json"


class Done(Record):
    """That a job was run: by what, and what came of it.

    Args:
        sha256: Digest of each result file.
        finished: When, ISO 8601, UTC.
        machine: What the device says of itself.
    """

    error: ClassVar[type[EdgekitError]] = IntegrityError

    schema_version: Literal[1] = 1
    sha256: dict[str, str]
    finished: str
    machine: dict[str, str] = {}

    @pydantic.field_validator("finished")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        if dt.datetime.fromisoformat(value).tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        return value

    @property
    def age_s(self) -> float:
        """Seconds since then by this machine's clock."""
        return (dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(self.finished)).total_seconds()


class JobStore:
    """A folder of jobs by their content.

    Args:
        folder: Is made when something is put into it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, job: Path) -> Path:
        """Keep a job for somebody else to run; the folder it lies in, whole or not there.

        Raises:
            OutputError: The disk is full, or the folder cannot be written.
        """
        place = self.folder / job_digest(job)
        if not place.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            with writing_folder(place) as temporary:
                shutil.copytree(job, temporary, dirs_exist_ok=True)
        return place

    def finish(self, key: str, results: Path, *, machine: Mapping[str, str]) -> None:
        """Keep what an agent left in the folder ``results``; ``done.json`` is written last."""
        place = self.folder / key
        place.mkdir(parents=True, exist_ok=True)
        for name in RESULTS:
            if (results / name).resolve() != (place / name).resolve():
                (place / name).unlink(missing_ok=True)
                _bring(results / name, place / name)
        digests = {name: sha256(place / name) for name in RESULTS}
        Done(sha256=digests, finished=now(), machine=dict(machine)).write_json(place / _DONE)

    def done(self, key: str) -> Done | None:
        """What is known of a job that was run; None where it was not.

        Raises:
            IntegrityError: Its results are not those that were recorded.
        """
        place = self.folder / key
        if not (place / _DONE).is_file():
            return None
        done = Done.read_json(place / _DONE)
        for name in RESULTS:
            if not (place / name).is_file() or sha256(place / name) != done.sha256.get(name):
                raise IntegrityError(
                    f"{place / name} is not what done.json beside it records: it was changed or cut on its way. Run"
                    f" the job again: remove {place / _DONE} first."
                )
        return done

    def take(self, key: str, job: Path) -> Done | None:
        """Put a finished job's results into the folder ``job``; None, and nothing put there, where it was not run.

        Raises:
            IntegrityError: Its results are not those that were recorded.
        """
        done = self.done(key)
        if done is not None:
            for name in RESULTS:
                _bring(self.folder / key / name, job / name)
        return done

    def waiting(self) -> list[Path]:
        """Folders of the jobs that nobody has run yet."""
        return sorted(one.parent for one in self.folder.glob("*/job.json") if not (one.parent / _DONE).exists())


def job_digest(job: Path) -> str:
    """Digest of everything a job's results depend on: its description, models and data."""
    digest = hashlib.sha256()
    for file in sorted(path for path in job.rglob("*") if path.is_file()):
        name = file.relative_to(job).as_posix()
        if name not in {*RESULTS, _DONE}:
            content = data_digest(file) if file.suffix == ".npz" else sha256(file)
            digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


def data_digest(path: Path) -> str:
    """Digest of the arrays of an ``.npz``, without the container's time stamps."""
    digest = hashlib.sha256()
    for name, array in sorted(read_arrays(path).items()):
        digest.update(f"{name} {array.dtype} {array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _bring(source: Path, target: Path) -> None:
    """The same file under another name: linked where the disk allows it."""
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copy2(source, target)
