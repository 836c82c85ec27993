"""Jobs of a bench on one device: make the folder, have the agent run it, read what came back."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgekit.core.artifact import Artifact
from edgekit.core.model import Record
from edgekit.core.operator_profile import OperatorProfile
from edgekit.core.plugins import Transport
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.arrays import read_arrays, write_arrays
from edgekit.device_tests.jobs import (
    Answers,
    AuditFindings,
    Job,
    JobKind,
    ScenarioPlan,
    ScenarioTimes,
    Start,
    SustainedPlan,
    SustainedTimes,
    Timing,
    bring,
)
from edgekit.device_tests.measurement import Series, read_series

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["BenchJobs"]

Result = TypeVar("Result", bound=Record)


class BenchJobs:
    """Runs a bench's jobs on one device.

    Args:
        profile: The device's profile.
        transport: How to reach it.
        golden: Input name -> ``[S, *shape]``: what the models are fed.
        folder: Where job folders are made; on the disk that holds the models, they are linked and not copied.
        log: File the agents' output is appended to.
    """

    def __init__(
        self, profile: DeviceProfile, transport: Transport, *, golden: Mapping[str, Array], folder: Path, log: Path
    ) -> None:
        self.profile = profile
        self._transport = transport
        self._golden = golden
        self._folder = folder
        self._log = log

    def answers(self, artifact: Artifact) -> Answers:
        """What the runtime says of a model besides its answers."""
        with self._done("answers", [artifact], what=f"running {artifact.label}") as job:
            return Answers.read_json(job / "result.json")

    def start(self, artifact: Artifact, *, cold: bool) -> Start:
        """One start of a model in a process of its own."""
        what = f"starting {artifact.label} {'cold' if cold else 'warm'}"
        with self._done("start", [artifact], what=what, cold=cold) as job:
            return Start.read_json(job / "result.json")

    def timing(self, artifacts: Sequence[Artifact], *, budget_s: float) -> tuple[Timing, dict[str, Series]]:
        """Models of one target in turn, always the same input."""
        with self._done("timing", artifacts, what=f"timing {_names(artifacts)}", budget_s=budget_s) as job:
            timing = Timing.read_json(job / "result.json")
            return timing, read_series(read_arrays(job / "outputs.npz"), timing)

    def scenario(
        self, artifacts: Sequence[Artifact], plan: ScenarioPlan, *, budget_s: float
    ) -> tuple[ScenarioTimes, dict[str, Series]]:
        """Models of one target in turn, in a scenario."""
        what = f"timing {_names(artifacts)} in the scenario {plan.name}"
        with self._done("scenario", artifacts, what=what, budget_s=budget_s, scenario=plan) as job:
            times = ScenarioTimes.read_json(job / "result.json")
            return times, read_series(read_arrays(job / "outputs.npz"), times)

    def sustained(self, artifact: Artifact, plan: SustainedPlan) -> SustainedTimes:
        """A model for minutes."""
        what = f"running {artifact.label} for {plan.minutes:g} minutes"
        with self._done("sustained", [artifact], what=what, more_s=60 * plan.minutes, sustained=plan) as job:
            return SustainedTimes.read_json(job / "result.json")

    def audit(self, artifact: Artifact, *, budget_s: float, seed: int) -> AuditFindings:
        """Do a model's times and answers belong together?"""
        plan = ScenarioPlan(name="single-stream", seed=seed)
        with self._done("audit", [artifact], what=f"auditing {artifact.label}", budget_s=budget_s, scenario=plan) as job:
            return AuditFindings.read_json(job / "result.json")

    def profile_operators(self, artifact: Artifact) -> OperatorProfile:
        """A model under the runtime's own profiler."""
        with self._done("profile", [artifact], what=f"profiling {artifact.label}") as job:
            return OperatorProfile.read_json(job / "result.json")

    @contextmanager
    def _done(
        self, kind: JobKind, artifacts: Sequence[Artifact], *, what: str, more_s: float = 0.0, **fields: Any
    ) -> Iterator[Path]:
        """The job's folder, once the agent has run it."""
        choice = self.profile.runtimes[artifacts[0].target]
        plan = Job(
            kind=kind,
            what=f"{what} in {choice.runtime}",
            runtime=choice.runtime,
            threads=self.profile.threads,
            options=choice.options,
            artifacts=tuple(one.replace(path=Path(one.label, one.path.name), companions={}, selftest=None) for one in artifacts),
            affinity=self.profile.affinity,
            memory_bytes=self.profile.memory_limit_bytes,
            **fields,
        )
        with tempfile.TemporaryDirectory(prefix=f".job-{os.getpid()}-", dir=self._folder) as name:
            folder = Path(name)
            for artifact in artifacts:
                (folder / artifact.label).mkdir()
                bring(artifact.path, folder / artifact.label)
                if "data" in artifact.companions:  # weights the model reads from beside itself
                    bring(artifact.companions["data"], folder / artifact.label)
            write_arrays(folder / "golden.npz", self._golden)
            plan.write_json(folder / "job.json")
            limit_s = self.profile.timeout_s + more_s + float(fields.get("budget_s", 0.0)) * 2
            self._transport.run_agent(folder, timeout_s=limit_s, log=self._log)
            yield folder


def _names(artifacts: Sequence[Artifact]) -> str:
    return " and ".join(artifact.label for artifact in artifacts)
