"""Carries jobs to a device over any link and brings their results back whole, or says that the device was lost.

===================== ================================================================================================
what happens          what follows
===================== ================================================================================================
the link is cut       it is made anew, for a limited time; files go on where they were, a job that runs is not restarted
this process dies     the device kills the job when its lease runs out; the next user finds the lock stale
the device reboots    noticed by its boot's number: the job is started again, at most twice
two users             one waits, and is told for whom
a full disk           said before sending; in the middle of a job it is an error that names the folder
a file is damaged     its digest says so, and it is sent or fetched again
===================== ================================================================================================
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from edgekit.core.device_link import DeviceAgent, Errand, Link
from edgekit.core.errors import DeviceError, WorkerError
from edgekit.core.profile import DeviceProfile
from edgekit.core.progress import Progress, silent
from edgekit.core.supervision import death, last_words
from edgekit.device_tests.remote.facts import device_facts
from edgekit.device_tests.remote.heart import Heart
from edgekit.device_tests.remote.lock import DeviceLock
from edgekit.device_tests.remote.patience import Patience
from edgekit.device_tests.remote.returning import JobGoneError, fetch_returns
from edgekit.device_tests.remote.running import Composition, JobState, RemoteJob, compose
from edgekit.device_tests.remote.shell import DeviceShell
from edgekit.device_tests.remote.store import send_files

__all__ = ["DEFAULT_FOLDER", "RemoteTransport"]

DEFAULT_FOLDER = ".edgekit"
"""In the login's own folder on the device."""
_LEASE_S = 60.0
_PATIENCE_S = 120.0
_LOCK_WAIT_S = 900.0
_KEEP_DAYS = 14
_MOST_STARTS = 3
_LOG_BYTES = 2**18
_FULL_BYTES = 2**20
_SIGNALLED = 128
"""A shell reports a command that was killed by signal N with 128 + N (POSIX 2.8.2)."""


class RemoteTransport:
    """Executes job folders on a device behind a link.

    Args:
        profile: The device's profile.
        link: How to reach it.
        agent: What executes jobs there.
        lease_s: A job nobody asks for is killed after so long, and a lock whose holder is silent is taken over.
        patience_s: How long a device that was reached before may be away.
        lock_wait_s: How long to wait for another user of the device.
        progress: Told what is waited for; may be set later.
    """

    def __init__(
        self,
        profile: DeviceProfile,
        *,
        link: Link,
        agent: DeviceAgent,
        lease_s: float = _LEASE_S,
        patience_s: float = _PATIENCE_S,
        lock_wait_s: float = _LOCK_WAIT_S,
        progress: Progress = silent,
    ) -> None:
        self.profile = profile
        self.link = link
        self.agent = agent
        self.progress = progress
        self.lease_s = lease_s
        self._shell = DeviceShell(link, folder=str(profile.connection.get("folder", DEFAULT_FOLDER)))
        self._patience = Patience(link, name=profile.name, limit_s=patience_s)
        self._lock = DeviceLock(
            self._shell,
            self._patience,
            lease_s=lease_s,
            wait_s=lock_wait_s,
            waiting=lambda words: self.progress(words, 0, None),
        )
        self._facts: dict[str, str] = {}
        self._job: RemoteJob | None = None
        self._is_swept = False

    @property
    def reconnections(self) -> int:
        """How often the link had to be made anew."""
        return self._patience.reconnections

    def facts(self) -> dict[str, str]:
        """See :func:`edgekit.device_tests.remote.facts.device_facts`."""
        self._facts = self._patience.keep_trying(lambda: device_facts(self.link), what="it said what it is")
        return dict(self._facts)

    def run_agent(self, job: Path, *, timeout_s: float, log: Path | None = None) -> None:
        """Execute the job folder on the device and bring its result back.

        Raises:
            DeviceError: The device was lost, is in use, or has no room.
            WorkerError: The agent crashed, or ran out of time.
            EdgekitError: Whatever the agent says.
        """
        errand = self.agent.prepare(job, facts=self._facts or self.facts())
        with tempfile.TemporaryDirectory(prefix="edgekit-errand-") as scratch:
            composition = compose(errand, Path(scratch))
            self._finish(composition, errand, job, timeout_s=timeout_s, log=log or Path(scratch, "log.txt"))
        self.agent.collect(job)

    def close(self) -> None:
        """Leave nothing running on the device, and no lock."""
        self._end()
        self._lock.release()
        self.link.close()

    def _finish(self, composition: Composition, errand: Errand, folder: Path, *, timeout_s: float, log: Path) -> None:
        """Start the job until it was done once; a device that reboots under it each time is not good for it."""
        states = []
        for _ in range(_MOST_STARTS):
            try:
                state = self._start(composition, limit_s=timeout_s)
                if state.word == "done" and state.why != "abandoned":
                    self._judge(state, folder, errand, log=log, limit_s=timeout_s)
                    self._fetch(state, folder, errand)
                    return
                states.append(_IN_WORDS.get(state.why or state.word, state.word))
            except JobGoneError:
                states.append(_IN_WORDS["gone"])
            finally:
                self._end()
        raise DeviceError(
            f"Device '{self.profile.name}' did not finish a job that was started {_MOST_STARTS} times: {'; '.join(states)}."
        )

    def _start(self, composition: Composition, *, limit_s: float) -> JobState:
        self._lock.acquire()
        self._sweep()
        with Heart(self._shell, self._lock, progress=self.progress) as heart:
            send_files(composition.files, self._shell, self._patience, sending=heart.sending)
            self._job = RemoteJob(composition, self._shell, self._patience, self._lock, limit_s=limit_s, lease_s=self.lease_s)
            if not self._job.compose():
                return JobState("lost-lock")
        self._job.start()
        return self._job.wait()

    def _judge(self, state: JobState, folder: Path, errand: Errand, *, log: Path, limit_s: float) -> None:
        """Keep what the job printed, and raise what went wrong."""
        job, name = self._job, self.profile.name
        if job is None:
            return
        text = self._patience.keep_trying(lambda: job.log(_LOG_BYTES), what="reading a job's log")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            start = stream.tell()
            stream.write(f"\n--- on device '{name}': {folder.name} ---\n{text}\n".encode())
        if state.why == "overtime":
            raise WorkerError(f"The job on device '{name}' ran longer than {limit_s:.0f} s and was stopped.")
        if not state.code and set(errand.returns) <= state.files.keys():
            return
        words = last_words(log, start)
        if "No space left on device" in text or (state.free_bytes is not None and state.free_bytes < _FULL_BYTES):
            raise DeviceError(
                f"The disk of device '{name}' was full while a job ran there. Free some room in '{self._shell.folder}' or name"
                f" another folder as connection.folder. Last words: {words}"
            )
        if not state.code:
            return  # what is missing is said where it is fetched
        code = _SIGNALLED - state.code if state.code > _SIGNALLED else state.code
        raise WorkerError(f"The job on device '{name}' {death(code)}. Last words: {words}")

    def _fetch(self, state: JobState, folder: Path, errand: Errand) -> None:
        if self._job is not None:
            with Heart(self._shell, self._lock, progress=self.progress) as heart:
                fetch_returns(self._job, state, folder, names=errand.returns, arriving=heart.arriving)

    def _sweep(self) -> None:
        """Remove files nobody used for long, once."""
        if not self._is_swept:
            self._patience.keep_trying(lambda: self._shell.ask("sweep", _KEEP_DAYS), what="tidying its store")
            self._is_swept = True

    def _end(self) -> None:
        if self._job is not None:
            job, self._job = self._job, None
            job.end()


_IN_WORDS: Mapping[str, str] = {
    "rebooted": "the device rebooted",
    "gone": "the job was no longer there",
    "lost-lock": "another user took the device over after this one was silent for too long",
    "abandoned": "the device could not be reached until the job's lease had run out",
}
