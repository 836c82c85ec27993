"""The road on one screen: compress -> export -> validate -> report.

Each stage takes what the one before returned, in memory or as a run folder on disk, so a notebook and the command
line walk the same road. No framework's name appears here; the registry finds the parts.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit import registry
from edgekit.core.artifact import ExportOptions
from edgekit.core.calibration import CalibrationReport
from edgekit.core.compressed import Compressed, read_record
from edgekit.core.contract import QuantizationContract
from edgekit.core.errors import UsageError
from edgekit.core.exactness import ExactnessReport
from edgekit.core.file_kinds import kind_of
from edgekit.core.files import sha256
from edgekit.core.history import record_validation
from edgekit.core.plugins import Progress, silent
from edgekit.core.recipe import Recipe
from edgekit.core.run import Manifest, RunFolder, now, tool_versions
from edgekit.core.sensitivity import SensitivityReport
from edgekit.core.source import SourceOptions
from edgekit.core.stages import Stage, is_worth_measuring
from edgekit.core.task import Task, is_task_file, load_task
from edgekit.core.validation import ValidationReport
from edgekit.exports import Artifacts, export_run
from edgekit.intake import task_from_file
from edgekit.runs import is_made_from, run_of_file, save_run, temporary_run

if TYPE_CHECKING:
    from edgekit.device_tests.bench import DeviceBench
    from edgekit.device_tests.stages import StageMeter

__all__ = [
    "Artifacts",
    "check_calibration",
    "check_exactness",
    "compress",
    "export",
    "read_recipe",
    "sensitivity",
    "validate",
]


def read_recipe(recipe: str | Path | Recipe) -> Recipe:
    """A recipe from its written form, a ``.toml`` file, or as it is; plug-in steps are known."""
    if isinstance(recipe, Recipe):
        return recipe
    return Recipe.read(recipe, step_types=[runner.config for runner in registry.step_runners().values()])


def compress(
    task: Task | Path | str,
    *,
    recipe: str | Path | Recipe = "int8",
    reading: SourceOptions | None = None,
    output: Path | str | None = None,
    force: bool = False,
    measure: bool | None = None,
    target: str | None = None,
    device: str = "host",
    progress: Progress = silent,
) -> Compressed:
    """Carry out a recipe on a task's model.

    Args:
        task: Model and data; a task file, or a model file, whose samples calibrate.
        recipe: Written form (``"int8"``), ``.toml`` file, or :class:`Recipe`.
        reading: What a model file does not say itself.
        output: Run folder to make; None keeps the result in memory. While it works, ``OUTPUT.partial`` holds what a run that
            was killed goes on from.
        force: Replace ``output`` if it is a run folder already.
        measure: Convert the program after each step, run it on the evaluation data and time it, so that each step's gain is
            known (:class:`~edgekit.core.stages.Stage`); None: where a step prunes or trains, or there are several.
        target: What is converted to for that; None: the first of onnx and tflite that is installed.
        device: Profile name or file of the device that it is timed on.
        progress: Called as the work advances.

    Raises:
        OutputError: ``output`` exists, or cannot be written.
        EdgekitError: What the model, the data or a step does not allow.
    """
    from edgekit import report  # noqa: F401  lets notebooks draw the result
    from edgekit.device_tests.bench import DeviceBench
    from edgekit.device_tests.stages import StageMeter

    plan = read_recipe(recipe)
    output = None if output is None else Path(output)
    if output is not None:
        RunFolder(output).check_free(force=force)
    if not isinstance(task, Task):
        task = (
            load_task(task)
            if is_task_file(task) or not Path(task).exists()
            else task_from_file(task, options=reading, progress=progress)
        )
    work = None if output is None else output.with_name(f"{output.name}.partial")
    with closing(DeviceBench(work / "bench" if work else None)) as bench:
        meter = None
        if is_worth_measuring(plan) if measure is None else measure:
            kept = work / "stages" if work else None
            meter = StageMeter(bench, task, target=target, device=device, folder=kept, progress=progress)
        state = _carry_out(plan, task, bench=bench, meter=meter, work=work, progress=progress)
    if output is None or work is None:
        return state
    saved = save_run(state, output, source=task.source, work=work, reading=task.reading)
    shutil.rmtree(work, ignore_errors=True)
    return saved


def _carry_out(
    plan: Recipe, task: Task, *, bench: DeviceBench, meter: StageMeter | None, work: Path | None, progress: Progress
) -> Compressed:
    """Capture, then one step after another; each result is put on the meter, where there is one."""
    from edgekit.compression.capture import capture

    runners = registry.step_runners()
    progress("capture", 0, None)
    state = capture(task, recipe=plan)
    if meter is not None:
        meter.add(state, label="dense")
    for at, step in enumerate(plan.steps):
        place = work / f"{at}-{step.kind}" if work else None
        state, done = runners[step.kind](state, step=step, task=task, progress=progress, work=place, bench=bench)
        state = dataclasses.replace(state, record=state.record.replace(history=(*state.record.history, done)))
        if meter is not None:
            meter.add(state, label=step.word())
    return state if meter is None else _with_stages(state, meter.finish())


def _with_stages(state: Compressed, stages: Sequence[Stage]) -> Compressed:
    """The state, whose records hold what the program was worth after each of them."""
    history = tuple(done.replace(stage=stage) for done, stage in zip(state.record.history, stages, strict=True))
    return dataclasses.replace(state, record=state.record.replace(history=history))


def check_calibration(
    task: Task,
    *,
    recipe: str | Path | Recipe = "int8",
    estimator: str | None = None,
    sample_count: int | None = None,
    progress: Progress = silent,
) -> CalibrationReport:
    """Examine a task's calibration data: is it good enough, and how many samples are needed?

    Args:
        task: Model, calibration data, and evaluation data where there is some.
        recipe: Whose quantize step is examined.
        estimator: Another way to estimate ranges than the recipe's.
        sample_count: Another limit of samples than the recipe's.
        progress: Called as the work advances.

    Raises:
        RecipeError: The recipe needs no calibration.
        DataError: No calibration data, or bad data.
    """
    from edgekit.compression.doctor.check import examine_calibration
    from edgekit.report import calibration  # lets notebooks draw the result

    changes = {"estimator": estimator, "sample_count": sample_count}
    changes = {name: value for name, value in changes.items() if value is not None}
    plan = read_recipe(recipe)
    plan = plan.replace(steps=tuple(step.replace(**changes) if step.kind == "quantize" else step for step in plan.steps))
    report: calibration.CalibrationReport = examine_calibration(task, recipe=plan, progress=progress)
    return report


def check_exactness(source: Compressed | Path | str) -> ExactnessReport:
    """Prove from a compressed program alone that every executor computes the same bits, or name the kernels that prevent it.

    Args:
        source: A compressed program, or the run folder it lies in.

    Raises:
        UsageError: The folder is not a run.
        IntegrityError: The program is damaged.
    """
    from edgekit.compression.quantize.exact.check import check_exactness as check

    if not isinstance(source, Compressed):
        run = RunFolder(Path(source))
        run.manifest()
        source = Compressed.load(run.compressed)
    return check(source.program)


def sensitivity(
    task: Task,
    *,
    recipe: str | Path | Recipe = "int8",
    sample_count: int = 32,
    checked: int = 5,
    progress: Progress = silent,
) -> SensitivityReport:
    """Which layers hurt when they become integers?

    Args:
        task: Model and calibration data.
        recipe: Its quantize step says which layers become integers, and how.
        sample_count: At most this many calibration samples.
        checked: So many of the worst layers are also rounded alone, and the outputs compared.
        progress: Called as the work advances.

    Raises:
        RecipeError: The recipe has no quantize step.
        DataError: No calibration data, or bad data.
    """
    from edgekit.compression.search.sensitivity import examine_sensitivity
    from edgekit.report import sensitivity as drawn  # lets notebooks draw the result

    plan = read_recipe(recipe)
    found: drawn.SensitivityReport = examine_sensitivity(
        task, recipe=plan, sample_count=sample_count, checked=checked, progress=progress
    )
    return found


def export(
    source: Compressed | Task | Path | str,
    *,
    targets: Sequence[str],
    options: ExportOptions | None = None,
    float_baseline: bool = True,
    output: Path | str | None = None,
    force: bool = False,
    reading: SourceOptions | None = None,
    cached: bool = True,
    jobs: int | None = None,
    progress: Progress = silent,
) -> Artifacts:
    """Convert a compressed program, a task's model or a model file to each target, a worker process for each file made.

    Args:
        source: A compressed program, the run folder it lies in, a model file (``.pt2``, ``.onnx``, ``.keras``, a SavedModel,
            TorchScript, a checkpoint), or a task or its file; the model of the latter two stays float.
        targets: Names in the ``edgekit.converters`` group.
        options: Choices of the export.
        float_baseline: Also convert the float program, as what the result is compared with.
        output: Run folder for what is not in one; a temporary one where None.
        force: Replace artifacts, or the run of another model, that are there already.
        reading: What a model file does not say itself.
        cached: Use what the same conversion made before, from the user's cache.
        jobs: At most so many conversions at a time; None: as many as processors and memory allow.
        progress: Called as the work advances.

    Raises:
        MissingExtraError: A target's framework is not installed (nothing was converted).
        OutputError: An artifact is there already.
        ConversionError: Targets that cannot take the program, each with its reason; what the others made is kept.
        IntegrityError: A model file is damaged, hostile, or not what its name says.
    """
    return export_run(
        _run_folder(source, Path(output) if output else None, reading=reading, force=force, progress=progress),
        targets=targets,
        options=options or ExportOptions(),
        float_baseline=float_baseline,
        force=force,
        cached=cached,
        jobs=jobs,
        progress=progress,
    )


def validate(
    source: Artifacts | Path | str,
    task: Task | None = None,
    *,
    devices: Sequence[str] = ("host",),
    baseline: Path | str | None = None,
    split: bool = False,
    jobs: Path | str | None = None,
    samples: int | None = None,
    progress: Progress = silent,
) -> ValidationReport:
    """Run every artifact on every device, judge it, and write ``report.json`` and ``report.html`` into the run.

    A validation that was interrupted, or that lost a device, goes on where it stopped when it is started again within a day.

    Args:
        source: Artifacts, or the run folder they lie in.
        task: Brings the evaluation data; read again from the file the run names where None.
        devices: Profile names, or paths of profile files and lab files.
        baseline: Run folder of the release before: its files run beside these, on the same samples and in turn, and must not be
            better, faster or smaller by more than the profile's tolerances.
        split: Also split every layer's error into its causes; see :mod:`edgekit.core.error_split`.
        jobs: Folder that the devices' jobs are left in, and their results taken from, instead of reaching the devices.
        samples: At most so many evaluation samples on each device; None: as its profile says.
        progress: Called as the work advances.

    Raises:
        UsageError: The run holds no artifacts, or its task file is gone or changed.
        DeviceError: A device was lost; what the others answered is kept.
        JobsWaitingError: The jobs lie in ``jobs`` and nobody has run them yet.
    """
    from edgekit.device_tests.error_split import split_all
    from edgekit.device_tests.lab import forget_finished, read_profiles, validate_devices
    from edgekit.device_tests.layer_error import layer_errors

    run = source.run if isinstance(source, Artifacts) else RunFolder(Path(source))
    manifest = run.manifest()
    artifacts = run.load_artifacts()
    if not artifacts:
        raise UsageError(f"{run.path} holds no artifacts. Make some with: edgekit export {run.path} --target onnx")
    profiles = read_profiles(devices, jobs=Path(jobs) if jobs else None, samples=samples)
    before, task = _release_before(baseline), task or _task_again(manifest)
    results = validate_devices(profiles, run=run, artifacts=artifacts, task=task, baseline=before, progress=progress)
    contract = QuantizationContract.read_json(run.compressed / "contract.json")
    report = ValidationReport(
        created=now(),
        compressed=read_record(run.compressed),
        contract=contract,
        artifacts=tuple(artifacts),
        layer_errors=layer_errors(run.compressed, log=run.log) if contract.entries else (),
        devices=tuple(results),
        environment=tool_versions(),
        error_splits=split_all(run, artifacts, progress=progress) if split else (),
    )
    record_validation(report, run)  # before the page, which shows it among the others
    _write_report(report, run)
    forget_finished(run, profiles)
    return report


def _release_before(baseline: Path | str | None) -> RunFolder | None:
    """The baseline's run.

    Raises:
        UsageError: The folder is no run.
    """
    if baseline is None:
        return None
    run = RunFolder(Path(baseline))
    run.manifest()
    return run


def _write_report(report: ValidationReport, run: RunFolder) -> None:
    from edgekit import report as reports
    from edgekit.core.errors import MissingExtraError

    reports.write_json(report, run.path / "report.json")
    try:
        reports.write_html(report, run.path / "report.html", run=run.path)
    except MissingExtraError:
        # The page needs the report extra; the numbers do not, and `edgekit report --html` says what to install.
        (run.path / "report.html").unlink(missing_ok=True)
    run.record_stage("validate", digest=sha256(run.path / "report.json"))


def _run_folder(
    source: Compressed | Task | Path | str, output: Path | None, *, reading: SourceOptions | None, force: bool, progress: Progress
) -> RunFolder:
    """The run a program lies in, made where there is none yet."""
    if not isinstance(source, Compressed | Task) and RunFolder(Path(source)).manifest_path.is_file():
        return RunFolder(Path(source))
    if isinstance(source, Compressed) and source.folder is not None and output is None:
        return RunFolder(source.folder.parent)
    if not isinstance(source, Compressed | Task):
        if not is_task_file(source):
            if Path(source).is_dir() and kind_of(Path(source)) is None:
                RunFolder(Path(source)).manifest()
            return run_of_file(Path(source), output, reading=reading or SourceOptions(), force=force, progress=progress)
        source = load_task(source)
    path = output or temporary_run(source.name)
    if isinstance(source, Task):
        if not is_made_from(RunFolder(path), source.source, None):
            compress(source, recipe="none", output=path, force=force, progress=progress)
        return RunFolder(path)
    RunFolder(path).check_free(force=False)
    save_run(source, path, source=None)
    return RunFolder(path)


def _task_again(manifest: Manifest) -> Task:
    if not manifest.task_file:
        raise UsageError(
            "The run does not name a task file (it was made in a notebook). Pass the task: ek.validate(artifacts, task)."
        )
    path = Path(manifest.task_file)
    if path.is_file() and sha256(path) != manifest.task_sha256:
        raise UsageError(f"{path} changed since the run was made, so its data may differ. Compress again, or restore the file.")
    if is_task_file(path):
        return load_task(path)
    if not path.exists():
        raise UsageError(f"{path}, which the run was made from, is gone. Restore it, or pass a task with --task.")
    return task_from_file(path, options=manifest.reading)
