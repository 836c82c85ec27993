"""Jobs for one device: make the folder, have the agent run it, keep what came back."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from edgekit import registry
from edgekit.core.artifact import Artifact
from edgekit.core.errors import ConversionError, DataError, IntegrityError, JobsWaitingError
from edgekit.core.measurement import Evidence
from edgekit.core.plugins import Transport
from edgekit.core.profile import DeviceProfile, RuntimeChoice
from edgekit.device_tests.arrays import read_arrays, write_arrays
from edgekit.device_tests.job_store import JobStore, job_digest
from edgekit.device_tests.jobs import Answers, Job, Timing, bring
from edgekit.device_tests.measurement import Series, read_series

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["Answered", "Timed", "Workbench", "connect"]

_ARTIFACT_FAULTS = (ConversionError, IntegrityError, DataError, JobsWaitingError)
"""Errors that say something about one artifact; the others (lost device, missing extra, wrong profile) concern all."""
_LONGEST_KEPT_S = 24 * 3600

_TIMING_BUDGET_S = 3.0
"""For a pair; half of it for each further artifact."""
_REFERENCE_BUDGET_S = 1.0
_FEWEST_ROUNDS = 5
_FEWEST_REFERENCE_ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Answered:
    """What became of one artifact's answers job.

    Args:
        answers: Measurements and layer parity; None where it failed.
        arrays: ``"golden/<output>"`` and ``"evaluation/<output>"``.
        failure: Why there is nothing.
        is_waiting: The job lies ready and nobody has run it yet.
    """

    answers: Answers | None = None
    arrays: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    failure: str = ""
    is_waiting: bool = False

    def outputs(self, part: str) -> dict[str, Array]:
        """Output name -> answers to ``"golden"`` or ``"evaluation"``."""
        prefix = f"{part}/"
        return {key.removeprefix(prefix): array for key, array in self.arrays.items() if key.startswith(prefix)}


@dataclasses.dataclass(frozen=True)
class Timed:
    """What became of one target's timing job: samples by artifact label, or why there are none."""

    series: Mapping[str, Series] = dataclasses.field(default_factory=dict)
    failure: str = ""


class Workbench:
    """Runs jobs on one device.

    Args:
        profile: The device's profile.
        transport: How to reach it.
        output: Folder that keeps the arrays.
        log: File the agents' output is appended to.
        finished: Folder of jobs that a work which was interrupted has finished: those of the last day are not run again. None:
            every job is run.

    Attributes:
        taken_over: How many jobs were taken from there.
        waiting: Jobs that lie ready for a device nobody reaches from here.
    """

    def __init__(
        self, profile: DeviceProfile, transport: Transport, *, output: Path, log: Path, finished: Path | None = None
    ) -> None:
        self.profile = profile
        self.transport = transport
        self.output = output
        self.log = log
        self.taken_over = 0
        self.waiting: list[str] = []
        self._finished = JobStore(finished) if finished is not None else None
        _sweep(output)
        self._shared = Path(tempfile.mkdtemp(prefix=f".shared-{os.getpid()}-", dir=output))

    def close(self) -> None:
        """Remove what the jobs shared."""
        shutil.rmtree(self._shared, ignore_errors=True)

    def share(self, name: str, arrays: Mapping[str, Array]) -> Path:
        """Store arrays that jobs may need, once."""
        path = self._shared / f"{name}.npz"
        write_arrays(path, arrays)
        return path

    def answers(self, artifact: Artifact, *, contract: Path | None) -> Answered:
        """Have one artifact answer the golden and evaluation inputs, and replay its layers.

        Args:
            artifact: The artifact.
            contract: ``contract.json`` for the replay; None for none.

        Raises:
            DeviceError: The device was lost.
            MissingExtraError: The runtime is not installed.
        """
        choice = self._choice(artifact)
        shared = ["golden.npz", "evaluation.npz", *(["recorded.npz"] if contract else [])]
        job = Job(
            kind="answers",
            what=f"running {artifact.label} in {choice.runtime}",
            runtime=choice.runtime,
            threads=self.profile.threads,
            options=choice.options,
            artifacts=(_shipped(artifact),),
            replay=contract is not None,
            affinity=self.profile.affinity,
            memory_bytes=self.profile.memory_limit_bytes,
        )
        try:
            with self._folder(job, [artifact], shared, contract) as folder:
                self._run(folder)
                arrays = self._keep(folder, artifact.label)
                return Answered(answers=Answers.read_json(folder / "result.json"), arrays=arrays)
        except _ARTIFACT_FAULTS as reason:
            return Answered(failure=f"{type(reason).__name__}: {reason}", is_waiting=isinstance(reason, JobsWaitingError))

    def timing(self, artifacts: Sequence[Artifact]) -> Timed:
        """Time artifacts of one target in turn; not where clocks would say nothing about the device.

        Raises:
            DeviceError: The device was lost.
        """
        choice = self._choice(artifacts[0])
        if choice.evidence in {Evidence.EMULATED, Evidence.ESTIMATED}:
            return Timed()
        measured = choice.evidence is Evidence.MEASURED
        job = Job(
            kind="timing",
            what=f"timing {' and '.join(artifact.label for artifact in artifacts)} in {choice.runtime}",
            runtime=choice.runtime,
            threads=self.profile.threads,
            options=choice.options,
            artifacts=tuple(_shipped(artifact) for artifact in artifacts),
            budget_s=(_TIMING_BUDGET_S if measured else _REFERENCE_BUDGET_S) * max(len(artifacts) / 2, 1),
            fewest_rounds=_FEWEST_ROUNDS if measured else _FEWEST_REFERENCE_ROUNDS,
            affinity=self.profile.affinity,
            memory_bytes=self.profile.memory_limit_bytes,
        )
        try:
            with self._folder(job, artifacts, ["golden.npz"], None) as folder:
                self._run(folder)
                arrays = self._keep(folder, f"{artifacts[0].target}-latency")
                series = read_series(arrays, Timing.read_json(folder / "result.json"))
        except _ARTIFACT_FAULTS as reason:
            return Timed(failure=f"{type(reason).__name__}: {reason}")
        return Timed(series)

    def _run(self, job: Path) -> None:
        """Have the job run on the device, unless that was done before the work was interrupted."""
        key = job_digest(job) if self._finished is not None else ""
        if self._finished is not None and self._take_over(self._finished, key, job):
            self.taken_over += 1
            return
        try:
            self.transport.run_agent(job, timeout_s=self.profile.timeout_s, log=self.log)
        except JobsWaitingError as reason:
            self.waiting.append(str(reason))
            raise
        if self._finished is not None:
            self._finished.finish(key, job, machine=self._device())

    def _device(self) -> dict[str, str]:
        """What tells this device from another that the same profile's name may stand for tomorrow."""
        return {"transport": self.profile.transport, **{key: str(value) for key, value in self.profile.connection.items()}}

    def _take_over(self, store: JobStore, key: str, job: Path) -> bool:
        try:
            done = store.done(key)
            if done is None or not 0 <= done.age_s < _LONGEST_KEPT_S or done.machine != self._device():
                return False
            store.take(key, job)
        except (IntegrityError, OSError):  # damaged: it is only a copy of what can be found again
            return False
        return True

    def _choice(self, artifact: Artifact) -> RuntimeChoice:
        return self.profile.runtimes[artifact.target]

    @contextmanager
    def _folder(self, job: Job, artifacts: Sequence[Artifact], shared: Sequence[str], contract: Path | None) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix=f".job-{os.getpid()}-", dir=self.output) as name:
            folder = Path(name)
            for artifact in artifacts:
                (folder / artifact.label).mkdir()
                bring(artifact.path, folder / artifact.label)
                if "data" in artifact.companions:  # weights the model reads from beside itself
                    bring(artifact.companions["data"], folder / artifact.label)
            for file in shared:
                if (self._shared / file).exists():
                    bring(self._shared / file, folder)
            if contract is not None:
                bring(contract, folder)
            job.write_json(folder / "job.json")
            yield folder

    def _keep(self, folder: Path, name: str) -> dict[str, Array]:
        kept = self.output / f"{name}.npz"
        (folder / "outputs.npz").replace(kept)
        return read_arrays(kept)


def connect(profile: DeviceProfile) -> Transport:
    """The profile's transport, ready to be used."""
    make = cast("Callable[[DeviceProfile], Transport]", registry.transport(profile.transport))
    return make(profile)


def _sweep(output: Path) -> None:
    """Remove what a killed validation left behind."""
    import psutil

    for folder in (*output.glob(".job-*-*"), *output.glob(".shared-*-*")):
        owner = folder.name.split("-")[1]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _shipped(artifact: Artifact) -> Artifact:
    """The artifact's record with the path it has inside a job folder; what lies beside it does not travel."""
    return artifact.replace(path=Path(artifact.label, artifact.path.name), companions={}, selftest=None)
