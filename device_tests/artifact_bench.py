"""What artifacts cost on one device, asked in order: start, timing in scenarios, sustained run, audit, operator profile."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pydantic

from edgekit.core.artifact import Artifact
from edgekit.core.device_bench import BenchedArtifact, BenchedDevice, Scenario
from edgekit.core.errors import ConversionError, DataError, IntegrityError, UnsupportedOpError, UsageError
from edgekit.core.files import explain_disk
from edgekit.core.measurement import Evidence
from edgekit.core.model import Record
from edgekit.core.plugins import Progress, Transport, silent
from edgekit.core.profile import DeviceProfile
from edgekit.core.run import now, tool_versions
from edgekit.device_tests.bench_jobs import BenchJobs
from edgekit.device_tests.jobs import Start, SustainedPlan, Timing
from edgekit.device_tests.measurement import Series, compare, summarise
from edgekit.device_tests.scenarios import MULTI_STREAM_SAMPLES, scenario_plan, scenario_result
from edgekit.device_tests.starts import start_measurements
from edgekit.device_tests.throttling import judge
from edgekit.device_tests.workbench import connect

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["BenchPlan", "bench_device"]

_ARTIFACT_FAULTS = (ConversionError, IntegrityError, DataError)
"""Errors that say something about one artifact; the others (lost device, missing extra, wrong profile) concern all."""
_METER = re.compile(r"/sys/[^\s,;()]+")
_WINDOWS = 60
_LONGEST_WINDOW_S = 10.0
_SHORTEST_WINDOW_S = 0.5
_SHORTEST_AUDIT_S = 0.5

Found = TypeVar("Found")


class BenchPlan(Record):
    """What is asked of each artifact.

    Args:
        scenarios: In this order.
        seconds: Time for samples of each artifact in each scenario; it ends sooner where enough is known.
        query_size: Samples in a query of the multi-stream scenario.
        starts: Cold and warm starts, so many of each.
        sustained_minutes: Length of a sustained run; None: none.
        audit: Check that times and answers belong together.
        profile: Time the operators.
        seed: Chooses samples and their order.
    """

    scenarios: tuple[Scenario, ...] = ("single-stream",)
    seconds: float = pydantic.Field(default=5.0, gt=0)
    query_size: int = pydantic.Field(default=MULTI_STREAM_SAMPLES, ge=1)
    starts: int = pydantic.Field(default=3, ge=0)
    sustained_minutes: float | None = pydantic.Field(default=None, gt=0)
    audit: bool = False
    profile: bool = False
    seed: int = 0


def bench_device(
    profile: DeviceProfile,
    *,
    artifacts: Sequence[Artifact],
    golden: Mapping[str, Array],
    plan: BenchPlan,
    folder: Path,
    log: Path,
    progress: Progress = silent,
    transport: Transport | None = None,
) -> BenchedDevice:
    """Time artifacts on a device, those of one target in turn.

    Args:
        profile: The device.
        artifacts: Compressed artifacts, and float baselines beside them.
        golden: Input name -> ``[S, *shape]``: what the models are fed.
        plan: What is asked.
        folder: Where job folders are made, and removed again.
        log: File that third-party output is appended to.
        progress: Called as the work advances.
        transport: How to reach the device; the profile's where None.

    Raises:
        UsageError: No artifact is for this device.
        DeviceError: The device was lost.
        MissingExtraError: A runtime is not installed.
        OutputError: The disk is full, or the folder cannot be written.
    """
    started = time.perf_counter()
    transport = transport or connect(profile)
    try:
        facts = transport.facts()
        profile = profile.on_system(facts.get("system", ""))
        skipped = {one.label: _no_runtime(profile, one) for one in artifacts if one.target not in profile.runtimes}
        chosen = [one for one in artifacts if one.target in profile.runtimes]
        if not chosen:
            raise UsageError(
                f"Nothing can be timed on '{profile.name}': {next(iter(skipped.values()), 'there are no artifacts')}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        jobs = BenchJobs(profile, transport, golden=golden, folder=folder, log=log)
        rows = _DeviceBench(jobs, plan, progress).run(chosen)
    except OSError as reason:
        raise explain_disk(reason, folder) from reason
    finally:
        transport.close()
    return BenchedDevice(
        created=now(),
        profile=profile,
        facts=facts,
        artifacts=tuple(rows[one.label] for one in chosen),
        skipped=skipped,
        environment=tool_versions(),
        seconds=time.perf_counter() - started,
    )


class _DeviceBench:
    """One bench while it runs: what is known of each artifact so far."""

    def __init__(self, jobs: BenchJobs, plan: BenchPlan, progress: Progress) -> None:
        self.jobs = jobs
        self.plan = plan
        self.profile = jobs.profile
        self.rows: dict[str, BenchedArtifact] = {}
        self._progress = progress
        self._total, self._done = 0, itertools.count()

    def run(self, artifacts: Sequence[Artifact]) -> dict[str, BenchedArtifact]:
        """Label -> everything about it."""
        self.rows = {one.label: self._bare(one) for one in artifacts}
        timed = [one for one in artifacts if self._is_timed(one)]
        groups = _grouped(timed)
        single = (self.plan.starts > 0) + (self.plan.sustained_minutes is not None) + self.plan.audit + self.plan.profile
        self._total = len(artifacts) - len(timed) + single * len(timed) + len(self.plan.scenarios) * len(groups)
        for artifact in artifacts:
            if artifact not in timed:
                self._estimate(artifact)
        for artifact in timed:
            if self.plan.starts:
                self._start(artifact)
        for group, name in itertools.product(groups, self.plan.scenarios):
            self._scenario([one for one in group if not self.rows[one.label].failure], name)
        for artifact in timed:
            if not self.rows[artifact.label].failure:
                self._alone(artifact)
        self._progress("timed", self._total, self._total)
        return self.rows

    def _bare(self, artifact: Artifact) -> BenchedArtifact:
        choice = self.profile.runtimes[artifact.target]
        return BenchedArtifact(
            label=artifact.label, target=artifact.target, precision=artifact.precision, sha256=artifact.sha256,
            size_bytes=artifact.size_bytes, runtime=choice.runtime, evidence=choice.evidence,
        )  # fmt: skip

    def _is_timed(self, artifact: Artifact) -> bool:
        return self.rows[artifact.label].evidence not in {Evidence.EMULATED, Evidence.ESTIMATED}

    def _estimate(self, artifact: Artifact) -> None:
        """What a model of the hardware says; nothing of an emulator, whose clocks are those of the machine it runs on."""
        row = self.rows[artifact.label]
        if row.evidence is Evidence.EMULATED:
            why = "not timed: emulated instructions give a device's answers, not its speed"
            self.rows[artifact.label] = row.replace(skipped=(why,))
            return
        self._step(f"estimate {artifact.label}")
        why = "not timed: what is shown is computed by a model of the hardware"
        found = self._try(artifact, lambda: self.jobs.answers(artifact))
        row = self.rows[artifact.label]
        if found is not None:
            row = row.replace(runtime_version=found.runtime_version, measurements=found.more, skipped=(why,))
        self.rows[artifact.label] = row

    def _start(self, artifact: Artifact) -> None:
        self._step(f"start {artifact.label}")
        found: dict[bool, list[Start]] = {True: [], False: []}

        def make() -> bool:
            for number in range(2 * self.plan.starts):
                cold = number % 2 == 0
                found[cold].append(self.jobs.start(artifact, cold=cold))
            return True

        if self._try(artifact, make):
            row = self.rows[artifact.label]
            more = start_measurements(found[True], found[False], evidence=row.evidence)
            version = found[True][0].runtime_version
            self.rows[artifact.label] = row.replace(runtime_version=version, measurements=(*row.measurements, *more))

    def _scenario(self, group: Sequence[Artifact], name: Scenario) -> None:
        """A scenario of the models of one target; where one of them fails, each by itself."""
        if not group:
            return
        self._step(f"{name} {group[0].target}")
        try:
            self._timed_group(group, name)
        except UnsupportedOpError as reason:  # an agent without scenarios, or an operator of one of the models
            self._without_scenario(group, name, reason)
        except _ARTIFACT_FAULTS as reason:
            if len(group) == 1:
                self._fail(group[0], reason)
                return
            for one in group:
                self._scenario([one], name)

    def _timed_group(self, group: Sequence[Artifact], name: Scenario) -> None:
        plan = scenario_plan(name, query_size=self.plan.query_size, seed=self.plan.seed)
        times, series = self.jobs.scenario(group, plan, budget_s=self.plan.seconds * len(group))
        baseline = _baseline(group, series)
        for one in group:
            row, own = self.rows[one.label], series[one.label]
            beside = None if baseline is own else baseline
            found = scenario_result(
                own, beside, label=one.label, times=times, plan=plan, threads=self.profile.threads, evidence=row.evidence
            )
            row = row.replace(scenarios=(*row.scenarios, found), runtime_version=times.runtime_version)
            self.rows[one.label] = self._with_latency(row, own, beside, times) if name == "single-stream" else row

    def _without_scenario(self, group: Sequence[Artifact], name: Scenario, reason: UnsupportedOpError) -> None:
        """An agent that knows nothing of scenarios may still time models in turn."""
        sentence = f"scenario {name}: {reason}"
        if name == "single-stream":
            try:
                timing, series = self.jobs.timing(group, budget_s=self.plan.seconds * len(group))
            except _ARTIFACT_FAULTS as why:
                if len(group) == 1:
                    self._fail(group[0], why)
                for one in group if len(group) > 1 else ():
                    self._without_scenario([one], name, reason)
                return
            baseline = _baseline(group, series)
            for one in group:
                own = series[one.label]
                beside = None if baseline is own else baseline
                self.rows[one.label] = self._with_latency(self.rows[one.label], own, beside, timing)
            sentence += " Timed in turn instead, always the same sample."
        for one in group:
            row = self.rows[one.label]
            self.rows[one.label] = row.replace(skipped=(*row.skipped, sentence))

    def _with_latency(self, row: BenchedArtifact, own: Series, beside: Series | None, timing: Timing) -> BenchedArtifact:
        threads = self.profile.threads
        found = list(summarise(own, threads=threads, evidence=row.evidence))
        if beside is not None:
            found += compare(own, beside, threads=threads, evidence=row.evidence)
        return row.replace(
            measurements=(*found, *row.measurements),
            interference=timing.interference,
            runtime_version=timing.runtime_version or row.runtime_version,
        )

    def _alone(self, artifact: Artifact) -> None:
        """What is asked of each artifact by itself."""
        plan = self.plan
        if plan.sustained_minutes is not None:
            self._step(f"run {artifact.label} for {plan.sustained_minutes:g} min")
            self._sustain(artifact, plan.sustained_minutes)
        if plan.audit:
            self._step(f"audit {artifact.label}")
            seconds = max(_SHORTEST_AUDIT_S, plan.seconds)
            found = self._ask(artifact, "audit", lambda: self.jobs.audit(artifact, budget_s=seconds, seed=plan.seed))
            if found is not None:
                self.rows[artifact.label] = self.rows[artifact.label].replace(audit=found.checks)
        if plan.profile:
            self._step(f"profile {artifact.label}")
            row = self.rows[artifact.label]
            try:
                self.rows[artifact.label] = row.replace(profile=self.jobs.profile_operators(artifact))
            except _ARTIFACT_FAULTS as reason:
                self.rows[artifact.label] = row.replace(profile_failure=str(reason))

    def _sustain(self, artifact: Artifact, minutes: float) -> None:
        meter = _METER.search(self.profile.budgets.energy_meter)
        window_s = min(max(60 * minutes / _WINDOWS, _SHORTEST_WINDOW_S), _LONGEST_WINDOW_S)
        plan = SustainedPlan(minutes=minutes, window_s=window_s, power_meter=meter[0] if meter else "")
        times = self._ask(artifact, "sustained run", lambda: self.jobs.sustained(artifact, plan))
        if times is not None:
            row = self.rows[artifact.label]
            found = judge(times, plan, threads=self.profile.threads, evidence=row.evidence)
            self.rows[artifact.label] = row.replace(sustained=found)

    def _ask(self, artifact: Artifact, what: str, call: Callable[[], Found]) -> Found | None:
        """What the agent found, or None and the reason in the row; the artifact itself has run before."""
        try:
            return call()
        except _ARTIFACT_FAULTS as reason:
            row = self.rows[artifact.label]
            self.rows[artifact.label] = row.replace(skipped=(*row.skipped, f"{what}: {reason}"))
            return None

    def _try(self, artifact: Artifact, call: Callable[[], Found]) -> Found | None:
        """What the agent found; an agent that cannot do the job is no failure of the artifact."""
        try:
            return call()
        except UnsupportedOpError as reason:
            row = self.rows[artifact.label]
            self.rows[artifact.label] = row.replace(skipped=(*row.skipped, str(reason)))
        except _ARTIFACT_FAULTS as reason:
            self._fail(artifact, reason)
        return None

    def _fail(self, artifact: Artifact, reason: Exception) -> None:
        self.rows[artifact.label] = self.rows[artifact.label].replace(failure=f"{type(reason).__name__}: {reason}")

    def _step(self, what: str) -> None:
        self._progress(what, min(next(self._done), self._total), self._total)


def _grouped(artifacts: Sequence[Artifact]) -> list[list[Artifact]]:
    """Artifacts by target, the compressed ones before their baseline."""
    groups: dict[str, list[Artifact]] = {}
    for artifact in sorted(artifacts, key=lambda artifact: artifact.is_baseline):
        groups.setdefault(artifact.target, []).append(artifact)
    return list(groups.values())


def _baseline(group: Sequence[Artifact], series: Mapping[str, Series]) -> Series | None:
    """What the others of a target are compared with: the float program's file."""
    return next((series[one.label] for one in group if one.is_baseline), None)


def _no_runtime(profile: DeviceProfile, artifact: Artifact) -> str:
    return f"profile '{profile.name}' has no runtime for target '{artifact.target}'; it has {', '.join(profile.runtimes)}."
