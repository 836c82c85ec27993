"""Executes job folders by edgekit-runner: inputs become arrays in the file's own types, reports become the job's result."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.core.device_link import Errand
from edgekit.core.errors import UnsupportedOpError
from edgekit.core.profile import DeviceProfile
from edgekit.core.runtime_options import read_settings
from edgekit.device_tests.agent import evaluate, evaluate_stacked
from edgekit.device_tests.arrays import read_arrays, write_arrays
from edgekit.device_tests.jobs import Job, find_runtime
from edgekit.device_tests.native_agent.answers import RecordedSession, as_written, read_answers, read_outputs, read_report
from edgekit.device_tests.native_agent.orders import ORDERS, OWN, REPORT, Notes, Order, answers_folder, report_name
from edgekit.device_tests.native_agent.programs import Programs, choose_programs
from edgekit.device_tests.native_agent.timings import read_start, read_sustained, read_timing
from edgekit.runtimes.native.runtime import ONNX_RUNTIME, TFLITE_RUNTIME, command_words

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["NativeAgent"]

_RUNTIMES = {runtime.target: runtime for runtime in (ONNX_RUNTIME, TFLITE_RUNTIME)}
_NO_LAYERS = (
    "edgekit-runner runs whole files: no layer was replayed on the device. Validate on 'host' too, whose kernels are replayed"
    " layer by layer."
)


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
        programs = choose_programs(self.profile, plan.artifacts[0].target, facts=facts, library=str(options["library"]))
        shutil.rmtree(job / OWN, ignore_errors=True)
        (job / OWN).mkdir()
        return ORDERS[plan.kind](Order(plan, job, programs, _common_words(plan, options, programs)))

    def collect(self, job: Path) -> None:
        """Turn what came back into the job folder's ``result.json`` and ``outputs.npz``.

        Raises:
            IntegrityError: What came back is not what the program writes.
            DataError: The file's outputs have no batch axis, so that samples cannot be told apart.
        """
        plan = Job.read_json(job / "job.json")
        notes = Notes.read_json(job / OWN / "notes.json")
        if plan.kind == "answers":
            _collect_answers(plan, job, notes)
        else:
            _collect_times(plan, job, notes)
        shutil.rmtree(job / OWN)


def _options(plan: Job) -> dict[str, Any]:
    """The runtime's options, as the program has them."""
    target = plan.artifacts[0].target
    if plan.kind not in ORDERS:
        raise UnsupportedOpError(
            f"{plan.what}: edgekit-runner has no job of the kind '{plan.kind}'; it has {', '.join(ORDERS)}. A device with Python"
            " can do it: connection.agent = 'python'."
        )
    if target not in _RUNTIMES or find_runtime(plan.runtime).target != target:
        raise UnsupportedOpError(
            f"{plan.what}: edgekit-runner runs {' and '.join(_RUNTIMES)} files, not '{target}' in '{plan.runtime}'."
            " Use the Python agent, or leave this target out of the device's profile."
        )
    if plan.kind == "sustained" and plan.sustained is not None and plan.sustained.power_meter:
        raise UnsupportedOpError(
            f"{plan.what}: edgekit-runner reads no power meter ({plan.sustained.power_meter}). Use the Python agent, or none."
        )
    return read_settings(plan.options, _RUNTIMES[target].options, runtime="edgekit-runner")


def _common_words(plan: Job, options: Mapping[str, Any], programs: Programs) -> list[str]:
    chosen = {**options, "affinity": plan.affinity or options["affinity"], "library": f"./{programs.library.name}"}
    words = [str(word) for word in command_words(plan.artifacts[0].target, threads=plan.threads, **chosen)]
    return [*words, "--memory-limit", str(plan.memory_bytes)] if plan.memory_bytes else words


def _collect_answers(plan: Job, job: Path, notes: Notes) -> None:
    (artifact,) = plan.artifacts
    rows: dict[str, list[Array]] = {spec.name: [] for spec in artifact.outputs}
    reports = [read_report(job / report_name(number), artifact) for number in range(len(notes.counts))]
    for number, (report, count) in enumerate(zip(reports, notes.counts, strict=True)):
        for name, array in read_outputs(report, job / answers_folder(number), artifact, count=count).items():
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


def _collect_times(plan: Job, job: Path, notes: Notes) -> None:
    report = read_report(job / REPORT, plan.artifacts[0])
    if plan.kind == "start":
        read_start(report, version=notes.version, is_cold=plan.cold).write_json(job / "result.json")
    elif plan.kind == "sustained":
        read_sustained(report, version=notes.version).write_json(job / "result.json")
    else:
        timing, arrays = read_timing(report, plan.artifacts, version=notes.version)
        write_arrays(job / "outputs.npz", arrays)
        timing.write_json(job / "result.json")
