"""What calibrating MobileNetV2 costs, estimator by estimator: CPU per sample in float forwards, and growth of memory.

::

    python benchmarks/calibration_cost.py            # about 20 minutes
    python benchmarks/calibration_cost.py --quick    # a few minutes: does it work? Its numbers mean little

Every tool calibrates the same float net on the same pictures, in a process of its own, with one thread; tools take turns, for
several rounds. Cost is CPU time of calibrating (the choice of the ranges included) per sample, over CPU time of one forward of
the float model in the tool's own runtime, measured in the same process. Memory is the process's resident size: its peak after
the first samples, less what it was then. A tool that grows beyond 1.5 GB is given no more samples.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lab.results import write_results
from rich.console import Console
from rich.table import Table

import edgekit
from edgekit import pipeline
from edgekit.core.errors import DataError
from edgekit.core.task import load_task

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parent / "examples" / "mobilenet"
OURS = tuple(f"edgekit:{name}" for name in ("min-max", "moving-average", "percentile", "mse", "entropy"))
PEERS = (
    "onnxruntime:MinMax",
    "onnxruntime:Entropy",
    "onnxruntime:Percentile",
    "ai-edge-quantizer:static_wi8_ai8",
    "neural-compressor:minmax",
    "neural-compressor:kl",
)
PACKAGES = ("edgekit", "torch", "onnxruntime", "ai-edge-litert", "ai-edge-quantizer", "neural-compressor", "numpy")
LIMITS = {"forwards": 2.5, "growth_mb": 8.0}


def mobilenet() -> edgekit.Task:
    """The example's task, or the same net with random weights where the data was not fetched."""
    try:
        task = load_task(EXAMPLE / "task.py")
        next(iter(task.calibration_batches()))
        task.build_model()
    except DataError:
        sys.path.insert(0, str(EXAMPLE))
        from model import MobileNetV2

        noise = np.random.default_rng(0).standard_normal((8, 3, 224, 224)).astype(np.float32)
        return edgekit.Task(name="mobilenet", model=MobileNetV2, example_inputs=noise[:1], calibration=[noise])
    return task


def prepare(work: Path, *, count: int, early: int) -> Path:
    """Float files for the tools that read files, the pictures, and the job that names them."""
    task = mobilenet()
    run = work / "run"
    pipeline.compress(task, recipe="none", output=run)
    files = {made.target: made.path for made in pipeline.export(run, targets=["onnx", "tflite"])}
    images = np.concatenate([next(iter(batch.values())) for batch in task.calibration_batches()])[:64]
    np.save(work / "images.npy", images)
    job = work / f"job-{count}.json"
    paths = {name: str(path.resolve()) for name, path in files.items()}
    job.write_text(json.dumps(paths | {"images": str(work / "images.npy"), "count": count, "early": early}))
    return job


def calibrate(tool: str, job: Path, work: Path) -> dict[str, Any]:
    """One process of one tool; what it says went wrong where it did."""
    answer = work / "answer.json"
    answer.unlink(missing_ok=True)
    command = [sys.executable, str(HERE / "lab" / "calibrators.py"), tool, str(job), str(answer)]
    paths = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode or not answer.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return {"failure": lines[-1][:200] if lines else f"ended with {done.returncode}"}
    found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return found


def row_of(tool: str, costs: Sequence[Mapping[str, Any]], memory: Mapping[str, Any]) -> dict[str, Any]:
    """Median cost over the rounds with its spread, and the growth of memory."""
    failed = [found["failure"] for found in (*costs, memory) if "failure" in found]
    if failed:
        return {"tool": tool, "failure": failed[0]}
    forwards = [found["cpu_s"] / found["sample_count"] / found["forward_cpu_s"] for found in costs]
    return {
        "tool": tool,
        "forwards_per_sample": float(np.median(forwards)),
        "forwards_per_sample_spread": [min(forwards), max(forwards)],
        "cpu_ms_per_sample": 1e3 * float(np.median([found["cpu_s"] / found["sample_count"] for found in costs])),
        "forward_cpu_ms": 1e3 * float(np.median([found["forward_cpu_s"] for found in costs])),
        "round_count": len(costs),
        "sample_count": costs[0]["sample_count"],
        "growth_mb": memory["growth_bytes"] / 2**20,
        "growth_from_sample": memory["early"],
        "growth_to_sample": memory["sample_count"],
    }


def show(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """One table; ours must stay within the limits."""
    table = Table(title="Calibrating MobileNetV2, one thread: CPU per sample, and growth of memory")
    for name in ("tool", "float forwards per sample", "spread", "ms", "one forward, ms", "memory growth", "from sample … to"):
        table.add_column(name, justify="left" if name == "tool" else "right", no_wrap=True)
    for row in rows:
        if "failure" in row:
            table.add_row(row["tool"], "not run")
            console.print(f"{row['tool']} was not run: {row['failure']}", markup=False)
            continue
        low, high = row["forwards_per_sample_spread"]
        table.add_row(
            row["tool"],
            f"{row['forwards_per_sample']:.2f}",
            f"{low:.2f} to {high:.2f}",
            f"{row['cpu_ms_per_sample']:.1f}",
            f"{row['forward_cpu_ms']:.1f}",
            f"{row['growth_mb']:.1f} MB",
            f"{row['growth_from_sample']} … {row['growth_to_sample']}",
        )
    console.print(table)
    for row in rows:
        if row["tool"] in OURS and "failure" not in row:
            cost, growth = row["forwards_per_sample"], row["growth_mb"]
            verdict = "within" if cost <= LIMITS["forwards"] and growth <= LIMITS["growth_mb"] else "BEYOND"
            console.print(f"{row['tool']}: {cost:.2f} forwards, {growth:.1f} MB: {verdict} the limits ({LIMITS})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, few samples")
    parser.add_argument("--tool", action="append", choices=[*OURS, *PEERS], help="only this one (may be repeated)")
    options = parser.parse_args()
    console = Console(width=max(Console().width, 150))
    rounds, count, early, late = (1, 16, 5, 40) if options.quick else (5, 64, 50, 1000)
    tools = options.tool or [*OURS, *PEERS]
    with tempfile.TemporaryDirectory(prefix="edgekit-benchmark-") as folder:
        work = Path(folder)
        job = prepare(work, count=count, early=count)
        long_job = work / "job-long.json"
        long_job.write_text(json.dumps(json.loads(job.read_text()) | {"count": late, "early": early}))
        costs: dict[str, list[dict[str, Any]]] = {tool: [] for tool in tools}
        for turn in range(rounds):
            for tool in tools:
                console.print(f"round {turn + 1} of {rounds}: {tool} …", style="dim")
                costs[tool].append(calibrate(tool, job, work))
        rows = []
        for tool in tools:
            console.print(f"memory: {tool} …", style="dim")
            rows.append(row_of(tool, costs[tool], calibrate(tool, long_job, work)))
    show(rows, console)
    settings = {"rounds": rounds, "sample_count": count, "growth_from_sample": early, "growth_to_sample": late, "threads": 1}
    path = write_results("calibration_cost", rows, settings=settings, packages=PACKAGES, quick=options.quick)
    console.print(f"written: {path}")


if __name__ == "__main__":
    main()
