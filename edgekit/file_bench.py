"""Time model files of any format on this machine, each in a confined child, in turn.

Every file is loaded in a process of its own. Blocks of inferences alternate between the processes, so that what disturbs
the machine disturbs all (:mod:`edgekit.device_tests.measurement`); the clocks stand beside the model, in its own process.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.core.errors import EdgekitError, UsageError
from edgekit.core.file_bench import BenchedFile, FileBench
from edgekit.core.measurement import Distribution, Measurement
from edgekit.core.model_inputs import pick_inputs
from edgekit.core.operator_profile import OperatorProfile
from edgekit.core.progress import Progress, silent
from edgekit.core.spawned_child import StartedChild
from edgekit.device_tests.blocks import Block
from edgekit.device_tests.host import host_facts, process_age_s
from edgekit.device_tests.measurement import BLOCK_S, Series, compare, summarise, take_rounds
from edgekit.runtimes.loading import LoadedModel, load

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["bench"]

_PROFILED_RUNS = 50
_PROFILE_LIMIT_S = 600.0


def bench(
    *files: Path | str,
    inputs: Mapping[str, Array] | None = None,
    runtime: str | None = None,
    threads: int = 1,
    options: Mapping[str, Any] | None = None,
    seconds: float = 3.0,
    warm_up: int = 0,
    profile: bool = False,
    timeout_s: float = 60.0,
    memory_bytes: int | None = None,
    progress: Progress = silent,
    log: Path | None = None,
    started: StartedChild | None = None,
) -> FileBench:
    """Load, first inference, latency, CPU time and memory of model files, and their ratios.

    Args:
        files: ``.tflite``, ``.onnx``, ``.ort``, ``.mlpackage``, ``.pt2`` …; the first is what the others are compared with.
        inputs: Input name -> one sample ``[*shape]``; random numbers where None.
        runtime: Runs all of them; None: each one's own.
        threads: Threads each runtime may use.
        options: Options of the runtime (:mod:`edgekit.core.runtime_options`).
        seconds: Time for latency samples for each file; it ends sooner where all medians are known to ±1 %.
        warm_up: Inferences before any is timed. What is still warm-up among those that are timed is found (MSER-5) and left out.
        profile: Also time every operator, by the runtime's own profiler.
        timeout_s: Limit of loading and of each block.
        memory_bytes: Most memory a model may take.
        progress: Called as the work advances.
        log: File the children's output is appended to.
        started: A child for the first file that was started before, with the same threads and log.

    Raises:
        UsageError: A file does not exist; the runtime, an option or an input is unknown.
        IntegrityError: A file is damaged, hostile, or of no known kind.
        UnsupportedOpError: It holds an operator the runtime cannot run.
        WorkerError: A child died, or exceeded a limit.
    """
    if not files:
        raise UsageError("There is nothing to time: give at least one model file.")
    if seconds <= 0:
        raise UsageError(f"seconds is {seconds:g}; it must be positive.")
    with contextlib.ExitStack() as stack:
        loaded: list[_Timed] = []
        for file in files:
            progress(f"load {Path(file).name}", len(loaded), len(files))
            model = load(
                file, runtime=runtime, threads=threads, options=options, timeout_s=timeout_s, memory_bytes=memory_bytes, log=log,
                started=None if loaded else started,
            )  # fmt: skip
            loaded.append(_Timed(stack.enter_context(model), inputs, warm_up=warm_up))
        answered_s = _since_start(loaded[0].first)
        rows = _measured(loaded, seconds * len(loaded), threads=threads, options=options or {}, progress=progress)
        if profile:
            rows = [_with_profile(row, one, progress) for row, one in zip(rows, loaded, strict=True)]
    from edgekit.report import file_bench  # noqa: F401  lets notebooks draw the result; not before the first inference

    return FileBench(
        machine=host_facts(),
        threads=threads,
        inputs="random numbers" if inputs is None else "given",
        files=tuple(rows),
        first_answer_s=answered_s,
    )


def _measured(
    loaded: Sequence[_Timed], budget_s: float, *, threads: int, options: Mapping[str, Any], progress: Progress
) -> list[BenchedFile]:
    """The files timed in turn."""
    takers = {str(at): one.block for at, one in enumerate(loaded)}
    series = take_rounds(takers, budget_s=budget_s, tell=functools.partial(_tell, progress, budget_s))
    return [
        one.row(series[str(at)], series["0"] if at else None, threads=threads, options=options) for at, one in enumerate(loaded)
    ]


class _Timed:
    """A loaded model and what its first inferences took."""

    def __init__(self, model: LoadedModel, inputs: Mapping[str, Array] | None, *, warm_up: int) -> None:
        self.model = model
        self.inputs = pick_inputs(model.inputs, inputs, of=str(model.path))
        arguments = {"block_s": BLOCK_S, "warm_up": warm_up}
        self.first, _ = model.call("edgekit.device_tests.blocks:begin", arguments, arrays=self.inputs)

    def block(self) -> Block:
        """Time one block where the model is."""
        arguments = {"length": self.first["block_length"]}
        signs, found = self.model.call("edgekit.device_tests.blocks:sample", arguments, arrays=self.inputs)
        return Block(found["wall_ns"].tolist(), found["cpu_ns"].tolist(), signs["preemption_count"], signs["waited_ns"])

    def row(self, series: Series, baseline: Series | None, *, threads: int, options: Mapping[str, Any]) -> BenchedFile:
        """Everything that was measured."""
        model, evidence = self.model, self.model.evidence
        once = {"load_time": model.load_s * 1e3, "first_inference": float(self.first["first_inference_ms"])}
        found = [
            *(_single(name, value, evidence) for name, value in once.items()),
            *summarise(series, threads=threads, evidence=evidence),
            Measurement(
                name="peak_memory", value=float(self.first["peak_bytes"]), unit="bytes", evidence=evidence,
                note="of the process that holds the model, after its first inferences",
            ),
        ]  # fmt: skip
        if baseline is not None:
            found += compare(series, baseline, threads=threads, evidence=evidence)
        return BenchedFile(
            path=str(model.path),
            sha256=model.sha256,
            runtime=model.runtime,
            runtime_version=model.version,
            options=dict(options),
            evidence=evidence,
            size_bytes=_size_bytes(model.path),
            measurements=tuple(found),
        )


def _with_profile(row: BenchedFile, timed: _Timed, progress: Progress) -> BenchedFile:
    """The row with its operators' times, or why there are none."""
    progress(f"profile {Path(row.path).name}", 0, None)
    arguments = {"run_count": _PROFILED_RUNS}
    try:
        found, _ = timed.model.call(
            "edgekit.device_tests.blocks:profile", arguments, arrays=timed.inputs, timeout_s=_PROFILE_LIMIT_S
        )
    except EdgekitError as reason:
        return row.replace(profile_failure=str(reason))
    return row.replace(profile=OperatorProfile.parse(found, source=f"profile of {row.path}"))


def _tell(progress: Progress, budget_s: float, share: float) -> None:
    progress("time", round(share * budget_s * 10), round(budget_s * 10))


def _single(name: str, value: float, evidence: Any) -> Measurement:
    return Measurement(name=name, value=value, unit="ms", evidence=evidence, distribution=Distribution.of([value]), note="once")


def _since_start(first: Mapping[str, Any]) -> float | None:
    """Seconds from this process's start to an answer; None where the system does not tell."""
    import time

    age_s = process_age_s()
    return None if age_s is None else age_s - (time.monotonic() - float(first["answered_at_s"]))


def _size_bytes(path: Path) -> int:
    if path.is_dir():
        return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    return path.stat().st_size
