"""One run of edgekit-runner with everything it measures: load time, first inference, latency, memory, preemptions."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.core.errors import WorkerError
from edgekit.core.measurement import Distribution, Evidence
from edgekit.core.model import Record
from edgekit.runtimes.native.build import build_runner
from edgekit.runtimes.native.process import failure_of
from edgekit.runtimes.native.runtime import command_words

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["NativeMeasurement", "measure", "run_report", "target_of"]


class NativeMeasurement(Record):
    """What the runner measured of one file.

    Args:
        path: The model file.
        sha256: Its digest.
        machine: Operating system and architecture the program ran on.
        runtime: ``"litert"``, ``"tflite"`` or ``"onnxruntime"``.
        version: As the library says; empty where it does not.
        library: File it was opened from.
        provider: Execution provider, kernels or delegate that computed.
        threads: Threads it was allowed.
        evidence: What the times rest on: ``measured`` on this machine, ``emulated`` through a launcher.
        load_ms: Time to open the library and load the model.
        first_inference_ms: Time of the first inference.
        latency_ms: Times of the others; None where none were asked for.
        cpu_ms_per_inference: Processor time of all threads, by inference.
        preemptions: How often the system took the processor away while timing.
        memory_after_load_bytes: Peak resident memory when the model was loaded.
        peak_memory_bytes: Peak resident memory at the end.
        output_sha256: Output -> digest of its values in C order, samples one after the other.
    """

    path: str
    sha256: str
    machine: str
    runtime: str
    version: str
    library: str
    provider: str
    threads: int
    evidence: Evidence
    load_ms: float
    first_inference_ms: float
    latency_ms: Distribution | None = None
    cpu_ms_per_inference: float | None = None
    preemptions: int | None = None
    memory_after_load_bytes: int
    peak_memory_bytes: int
    output_sha256: dict[str, str]


def measure(
    path: Path,
    inputs: Mapping[str, Array] | None = None,
    *,
    threads: int = 1,
    warm_up: int = 3,
    repeat: int = 100,
    seconds: float = 0.0,
    affinity: str = "",
    provider: str = "",
    library: str | Path = "",
    optimization: str = "all",
    launcher: Sequence[str | Path] = (),
    runner: Path | None = None,
    timeout_s: float = 600.0,
) -> NativeMeasurement:
    """Run and time a ``.tflite``, ``.onnx`` or ``.ort`` file in a process of its own, without Python.

    Args:
        path: The model file.
        inputs: Values by input name; None: zeros.
        threads: Threads the library may use.
        warm_up: Inferences before the timing.
        repeat: Timed inferences; 0: as many as fit in ``seconds``.
        seconds: How long to time; 0: no limit but ``repeat``.
        affinity: Processors to run on, such as ``"0,2-3"``.
        provider: Execution provider, kernels, or the path of a delegate; empty: the runtime's default.
        library: Shared library; empty: that of the installed package.
        optimization: ONNX Runtime's graph optimisation.
        launcher: Words before the program, such as an emulator's; the times are then ``emulated``.
        runner: The program; None: built for this machine.
        timeout_s: After this it is ended.

    Raises:
        UsageError: An input does not fit, or an option cannot be used here.
        UnsupportedOpError: The library lacks a kernel or a provider.
        IntegrityError: The file is damaged.
        WorkerError: The program crashed, or took too long.
    """
    words = command_words(
        target_of(path), threads=threads, provider=provider, library=library, affinity=affinity, optimization=optimization
    )
    words += ["--warm-up", str(warm_up)]
    words += ["--repeat", str(repeat)] if repeat else []
    words += ["--seconds", str(seconds)] if seconds else []
    command = [*launcher, runner or build_runner(), path, *words]
    report = run_report(command, inputs or {}, source=str(path), timeout_s=timeout_s)
    return _record(path, report, Evidence.EMULATED if launcher else Evidence.MEASURED)


def run_report(command: Sequence[str | Path], inputs: Mapping[str, Array], *, source: str, timeout_s: float) -> dict[str, Any]:
    """Run the program once with these inputs; the document it wrote.

    Raises:
        UsageError: An input does not fit, or an option cannot be used here.
        UnsupportedOpError: The library lacks a kernel or a provider.
        IntegrityError: The file is damaged.
        WorkerError: The program crashed, or took too long.
    """
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="edgekit-native-") as folder:
        words = [*map(str, command), "--report", str(Path(folder) / "report.json")]
        for index, (name, values) in enumerate(inputs.items()):
            file = Path(folder) / f"input_{index}.npy"
            np.save(file, np.require(values, requirements="C"))
            words += ["--input", f"{name}={file}"]
        try:
            done = subprocess.run(words, capture_output=True, check=False, timeout=timeout_s)
        except subprocess.TimeoutExpired as reason:
            raise WorkerError(f"{source}: edgekit-runner took more than {timeout_s:.0f} s; it was ended.") from reason
        if done.returncode != 0:
            raise failure_of(done.returncode, done.stderr.decode("utf-8", "replace"), source)
        report: dict[str, Any] = json.loads((Path(folder) / "report.json").read_text(encoding="utf-8"))
        return report


def target_of(path: Path) -> str:
    """The target a file is of, by its name: ``"tflite"``, else ``"onnx"``."""
    return "tflite" if path.suffix == ".tflite" else "onnx"


def _record(path: Path, report: Mapping[str, Any], evidence: Evidence) -> NativeMeasurement:
    latency, runtime = report.get("latency"), report["runtime"]
    return NativeMeasurement(
        path=str(path),
        sha256=report["model"]["sha256"],
        machine=report["machine"],
        runtime=runtime["name"],
        version=runtime["version"],
        library=runtime["library"],
        provider=runtime["provider"],
        threads=report["options"]["threads"],
        evidence=evidence,
        load_ms=report["load_ns"] / 1e6,
        first_inference_ms=report["first_inference_ns"] / 1e6,
        latency_ms=Distribution.of([sample / 1e6 for sample in latency["samples_ns"]]) if latency else None,
        cpu_ms_per_inference=latency["total_cpu_ns"] / 1e6 / latency["sample_count"] if latency else None,
        preemptions=latency["preemptions"] if latency else None,
        memory_after_load_bytes=report["memory"]["after_load_bytes"],
        peak_memory_bytes=report["memory"]["peak_bytes"],
        output_sha256={output["name"]: output["sha256"] for output in report["outputs"]},
    )
