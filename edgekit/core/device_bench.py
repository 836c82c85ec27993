"""What a run's artifacts cost on devices: timed in scenarios, started cold and warm, run for minutes, audited."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

from edgekit.core.errors import EdgekitError, IntegrityError
from edgekit.core.measurement import Evidence, Measurement
from edgekit.core.model import Record
from edgekit.core.operator_profile import OperatorProfile
from edgekit.core.profile import DeviceProfile
from edgekit.core.sustained import SustainedRun

__all__ = [
    "RENDERERS",
    "SCENARIOS",
    "AuditCheck",
    "BenchedArtifact",
    "BenchedDevice",
    "Interference",
    "RunBench",
    "Scenario",
    "ScenarioResult",
]

RENDERERS: dict[str, Callable[[RunBench], str]] = {}
"""How a notebook shows one, by MIME type; see :data:`edgekit.core.validation.RENDERERS`."""

Scenario = Literal["single-stream", "multi-stream", "offline"]
SCENARIOS: tuple[Scenario, ...] = ("single-stream", "multi-stream", "offline")
"""After the MLPerf Inference rules, section 3 (Reddi et al. 2020, ISCA, "MLPerf Inference Benchmark")."""


class Interference(Record):
    """What else the device did while a model was timed, by the system's own counters; no latency is among them.

    Args:
        waiting_share: Share of the timed blocks in which the model was ready to run and another process had the processor; None
            where the system does not tell.
        preemption_count: How often the processor was taken away within timed blocks.
        other_cpu_share: CPU time of other processes over that of all processors; None where the system does not tell.
        steal_share: The same of what the hypervisor gave to other machines.
        pressure_share: Share of the time in which some task of the machine waited for a processor (``/proc/pressure/cpu``).
        clock_change: Largest change of the processors' clock between blocks, as a share; None where it cannot be read.
        round_count: Rounds that were made.
        discarded_count: Rounds left out because they were disturbed; by these signs alone, never by how long they took.
        is_flagged: Too many rounds were disturbed to leave them out: wall times are not the device's own.
        sentence: All that in words; empty where nothing is to be said.
    """

    waiting_share: float | None = None
    preemption_count: int = 0
    other_cpu_share: float | None = None
    steal_share: float | None = None
    pressure_share: float | None = None
    clock_change: float | None = None
    round_count: int = 0
    discarded_count: int = 0
    is_flagged: bool = False
    sentence: str = ""


class ScenarioResult(Record):
    """One artifact in one scenario.

    Args:
        scenario: Which.
        query_size: Samples in a query.
        query_count: Queries that were counted.
        sample_count: Samples in them.
        different_samples: Different samples the queries were drawn from.
        percentile: The one the scenario is about: 90 (single stream), 99 (multi stream); 50 for offline.
        latency: Wall time of a query, ms, with its distribution; its value is that percentile.
        throughput: Samples a second, with its interval.
        slowdown: Latency over the float artifact's of the same target, in turn; None where there is none.
        ended_by: ``"precision"``: the percentile's interval was narrow enough; ``"time"``: the time was up first.
        relative_half_width: Half of the percentile's 95 % interval, over the percentile; None where there were too few queries.
        interference: What else the device did.
        note: How samples were fed: batch, threads.
    """

    scenario: Scenario
    query_size: int
    query_count: int
    sample_count: int
    different_samples: int
    percentile: int
    latency: Measurement
    throughput: Measurement
    slowdown: Measurement | None = None
    ended_by: Literal["precision", "time"]
    relative_half_width: float | None = None
    interference: Interference = Interference()
    note: str = ""


class AuditCheck(Record):
    """One question about whether a benchmark can be believed, after MLPerf Inference's compliance tests.

    Args:
        name: ``"accuracy-in-performance-mode"`` (TEST01), ``"no-caching"`` (TEST04), ``"other-seed"`` (TEST05).
        outcome: ``"undecided"``: the interval holds both.
        numbers: What it rests on, by name.
        sentence: The same in words.
    """

    name: str
    outcome: Literal["passed", "failed", "undecided"]
    numbers: dict[str, float] = {}
    sentence: str


class BenchedArtifact(Record):
    """Everything that was timed of one artifact on one device.

    Args:
        label: As in a validation: ``"onnx"``, ``"onnx-float32"``.
        target: The converter that made it.
        precision: ``"int8"``, ``"float32"`` …
        sha256: Digest of the file.
        size_bytes: Its size.
        runtime: Name of the runtime.
        runtime_version: Its version on the device; empty where nothing ran.
        evidence: What the numbers rest on.
        measurements: ``latency``, ``cpu_time``, ``slowdown_ratio``, ``slowdown_ratio_cpu`` (in turn with the target's other
            artifacts), ``cold_load_time``, ``warm_load_time``, ``first_inference``, ``peak_memory``; of an estimate: its own.
        interference: What else the device did while ``latency`` was taken.
        scenarios: In the order they were asked for.
        sustained: None where it was not asked for.
        audit: Empty where it was not asked for.
        profile: Its operators' times, where they were asked for.
        profile_failure: Why there are none.
        skipped: What was asked for and not done, and why, a sentence each.
        failure: Why it could not be run at all (then the rest is empty).
    """

    label: str
    target: str
    precision: str
    sha256: str
    size_bytes: int
    runtime: str
    runtime_version: str = ""
    evidence: Evidence
    measurements: tuple[Measurement, ...] = ()
    interference: Interference | None = None
    scenarios: tuple[ScenarioResult, ...] = ()
    sustained: SustainedRun | None = None
    audit: tuple[AuditCheck, ...] = ()
    profile: OperatorProfile | None = None
    profile_failure: str = ""
    skipped: tuple[str, ...] = ()
    failure: str = ""

    def find(self, name: str) -> Measurement | None:
        """The measurement called ``name``, if it was taken."""
        return next((one for one in self.measurements if one.name == name), None)


class BenchedDevice(Record):
    """One device; written to ``RUN/bench/<device>.json``.

    Args:
        created: ISO 8601, UTC.
        profile: The profile as it was resolved for the device's own system.
        facts: What the device says of itself.
        artifacts: In the order they were given.
        skipped: Label -> why that artifact is not for this device.
        environment: Tool versions of the machine that led the bench.
        seconds: Wall time of all.
    """

    error: ClassVar[type[EdgekitError]] = IntegrityError

    schema_version: Literal[1] = 1
    created: str
    profile: DeviceProfile
    facts: dict[str, str] = {}
    artifacts: tuple[BenchedArtifact, ...]
    skipped: dict[str, str] = {}
    environment: dict[str, str] = {}
    seconds: float = 0.0

    @property
    def is_audited(self) -> bool | None:
        """Whether every audit check passed; None where none was made.

        >>> from edgekit.core.profile import DeviceProfile
        >>> BenchedDevice(created="", profile=DeviceProfile(name="x", title="X", runtimes={}), artifacts=()).is_audited is None
        True
        """
        checks = [check for artifact in self.artifacts for check in artifact.audit]
        return all(check.outcome == "passed" for check in checks) if checks else None


class RunBench(Record):
    """A run's artifacts on several devices.

    Args:
        run: Name of the run.
        devices: In the order they were asked for.
    """

    error: ClassVar[type[EdgekitError]] = IntegrityError

    schema_version: Literal[1] = 1
    run: str
    devices: tuple[BenchedDevice, ...]

    def _repr_html_(self) -> str | None:
        draw = RENDERERS.get("text/html")
        return draw(self) if draw else None
