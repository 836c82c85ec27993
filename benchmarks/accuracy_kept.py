"""How much of the float model's accuracy is kept in each target runtime, beside other tools' default static int8?

::

    python examples/assets.py --all
    python benchmarks/accuracy_kept.py                                   # all fixtures, recipe int8
    python benchmarks/accuracy_kept.py --fixture residual --recipe int8 --recipe int8-exact

Every tool gets the same float net and the same calibration samples. Every answer is that of the exported file in its own runtime,
one sample at a time (neural-compressor has no runtime of its own here: torch). Metrics are paired with the float file's answers
on the same samples, with the 95 % interval of the drop. A tool that fails is a row that says so.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from lab.results import write_results
from rich.console import Console
from rich.table import Table

from edgekit import pipeline, registry
from edgekit.core.artifact import Artifact
from edgekit.core.errors import EdgekitError
from edgekit.core.task import Task, load_task
from edgekit.device_tests.scoring import Evaluation, gather_evaluation, score

ROOT = Path(__file__).resolve().parents[1]
LAB = ROOT / "benchmarks" / "lab"
FIXTURES = ("smartwatch", "fashion", "residual", "sentiment", "bilstm", "mobilenet", "minilm")
TARGETS = {"onnx": "onnxruntime", "tflite": "litert", "coreml": "coreml-reference"}
PEERS = {"onnxruntime-s8": "onnx", "onnxruntime-u8": "onnx", "ai-edge-quantizer": "tflite"}
"""Peer -> whose float file it quantizes; see lab/peers.py."""
PACKAGES = ("edgekit", "torch", "onnxruntime", "ai-edge-litert", "ai-edge-quantizer", "neural-compressor", "numpy")
CALIBRATION_COUNT = 64
SAMPLES, REFERENCE_SAMPLES = 1000, 200  # the Core ML reference executor is slow
PEER_LIMIT_S = 900

Answers = dict[str, Any]
Row = dict[str, Any]


class Fixture:
    """One example with its evaluation samples and the answers of its float file.

    Args:
        name: Folder in ``examples/``.
        sample_count: At most this many evaluation samples, spread evenly.
        work: Scratch folder.
    """

    def __init__(self, name: str, *, sample_count: int, work: Path) -> None:
        self.name, self.work = name, work
        task = load_task(ROOT / "examples" / name / "task.py")
        found = gather_evaluation(task)
        assert found is not None, f"example {name} has no evaluation data"
        [(self.input, values)] = found.inputs.items()
        chosen = np.linspace(0, len(values) - 1, min(sample_count, len(values))).astype(int)
        self.samples = values[chosen]
        self.evaluation = Evaluation({self.input: self.samples}, None if found.targets is None else found.targets[chosen])
        parts = [next(iter(batch.values())) for batch in task.calibration_batches()]
        self.calibration = np.concatenate(parts)[:CALIBRATION_COUNT]
        self.task: Task = dataclasses.replace(task, calibration=[self.calibration])
        self.float_answers: Answers = {}

    def answers(self, runtime: str, path: Path, *, count: int | None = None) -> Answers:
        """Outputs of a file for the evaluation samples, whatever its edges are called and however they are laid out."""
        session = registry.runtime(runtime).load(path, threads=1)
        [spec] = session.inputs
        laid_out = self.samples if self.samples.shape[1:] == spec.shape[1:] else np.moveaxis(self.samples, 1, -1)
        given = laid_out.astype(spec.dtype) if spec.scale is None else _on_grid(laid_out, spec)
        rows = [next(iter(session.run({spec.name: sample[None]}).values())) for sample in given[:count]]
        session.close()
        values, [made] = np.concatenate(rows), session.outputs
        if made.scale is not None:
            values = (values.astype(np.float32) - (made.zero_point or 0)) * np.float32(made.scale)
        return {"output": values}

    def row(self, tool: str, recipe: str, runtime: str, answers: Answers, cpu_s: float) -> Row:
        """The metric, paired with float."""
        count = len(answers["output"])
        targets = None if self.evaluation.targets is None else self.evaluation.targets[:count]
        floats = {"output": self.float_answers["output"][:count]}
        result = score(self.task.metric, answers, float_outputs=floats, targets=targets)
        signal = floats["output"].astype(np.float64)
        noise = float(np.square(signal - answers["output"]).sum())
        return {
            "fixture": self.name, "tool": tool, "recipe": recipe, "runtime": runtime, "metric": result.name,
            "value": result.value, "float_value": result.float_value, "kept": result.value / result.float_value,
            "drop_points": result.drop_points, "drop_interval": result.drop_interval, "flips": result.flip_count,
            "snr_db": float(10 * np.log10(np.square(signal).sum() / noise)) if noise else None,
            "sample_count": result.sample_count, "cpu_s": cpu_s,
        }  # fmt: skip

    def failed(self, tool: str, recipe: str, runtime: str, reason: str) -> Row:
        """A row without numbers."""
        return {
            "fixture": self.name,
            "tool": tool,
            "recipe": recipe,
            "runtime": runtime,
            "failed": " ".join(reason.split())[:300],
        }


def _on_grid(values: Any, spec: Any) -> Any:
    limits = np.iinfo(spec.dtype)
    return np.clip(np.rint(values / spec.scale) + spec.zero_point, limits.min, limits.max).astype(spec.dtype)


def measure_edgekit(fixture: Fixture, recipe: str, *, reference_count: int) -> Iterator[Row]:
    """Compress, export to every target, run every file."""
    run, cpu = fixture.work / f"{fixture.name}-{recipe}", time.process_time()
    try:
        pipeline.compress(fixture.task, recipe=recipe, output=run)
    except EdgekitError as reason:
        yield fixture.failed("edgekit", recipe, "all", str(reason))
        return
    cpu = time.process_time() - cpu
    for target, runtime in TARGETS.items():
        count = reference_count if runtime == "coreml-reference" else None
        try:
            [artifact] = pipeline.export(run, targets=[target], float_baseline=False)
            yield fixture.row("edgekit", recipe, runtime, fixture.answers(runtime, artifact.path, count=count), cpu)
        except EdgekitError as reason:
            yield fixture.failed("edgekit", recipe, runtime, str(reason))


def float_files(fixture: Fixture) -> dict[str, Path]:
    """The float net in the formats that peers take; sets the fixture's float answers."""
    run = fixture.work / f"{fixture.name}-float"
    pipeline.compress(fixture.task, recipe="none", output=run)
    artifacts: list[Artifact] = list(pipeline.export(run, targets=["onnx", "tflite"]))
    files = {artifact.target: artifact.path for artifact in artifacts}
    fixture.float_answers = fixture.answers("onnxruntime", files["onnx"])
    return files


def measure_peers(fixture: Fixture, files: dict[str, Path]) -> Iterator[Row]:
    """Each peer in a process of its own; its CPU time is that of the whole process, imports included."""
    calibration, evaluation = fixture.work / f"{fixture.name}-c.npy", fixture.work / f"{fixture.name}-e.npy"
    np.save(calibration, fixture.calibration)
    np.save(evaluation, fixture.samples)
    for peer, target in PEERS.items():
        output = fixture.work / f"{fixture.name}-{peer}{files[target].suffix}"
        command = [LAB / "peers.py", peer, files[target], calibration, output]
        yield _peer_row(fixture, peer, TARGETS[target], command, lambda: fixture.answers(TARGETS[target], output))  # noqa: B023  used at once
    output = fixture.work / f"{fixture.name}-neural-compressor.npy"
    command = [LAB / "neural_compressor_answers.py", ROOT / "examples" / fixture.name, calibration, evaluation, output]
    yield _peer_row(fixture, "neural-compressor", "torch", command, lambda: {"output": np.load(output)})


def _peer_row(fixture: Fixture, peer: str, runtime: str, command: list[Any], answers: Callable[[], Answers]) -> Row:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [sys.executable, *(str(word) for word in command)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        subprocess.run(words, check=True, capture_output=True, text=True, env=environment, timeout=PEER_LIMIT_S)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return fixture.row(peer, "default static int8", runtime, answers(), cpu)
    except subprocess.CalledProcessError as reason:
        lines = [line for line in reason.stderr.splitlines() if line.strip()]
        return fixture.failed(peer, "default static int8", runtime, lines[-1] if lines else f"exit code {reason.returncode}")
    except (subprocess.TimeoutExpired, EdgekitError) as reason:
        return fixture.failed(peer, "default static int8", runtime, str(reason))


def show(console: Console, rows: list[Row]) -> None:
    table = Table("fixture", "tool", "recipe", "runtime", "metric", "kept", "drop, points", "95 % interval", "SNR dB", "CPU s")
    for row in rows:
        names = (row["fixture"], row["tool"], row["recipe"], row["runtime"])
        if "failed" in row:
            table.add_row(*names, "failed", "", "", "", "", "")
            continue
        low, high = row["drop_interval"]
        snr = "exact" if row["snr_db"] is None else f"{row['snr_db']:.1f}"
        numbers = (f"{row['value']:.2%}", f"{row['kept']:.2%}", f"{row['drop_points']:+.2f}", f"{low:+.2f} to {high:+.2f}", snr)
        table.add_row(*names, *numbers, f"{row['cpu_s']:.0f}")
    console.print(table)
    for row in rows:
        if "failed" in row:
            console.print(f"{row['fixture']}, {row['tool']}: {row['failed']}", markup=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few samples: does it work?")
    parser.add_argument("--fixture", action="append", choices=FIXTURES, help="only these; may be repeated")
    parser.add_argument("--recipe", action="append", help="recipes of edgekit; may be repeated  [default: int8]")
    parser.add_argument("--no-peers", action="store_true", help="edgekit only")
    arguments = parser.parse_args()
    recipes = arguments.recipe or ["int8"]
    samples, reference = (40, 10) if arguments.quick else (SAMPLES, REFERENCE_SAMPLES)
    console, rows = Console(width=150), list[Row]()
    for name in arguments.fixture or FIXTURES:
        with tempfile.TemporaryDirectory() as work:
            fixture = Fixture(name, sample_count=samples, work=Path(work))
            files = float_files(fixture)
            own: list[Row] = []
            for recipe in recipes:
                own += measure_edgekit(fixture, recipe, reference_count=reference)
            own += [] if arguments.no_peers else measure_peers(fixture, files)
        show(console, own)
        rows += own
    settings = {
        "calibration_count": CALIBRATION_COUNT,
        "samples": samples,
        "reference_samples": reference,
        "recipes": recipes,
    }
    path = write_results("accuracy_kept", rows, settings=settings, packages=PACKAGES, quick=arguments.quick)
    console.print(f"written: {path}")


if __name__ == "__main__":
    main()
