"""Time a run's artifacts on devices; what was found lies in ``RUN/bench/<device>.json``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekit.core.artifact import Artifact
from edgekit.core.compressed import load_golden
from edgekit.core.device_bench import BenchedDevice, RunBench, Scenario
from edgekit.core.errors import DeviceError, UsageError, nearest
from edgekit.core.feeding import RAW
from edgekit.core.history import record_bench
from edgekit.core.plugins import Progress, silent
from edgekit.core.run import RunFolder
from edgekit.device_tests.artifact_bench import BenchPlan, bench_device
from edgekit.device_tests.lab import lost_devices, read_profiles
from edgekit.exports import Artifacts

__all__ = ["bench_run"]


def bench_run(
    source: Artifacts | Path | str,
    *,
    devices: Sequence[str] = ("host",),
    targets: Sequence[str] = (),
    scenarios: Sequence[Scenario] = ("single-stream",),
    seconds: float = 5.0,
    query_size: int = 8,
    starts: int = 3,
    sustained_minutes: float | None = None,
    audit: bool = False,
    profile: bool = False,
    seed: int = 0,
    progress: Progress = silent,
) -> RunBench:
    """Time every artifact of a run on every device, those of one target in turn.

    Args:
        source: Artifacts, or the run folder they lie in.
        devices: Profile names, or paths of profile files and lab files.
        targets: Only these; empty: all that were exported.
        scenarios: MLPerf's scenarios (:mod:`edgekit.device_tests.scenarios`).
        seconds: Time for samples of each artifact in each scenario; it ends sooner where the percentile is known to ±2 %.
        query_size: Samples in a query of the multi-stream scenario.
        starts: Cold and warm starts, so many of each.
        sustained_minutes: Also run each artifact so long without a pause; None: not.
        audit: Also check that times and answers belong together (:mod:`edgekit.device_tests.compliance`).
        profile: Also time the operators, by the runtime's own profiler.
        seed: Chooses samples and their order.
        progress: Called as the work advances.

    Raises:
        UsageError: The run holds no artifacts, none of a target, or none for a device.
        ProfileError: There is no such device.
        DeviceError: A device was lost; what was found on the others is kept.
    """
    from edgekit.report import device_bench  # noqa: F401  lets notebooks draw the result

    run = source.run if isinstance(source, Artifacts) else RunFolder(Path(source))
    run.manifest()
    artifacts = _chosen(run, targets)
    plan = BenchPlan(
        scenarios=tuple(scenarios), seconds=seconds, query_size=query_size, starts=starts, sustained_minutes=sustained_minutes,
        audit=audit, profile=profile, seed=seed,
    )  # fmt: skip
    golden = load_golden(run.compressed)
    inputs = {**golden.inputs, **{f"{RAW}{name}": array for name, array in golden.raw.items()}}
    found: list[BenchedDevice] = []
    lost: list[DeviceError] = []
    folder = run.path / "bench"
    for device in read_profiles(devices):
        try:
            result = bench_device(
                device, artifacts=artifacts, golden=inputs, plan=plan, folder=folder, log=run.log, progress=progress
            )
        except DeviceError as reason:
            lost.append(reason)
            continue
        result.write_json(folder / f"{device.name}.json")
        record_bench(result, run)
        found.append(result)
    if lost:
        names = ", ".join(one.profile.name for one in found)
        raise lost_devices(lost, kept=f"What {names} found is in {folder}." if found else "")
    return RunBench(run=run.path.name, devices=tuple(found))


def _chosen(run: RunFolder, targets: Sequence[str]) -> list[Artifact]:
    artifacts = run.load_artifacts()
    if not artifacts:
        raise UsageError(f"{run.path} holds no artifacts. Make some with: edgekit export {run.path} --target onnx")
    known = sorted({artifact.target for artifact in artifacts})
    for target in targets:
        if target not in known:
            raise UsageError(
                f"{run.path} holds no artifact for target '{target}'; it has {', '.join(known)}.{nearest(target, known)}"
                f" Make one with: edgekit export {run.path} --target {target}"
            )
    return [artifact for artifact in artifacts if not targets or artifact.target in targets]
