"""Executes job folders by edgekit-runner: inputs become arrays in the file's own types, reports become the job's result."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.core.device_link import Errand
from edgekit.core.errors import UnsupportedOpError
from edgekit.core.model import Record
from edgekit.core.profile import DeviceProfile
from edgekit.core.runtime_options import read_settings
from edgekit.core.threads import thread_limits
from edgekit.device_tests.agent import evaluate, evaluate_stacked
from edgekit.device_tests.arrays import read_arrays, write_arrays
from edgekit.device_tests.jobs import Job, find_runtime
from edgekit.device_tests.native_agent.answers import (
    RecordedSession,
    as_written,
    read_answers,
    read_outputs,
    read_report,
    read_timing,
)
from edgekit.device_tests.native_agent.parcels import Parcel, batches, pack, stacked
from edgekit.device_tests.native_agent.programs import Programs, choose_programs
from edgekit.runtimes.native.runtime import ONNX_RUNTIME, TFLITE_RUNTIME, command_words

if TYPE_CHECKING:
    from edgekit.core.artifact import Artifact
    from edgekit.core.tensors import Array

__all__ = ["NativeAgent"]

_RUNTIMES = {runtime.target: runtime for runtime in (ONNX_RUNTIME, TFLITE_RUNTIME)}
_RUNNER = "edgekit-runner"
_OWN = "native"
"""Folder in the job's folder on this side."""
_NOTES = "notes.json"
_REPORT = "report_{}.json"
_ANSWERS = "answers_{}"
_NO_LAYERS = (
    "edgekit-runner runs whole files: no layer was replayed on the device. Validate on 'host' too, whose kernels are replayed"
    " layer by layer."
)


class _Notes(Record):
    """What has to be known when the results come back.

    Args:
        version: Of the library that was sent.
        counts: Inferences of every run of the program.
    """

    version: str
    counts: tuple[int, ...] = ()


class NativeAgent:
    """A device agent for devices without Python: see :class:`edgekit.core.device_link.DeviceAgent`.

    Sent are the program, the runtime's library, the models and the inputs as ``.npy`` files; batching, quantized inputs and what
    is done to outputs are those of :mod:`edgekit.device_tests.agent`, on this side.

    Args:
        profile: The device; ``connection.runner`` and ``connection.library`` name programs built elsewhere.
    """

    def __init__(self, profile: DeviceProfile) -> None:
        self.profile = profile

    def prepare(self, job: Path, *, facts: Mapping[str, str]) -> Errand:
        """What is to be sent and run for a job folder.

        Raises:
            ProfileError: A program that the profile names is not there, or for another processor.
            UnsupportedOpError: There is no program for the device, or the runner cannot do this job.
            UsageError: An option is unknown; the program cannot be built, or the library is not there.
            DataError: The file cannot take the inputs.
        """
        plan = Job.read_json(job / "job.json")
        options = _options(plan)
        programs = choose_programs(self.profile, plan.artifacts[0].target, facts=facts, library=str(options.pop("library")))
        shutil.rmtree(job / _OWN, ignore_errors=True)
        (job / _OWN).mkdir()
        make = _answers_errand if plan.kind == "answers" else _timing_errand
        return make(plan, job, programs, _common_words(plan, options, programs))

    def collect(self, job: Path) -> None:
        """Turn what came back into the job folder's ``result.json`` and ``outputs.npz``.

        Raises:
            IntegrityError: What came back is not what the program writes.
            DataError: The file's outputs have no batch axis, so that samples cannot be told apart.
        """
        plan = Job.read_json(job / "job.json")
        notes = _Notes.read_json(job / _OWN / _NOTES)
        if plan.kind == "answers":
            _collect_answers(plan, job, notes)
        else:
            report = read_report(job / _REPORT.format(0), plan.artifacts[0])
            timing, arrays = read_timing(report, [artifact.label for artifact in plan.artifacts])
            write_arrays(job / "outputs.npz", arrays)
            timing.write_json(job / "result.json")
        shutil.rmtree(job / _OWN)


def _options(plan: Job) -> dict[str, Any]:
    """The runtime's options, as the program has them."""
    target = plan.artifacts[0].target
    if plan.kind not in {"answers", "timing"}:
        raise UnsupportedOpError(
            f"{plan.what}: edgekit-runner answers inputs and times models in turn; it has no job of the kind '{plan.kind}'."
            " Use the Python agent (connection.agent = 'python')."
        )
    if target not in _RUNTIMES or find_runtime(plan.runtime).target != target:
        raise UnsupportedOpError(
            f"{plan.what}: edgekit-runner runs {' and '.join(_RUNTIMES)} files, not '{target}' in '{plan.runtime}'."
            " Use the Python agent, or leave this target out of the device's profile."
        )
    return read_settings(plan.options, _RUNTIMES[target].options, runtime="edgekit-runner")


def _common_words(plan: Job, options: Mapping[str, Any], programs: Programs) -> list[str]:
    chosen = {**options, "affinity": plan.affinity or options["affinity"], "library": f"./{programs.library.name}"}
    words = [str(word) for word in command_words(plan.artifacts[0].target, threads=plan.threads, **chosen)]
    return [*words, "--memory-limit", str(plan.memory_bytes)] if plan.memory_bytes else words


def _answers_errand(plan: Job, job: Path, programs: Programs, common: Sequence[str]) -> Errand:
    (artifact,) = plan.artifacts
    golden = read_arrays(job / "golden.npz")
    calls, count = stacked(golden), len(next(iter(golden.values())))
    if (job / "evaluation.npz").exists():
        evaluation = read_arrays(job / "evaluation.npz")
        size = artifact.inputs[0].shape[0] if artifact.inputs[0].shape else 1
        calls = itertools.chain(calls, batches(evaluation, artifact))
        count += -(-len(next(iter(evaluation.values()))) // size)
    parcels = pack(calls, count, artifact=artifact, folder=job / _OWN / "inputs")
    _Notes(version=programs.version, counts=tuple(parcel.count for parcel in parcels)).write_json(job / _OWN / _NOTES)
    commands, returns = list[list[str]](), list[str]()
    for number, parcel in enumerate(parcels):
        again = ["--load-again"] if number == 0 else []
        report, folder = _REPORT.format(number), _ANSWERS.format(number)
        given = ["--stacked", *_input_words(parcel, str(number)), "--output-dir", f"./{folder}", "--report", f"./{report}"]
        commands.append([f"./{_RUNNER}", _model(artifact), *common, *again, *given])
        returns += [report, *(f"{folder}/output_{index}.npy" for index in range(len(artifact.outputs)))]
    return _errand(plan, job, programs, {str(number): parcel for number, parcel in enumerate(parcels)}, commands, returns)


def _timing_errand(plan: Job, job: Path, programs: Programs, common: Sequence[str]) -> Errand:
    golden = read_arrays(job / "golden.npz")
    _Notes(version=programs.version).write_json(job / _OWN / _NOTES)
    parcels, words = dict[str, Parcel](), [f"./{_RUNNER}"]
    for index, artifact in enumerate(plan.artifacts):
        sample = itertools.islice(stacked(golden), 1)
        (parcel,) = pack(sample, 1, artifact=artifact, folder=job / _OWN / "inputs" / str(index))
        parcels[str(index)] = parcel
        words += [_model(artifact), *common] if index == 0 else ["--beside", _model(artifact)]
        words += _input_words(parcel, str(index))
    report = _REPORT.format(0)
    words += ["--stacked", "--rounds", str(plan.fewest_rounds), "--seconds", str(plan.budget_s), "--report", f"./{report}"]
    return _errand(plan, job, programs, parcels, [words], [report])


def _errand(
    plan: Job,
    job: Path,
    programs: Programs,
    parcels: Mapping[str, Parcel],
    commands: Sequence[Sequence[str]],
    returns: Sequence[str],
) -> Errand:
    files = {_RUNNER: programs.runner, programs.library.name: programs.library}
    for artifact in plan.artifacts:  # a model, and weights that it reads from beside itself
        files |= {path.relative_to(job).as_posix(): path for path in sorted((job / artifact.path.parent).iterdir())}
    for name, parcel in parcels.items():
        files |= {_place(name, path): path for path in parcel.files.values()}
    return Errand(files=files, commands=commands, returns=returns, programs=[_RUNNER], environment=thread_limits(plan.threads))


def _model(artifact: Artifact) -> str:
    return f"./{artifact.path.as_posix()}"


def _place(name: str, path: Path) -> str:
    return f"inputs_{name}/{path.name}"


def _input_words(parcel: Parcel, name: str) -> list[str]:
    return [word for key, path in parcel.files.items() for word in ("--input", f"{key}={_place(name, path)}")]


def _collect_answers(plan: Job, job: Path, notes: _Notes) -> None:
    (artifact,) = plan.artifacts
    rows: dict[str, list[Array]] = {spec.name: [] for spec in artifact.outputs}
    reports = [read_report(job / _REPORT.format(number), artifact) for number in range(len(notes.counts))]
    for number, (report, count) in enumerate(zip(reports, notes.counts, strict=True)):
        for name, array in read_outputs(report, job / _ANSWERS.format(number), artifact, count=count).items():
            rows[name].append(array)
    session, edges = RecordedSession(artifact.inputs, artifact.outputs, rows), as_written(artifact)
    found = evaluate_stacked(session, read_arrays(job / "golden.npz"), edges=edges)
    outputs = {f"golden/{name}": array for name, array in found.items()}
    if (job / "evaluation.npz").exists():
        found = evaluate(session, read_arrays(job / "evaluation.npz"), edges=edges)
        outputs |= {f"evaluation/{name}": array for name, array in found.items()}
    write_arrays(job / "outputs.npz", outputs)
    result = read_answers(reports[0], version=notes.version)
    (result.replace(layers_absent=_NO_LAYERS) if plan.replay else result).write_json(job / "result.json")
