"""Half the multiplications, taught by the dense net, int8: how much accuracy is kept in every runtime, and how small is the file?

::

    python examples/assets.py smartwatch fashion
    python benchmarks/shrink.py            # about ten minutes on one core
    python benchmarks/shrink.py --quick    # one short epoch: does it run?

Every answer is the exported file's own, one sample at a time, on all evaluation samples; Core ML's is the reference
interpreter's, on the first 2,000. Changes are paired with the dense float file of the same target. Whatever a run has done
already is not done again where ``--keep`` names a folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lab.results import write_results

import edgekit
from edgekit import registry
from edgekit.core.compressed import read_record
from edgekit.core.paired import drop_interval
from edgekit.core.recipe import Distill, Prune, Quantize, Recipe, Training
from edgekit.core.run import RunFolder

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert", "coreml": "coreml-reference"}
TRAINING = {
    "smartwatch": Training(),
    "fashion": Training(epochs=12, learning_rate=1e-2),
}
SAMPLE_LIMIT = {"coreml": 2000}
MOST_DROP_POINTS, LEAST_SHRINK = 0.5, 5.0
PACKAGES = ("edgekit", "torch", "torch-pruning", "accelerate", "onnxruntime", "ai-edge-litert", "coremltools", "numpy")


def plan(name: str, ratio: float, *, quick: bool) -> Recipe:
    """Prune, let the dense net teach what is left, quantize."""
    training = TRAINING[name].replace(epochs=1) if quick else TRAINING[name]
    steps = (Prune(ratio=ratio, recover=False), Distill(training=training), Quantize())
    return Recipe(name=f"prune{100 * ratio:g}+distill+int8", steps=steps)


def shortened(task: edgekit.Task, batch_count: int) -> edgekit.Task:
    """The task with the first batches of an epoch and of the evaluation data only."""

    def first(batches: Any) -> Any:
        def some() -> Iterator[Any]:
            yield from itertools.islice(batches(), batch_count)

        return some

    return dataclasses.replace(task, training=first(task.training), evaluation=first(task.evaluation))


def scores(artifact: edgekit.Artifact, task: edgekit.Task) -> np.ndarray:
    """1 for each evaluation sample the artifact's own runtime recognises, ``[N]``."""
    session = registry.runtime(RUNTIMES[artifact.target]).load(artifact.path)
    [spec], [output] = session.inputs, session.outputs
    right: list[float] = []
    limit = SAMPLE_LIMIT.get(artifact.target, 1 << 30)
    for inputs, targets in task.evaluation_batches():
        [values] = inputs.values()
        for value, target in zip(values, np.asarray(targets), strict=True):
            right.append(float(session.run({spec.name: value[None]})[output.name].argmax() == target))
        if len(right) >= limit:
            break
    return np.array(right[:limit])


def measure(name: str, ratio: float, folder: Path, *, quick: bool) -> list[dict[str, Any]]:
    """A row for each target."""
    task = edgekit.load_task(EXAMPLES / name / "task.py")
    task = shortened(task, 4) if quick else task
    run = RunFolder(folder / f"{name}-{100 * ratio:g}")
    cpu = time.process_time()
    if not run.manifest_path.is_file():
        edgekit.compress(task, recipe=plan(name, ratio, quick=quick), output=run.path, measure=True, target="onnx")
    cpu = time.process_time() - cpu
    stages = [step.stage for step in read_record(run.compressed).history if step.stage]
    artifacts = {made.label: made for made in edgekit.export(run.path, targets=list(RUNTIMES))}
    rows = []
    for target in RUNTIMES:
        small, dense = artifacts[target], artifacts[f"{target}-float32"]
        ours, theirs = scores(small, task), scores(dense, task)
        low, high = drop_interval(theirs - ours)
        rows.append(
            {
                "data": name,
                "recipe": f"prune{100 * ratio:g}+distill+int8",
                "target": target,
                "dense_accuracy": float(theirs.mean()),
                "accuracy": float(ours.mean()),
                "change_points": 100 * float((ours - theirs).mean()),
                "change_interval_points": [-100 * high, -100 * low],
                "sample_count": len(ours),
                "dense_size_bytes": dense.size_bytes,
                "size_bytes": small.size_bytes,
                "shrink": dense.size_bytes / small.size_bytes,
                "dense_macs": stages[0].macs,
                "macs": stages[-1].macs,
                "dense_parameter_count": stages[0].parameter_count,
                "parameter_count": stages[-1].parameter_count,
                "compress_cpu_seconds": cpu,
                "stages": [stage.model_dump(mode="json") for stage in stages] if target == "onnx" else [],
            }
        )
        print(sentence(rows[-1]), flush=True)
    return rows


def sentence(row: Mapping[str, Any]) -> str:
    """One row in words, and whether it is what was promised."""
    low, high = row["change_interval_points"]
    kept = "kept" if row["change_points"] >= -MOST_DROP_POINTS else "MISSED"
    small = "met" if row["shrink"] >= LEAST_SHRINK else "MISSED"
    return (
        f"{row['data']:10} {row['recipe']:20} {row['target']:7}"
        f" {100 * row['dense_accuracy']:.2f} -> {100 * row['accuracy']:.2f} %"
        f" ({row['change_points']:+.2f} points, {low:+.2f} to {high:+.2f}: {kept}),"
        f" {row['dense_size_bytes'] / 1e3:.1f} -> {row['size_bytes'] / 1e3:.1f} kB ({row['shrink']:.2f}x: {small}),"
        f" MACs -{1 - row['macs'] / row['dense_macs']:.0%}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Compress, export, run, write ``results/shrink.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short epoch")
    parser.add_argument("--data", action="append", choices=sorted(TRAINING), help="only this (may be repeated)")
    parser.add_argument("--ratio", action="append", type=float, help="other pruning ratios than 0.5 (may be repeated)")
    parser.add_argument("--keep", type=Path, help="folder of the runs")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="edgekit-benchmark-") as scratch:
        for name, ratio in itertools.product(options.data or TRAINING, options.ratio or (0.5,)):
            rows += measure(name, ratio, options.keep or Path(scratch), quick=options.quick)
    settings = {
        "training": {name: training.model_dump(mode="json") for name, training in TRAINING.items()},
        "goals": {"most_drop_points": MOST_DROP_POINTS, "least_shrink": LEAST_SHRINK},
    }
    print(write_results("shrink", rows, settings=settings, packages=PACKAGES, quick=options.quick))


if __name__ == "__main__":
    main()
