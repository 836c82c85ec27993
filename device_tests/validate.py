"""Every artifact on one device: run it, measure it, compare it, and give a verdict.

Measurements of an :class:`~edgekit.core.validation.ArtifactResult`, by name:

====================== ======= ============================================================================
latency                ms      wall time of one inference after warm-up, with its distribution
cpu_time               ms      CPU time of the same inferences, all threads
slowdown_ratio         ratio   latency over the float artifact's, measured in turn; with its interval
slowdown_ratio_cpu     ratio   the same of CPU times
load_time              ms      loading the model, the runtime's own libraries already in the process
first_inference        ms      the first inference after the first load
peak_memory            bytes   peak resident memory of the process that runs the model
size                   bytes   what ships
====================== ======= ============================================================================
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.core.artifact import Artifact
from edgekit.core.compressed import Golden, load_golden
from edgekit.core.contract import QuantizationContract
from edgekit.core.errors import JobsWaitingError, ProfileError, UsageError, nearest
from edgekit.core.feeding import RAW
from edgekit.core.files import explain_disk
from edgekit.core.measurement import Evidence, Measurement
from edgekit.core.plugins import Progress, Transport, silent
from edgekit.core.profile import DeviceProfile
from edgekit.core.run import RunFolder
from edgekit.core.task import Task
from edgekit.core.validation import ArtifactResult, DeviceResult, MetricResult, Regression, Skipped, Spread
from edgekit.core.verdict import Verdict
from edgekit.device_tests.baseline import Baselines, match_baselines
from edgekit.device_tests.gates import Finding, device_gates, notes
from edgekit.device_tests.jobs import Answers
from edgekit.device_tests.layer_error import layer_errors
from edgekit.device_tests.measurement import compare, summarise
from edgekit.device_tests.parity import output_parity, spread
from edgekit.device_tests.reference import Reference, load_reference, output_scales
from edgekit.device_tests.scoring import Evaluation, gather_evaluation, score
from edgekit.device_tests.workbench import Answered, Timed, Workbench, connect

if TYPE_CHECKING:
    from edgekit.core.tensors import Array, Arrays

__all__ = ["layer_errors", "validate_device"]

_UNTIMED = {Evidence.EMULATED, Evidence.ESTIMATED}
"""Where clocks say nothing about the device."""


def validate_device(
    profile: DeviceProfile,
    *,
    compressed_folder: Path,
    artifacts: Sequence[Artifact],
    task: Task | None,
    output: Path,
    log: Path,
    progress: Progress = silent,
    transport: Transport | None = None,
    baseline: RunFolder | None = None,
    finished: Path | None = None,
) -> DeviceResult:
    """Run artifacts on a device and judge them.

    Args:
        profile: The device.
        compressed_folder: What the artifacts were made from.
        artifacts: Compressed artifacts, and float baselines beside them.
        task: Brings evaluation data and metric; None leaves the metric unanswered.
        output: Folder for the result and the raw arrays; answers of the programs already in it are used again.
        log: File that third-party output is appended to.
        progress: Called as the work advances.
        transport: How to reach the device; the profile's where None.
        baseline: The release before, whose artifacts run beside these.
        finished: Folder of jobs that a validation which was interrupted has finished; they are not run again.

    Raises:
        UsageError: No artifacts, two of one label, none the profile has a runtime for, or a baseline of another model.
        DeviceError: The device was lost.
        JobsWaitingError: The jobs lie ready for a device nobody reaches from here.
        MissingExtraError: A runtime is not installed.
        DataError: The evaluation data or the metric is wrong.
        OutputError: The disk is full, or the output folder cannot be written.
    """
    started = time.perf_counter()
    before = match_baselines(artifacts, baseline) if baseline is not None else Baselines()
    try:
        output.mkdir(parents=True, exist_ok=True)
        transport = transport or connect(profile)
        try:
            facts = transport.facts()
            profile = profile.on_system(facts.get("system", ""))
            artifacts, skipped = _for_device(profile, artifacts)
            with closing(Workbench(profile, transport, output=output, log=log, finished=finished)) as bench:
                validation = _Validation(bench, compressed_folder, task, progress, baselines=before)
                findings, spreads = validation.run(artifacts)
                _check_whole(bench, profile)
        finally:
            transport.close()
    except OSError as reason:
        raise explain_disk(reason, output) from reason
    contract = QuantizationContract.read_json(compressed_folder / "contract.json")
    result = DeviceResult(
        profile=profile,
        facts=facts,
        results=tuple(finding.result for finding in findings),
        spreads=spreads,
        verdict=Verdict.from_gates(device_gates(profile, contract, findings)),
        notes=(*validation.notes(), *notes(profile, findings)),
        seconds=time.perf_counter() - started,
        skipped=skipped,
        available_samples=validation.available_samples,
    )
    result.write_json(output / "result.json")
    return result


def _for_device(profile: DeviceProfile, artifacts: Sequence[Artifact]) -> tuple[list[Artifact], tuple[Skipped, ...]]:
    """The artifacts to run on a device: those it has a runtime for, without float baselines where nothing is timed."""
    if not artifacts:
        raise UsageError("There is nothing to validate: no artifact was given. Export some first.")
    labels = [artifact.label for artifact in artifacts]
    for label in labels:
        if labels.count(label) > 1:
            raise UsageError(f"Two artifacts are called '{label}'; validate them in two runs.")
    chosen = [artifact for artifact in artifacts if artifact.target in profile.runtimes]
    if not chosen:
        target = artifacts[0].target
        raise ProfileError(
            f"Profile '{profile.name}' has no runtime for target '{target}'; it has {', '.join(profile.runtimes)}."
            f"{nearest(target, profile.runtimes)} Add a [runtimes.{target}] table, or export another target."
        )
    skipped = [_skipped(one, f"'{profile.name}' has no runtime for it: it has {', '.join(profile.runtimes)}") for one in artifacts
               if one not in chosen]  # fmt: skip
    compared = [one for one in chosen if one.is_baseline and profile.runtimes[one.target].evidence in _UNTIMED]
    if len(compared) < len(chosen):
        skipped += [_skipped(one, "it is there to be timed beside, and nothing is timed here") for one in compared]
        chosen = [one for one in chosen if one not in compared]
    return chosen, tuple(skipped)


def _skipped(artifact: Artifact, reason: str) -> Skipped:
    return Skipped(label=artifact.label, target=artifact.target, reason=reason)


def _check_whole(bench: Workbench, profile: DeviceProfile) -> None:
    """Refuse to judge a device that has not answered yet."""
    if bench.waiting:
        raise JobsWaitingError(
            f"{len(bench.waiting)} jobs lie in {profile.connection.get('folder')} and wait for device '{profile.name}'."
            " Run them there (edgekit jobs run FOLDER), bring the folder back, and validate again."
        )


class _Validation:
    """One validation while it runs: the data, the reference, and what is found about each artifact."""

    def __init__(
        self,
        bench: Workbench,
        compressed_folder: Path,
        task: Task | None,
        progress: Progress,
        *,
        baselines: Baselines,
    ) -> None:
        self.bench = bench
        self.baselines = baselines
        self.folder = compressed_folder
        self.contract = QuantizationContract.read_json(compressed_folder / "contract.json")
        self.task = task
        self.golden = load_golden(compressed_folder)
        self.evaluation: Evaluation | None = gather_evaluation(task)
        self.available_samples = self.evaluation.sample_count if self.evaluation else None
        limit = bench.profile.evaluation_samples
        if self.evaluation is not None and task is not None and limit is not None:
            self.evaluation = self.evaluation.sample(limit, seed=task.seed)
        self.progress = progress

    def notes(self) -> tuple[str, ...]:
        """What a reader must know of how it was done."""
        found = []
        count, available = self.evaluation.sample_count if self.evaluation else 0, self.available_samples or 0
        if count < available and self.task is not None:
            found.append(f"{count:,} of {available:,} evaluation samples ran here, chosen at random (seed {self.task.seed}).")
        if self.bench.taken_over:
            found.append(f"{self.bench.taken_over} jobs were finished by a validation that was interrupted in the last day.")
        return tuple(found)

    def run(self, artifacts: Sequence[Artifact]) -> tuple[list[Finding], tuple[Spread, ...]]:
        """Everything about all artifacts, and the spread between the executors."""
        by_target = {target: list(group) for target, group in _grouped(artifacts).items()}
        total, done = 1 + len(artifacts) + len(self.baselines.artifacts) + len(by_target), itertools.count()
        self.progress("reference answers in torch", next(done), total)
        reference = self._reference()
        answered: dict[str, Answered] = {}
        for artifact in artifacts:
            self.progress(f"run {artifact.label}", next(done), total)
            answered[artifact.label] = self._answer(artifact, reference)
        for before in self.baselines.artifacts.values():
            self.progress(f"run {before.label}", next(done), total)
            answered[before.label] = self.bench.answers(before, contract=None)
        timed: dict[str, Timed] = {}
        for target, group in by_target.items():
            self.progress(f"measure {target}", next(done), total)
            beside = [self.baselines.artifacts[one.label] for one in group if one.label in self.baselines.artifacts]
            running = [one for one in (*group, *beside) if not answered[one.label].failure or answered[one.label].is_waiting]
            timed[target] = self.bench.timing(running) if running else Timed()
        self.progress("validated", total, total)
        findings = [
            self._finding(artifact, answered[artifact.label], timed[artifact.target], reference) for artifact in artifacts
        ]
        findings = [self._compared(finding, answered, timed) for finding in findings]
        return findings, self._spreads(artifacts, answered, reference)

    def _reference(self) -> Reference:
        golden = self.bench.share("golden", _with_raw(self.golden))
        evaluation = self.bench.share("evaluation", _with_raw(self.evaluation)) if self.evaluation else None
        reference = load_reference(
            self.folder,
            golden=golden,
            evaluation=evaluation,
            output=self.bench.output,
            log=self.bench.log,
            timeout_s=self.bench.profile.timeout_s,
        )
        if reference.recorded:
            self.bench.share("recorded", reference.recorded)
        return reference

    def _answer(self, artifact: Artifact, reference: Reference) -> Answered:
        changed = not artifact.is_baseline
        found = self.bench.answers(artifact, contract=self.folder / "contract.json" if changed and reference.recorded else None)
        bad = _not_finite(found, reference, program="program" if changed else "float")
        return Answered(failure=bad) if bad else found

    def _finding(self, artifact: Artifact, answered: Answered, timed: Timed, reference: Reference) -> Finding:
        choice = self.bench.profile.runtimes[artifact.target]
        bare = ArtifactResult(artifact=artifact, runtime=choice.runtime, evidence=choice.evidence, failure=answered.failure)
        if answered.answers is None:
            return Finding(bare)
        changed = not artifact.is_baseline
        scales = output_scales(self.contract, self.golden.outputs, reference.recorded) if changed else {}
        expected = self.golden.outputs if changed else reference.outputs("float", "golden")
        result = bare.replace(
            runtime_version=answered.answers.runtime_version,
            measurements=self._measurements(artifact, answered.answers, timed, choice.evidence),
            outputs=output_parity(answered.outputs("golden"), expected, scales=scales),
            layers=answered.answers.layers,
            metric=self._metric(answered, reference),
        )
        return Finding(
            result,
            layers_failure=answered.answers.layers_failure,
            layers_absent=answered.answers.layers_absent,
            timing_failure=timed.failure,
        )

    def _compared(self, finding: Finding, answered: Mapping[str, Answered], timed: Mapping[str, Timed]) -> Finding:
        """The finding with what its artifact is beside the baseline's."""
        result = finding.result
        before = self.baselines.artifacts.get(result.artifact.label)
        if before is None or result.failure:
            return finding
        there = answered[before.label]
        found = Regression(
            run=self.baselines.run,
            sha256=before.sha256,
            size_ratio=result.artifact.size_bytes / max(before.size_bytes, 1),
            failure=there.failure,
        )
        if there.answers is not None:
            series = timed[before.target].series
            ours, theirs = series.get(result.artifact.label), series.get(before.label)
            threads, evidence = self.bench.profile.threads, result.evidence
            ratios = compare(ours, theirs, threads=threads, evidence=evidence) if ours and theirs else ()
            renamed = tuple(one.replace(name=one.name.replace("slowdown", "regression")) for one in ratios)
            metric = self._score(answered[result.artifact.label], there.outputs("evaluation")) if self.evaluation else None
            found = found.replace(measurements=renamed, metric=metric)
        return dataclasses.replace(finding, result=result.replace(regression=found))

    def _measurements(self, artifact: Artifact, answers: Answers, timed: Timed, evidence: Evidence) -> tuple[Measurement, ...]:
        threads = self.bench.profile.threads
        found: list[Measurement] = []
        series, baseline = (timed.series.get(label) for label in (artifact.label, f"{artifact.target}-float32"))
        if series is not None:
            found += summarise(series, threads=threads, evidence=evidence)
            if baseline is not None and baseline is not series:
                found += compare(series, baseline, threads=threads, evidence=evidence)
        return (*found, *_start_measurements(answers, evidence), _size(artifact))

    def _metric(self, answered: Answered, reference: Reference) -> MetricResult | None:
        return self._score(answered, reference.outputs("float", "evaluation")) if self.evaluation else None

    def _score(self, answered: Answered, others: Arrays) -> MetricResult | None:
        """The task's metric on an artifact's answers, paired with another model's."""
        if self.task is None or self.evaluation is None:
            return None
        return score(
            self.task.metric,
            answered.outputs("evaluation"),
            float_outputs=others,
            targets=self.evaluation.targets,
            slices=self.evaluation.slices,
            seed=self.task.seed,
        )

    def _spreads(
        self, artifacts: Sequence[Artifact], answered: Mapping[str, Answered], reference: Reference
    ) -> tuple[Spread, ...]:
        """Every pair of executors of the same integers, over the evaluation set (the golden inputs where there is none)."""
        part = "evaluation" if self.evaluation else "golden"
        quantized = [a for a in artifacts if not a.is_baseline and not answered[a.label].failure]
        if not quantized or not self.contract.entries:
            return ()
        executors: list[tuple[str, Arrays]] = [("torch", reference.outputs("program", part))]
        executors += [(artifact.label, answered[artifact.label].outputs(part)) for artifact in quantized]
        predict = self.task.metric.predict if self.task and self.evaluation else None
        return tuple(spread(first, second, predict=predict) for first, second in itertools.combinations(executors, 2))


def _with_raw(data: Golden | Evaluation) -> dict[str, Array]:
    """Inputs, and the raw pictures they were made of beside them."""
    return {**data.inputs, **{f"{RAW}{name}": array for name, array in data.raw.items()}}


def _grouped(artifacts: Sequence[Artifact]) -> dict[str, list[Artifact]]:
    """Artifacts by target, the compressed one before its baseline."""
    groups: dict[str, list[Artifact]] = {}
    for artifact in sorted(artifacts, key=lambda artifact: artifact.is_baseline):
        groups.setdefault(artifact.target, []).append(artifact)
    return groups


def _not_finite(answered: Answered, reference: Reference, *, program: str) -> str:
    """Why answers cannot be compared: values that are NaN or infinite where the program's are not; else empty."""
    import numpy as np

    for part in ("golden", "evaluation"):
        expected = reference.outputs(program, part)
        for name, values in answered.outputs(part).items():
            bad = ~np.isfinite(values) & np.isfinite(expected[name])
            if bad.any():
                return f"output '{name}' holds {int(bad.sum())} values that are NaN or infinite where the program's own are not."
    return ""


def _start_measurements(answers: Answers, evidence: Evidence) -> tuple[Measurement, ...]:
    """Load time, first inference and memory, from the process that answered; nothing where its clocks are not the device's."""
    if evidence in _UNTIMED:
        return answers.more
    load = f"CPU time {answers.load_cpu_ms:.1f} ms; the first load in the process took {answers.first_load_ms:.1f} ms"
    grown = (answers.peak_bytes - answers.base_bytes) / 2**20
    memory = f"{grown:.1f} MiB more than before the model was loaded: model and buffers, and libraries the runtime loads with it"
    return (
        Measurement(name="load_time", value=answers.load_ms, unit="ms", evidence=evidence, note=load),
        Measurement(name="first_inference", value=answers.first_inference_ms, unit="ms", evidence=evidence),
        Measurement(name="peak_memory", value=answers.peak_bytes, unit="bytes", evidence=evidence, note=memory),
        *answers.more,
    )


def _size(artifact: Artifact) -> Measurement:
    return Measurement(name="size", value=artifact.size_bytes, unit="bytes", evidence=Evidence.MEASURED)
