"""Do all executors compute the same bits with ``int8-exact``, how far apart are they with ``int8``, and what does it cost?

::

    python examples/assets.py --all
    python benchmarks/exactness.py                                  # all fixtures, at least 100,000 outputs each
    python benchmarks/exactness.py --fixture smartwatch --quick

Expected answers are those of the compressed program in torch. Each executor gets the same samples, one at a time. The price is
the metric of the answers of ONNX Runtime on real evaluation data, paired with the float program's.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.exactness import Floats, Samples, answers, differences, gather, load_example, make_run, output_size
from lab.results import RESULTS, write_results
from rich.console import Console
from rich.table import Table

from edgekit import pipeline
from edgekit.core.run import RunFolder
from edgekit.core.task import Task
from edgekit.device_tests.scoring import score

FIXTURES = ("smartwatch", "residual", "fashion", "mobilenet", "resnet18")
RECIPES = {"int8-exact": 1.0, "int8": 0.2}
"""Recipe -> share of the outputs that are compared: where some differ anyway, fewer tell how many."""

TARGETS = ("onnx", "tflite", "coreml")
PACKAGES = ("edgekit", "torch", "onnxruntime", "ai-edge-litert", "coremltools", "numpy")
OUTPUTS = 100_000
LIMIT_S = 600.0

EXECUTORS: dict[str, tuple[str, int, Mapping[str, Any]]] = {
    "ONNX Runtime": ("onnxruntime", 1, {}),
    "ONNX Runtime, no graph optimisation": ("onnxruntime", 1, {"optimization": "none"}),
    "LiteRT XNNPACK, 1 thread": ("litert", 1, {}),
    "LiteRT XNNPACK, 2 threads": ("litert", 2, {}),
    "LiteRT built-in kernels": ("litert", 1, {"provider": "builtin"}),
    "Core ML reference": ("coreml-reference", 1, {}),
}
"""Executor -> runtime, threads, its options."""

_TARGET_OF = {"onnxruntime": "onnx", "litert": "tflite", "coreml-reference": "coreml"}

Row = dict[str, Any]


def measure(task: Task, recipe: str, *, outputs: int, limit_s: float, work: Path) -> list[Row]:
    """All executors of one recipe: a row each, and a row of the price."""
    run = make_run(task, recipe, targets=TARGETS, work=work)
    sample_count = math.ceil(RECIPES[recipe] * outputs / output_size(run))
    samples = gather(task, sample_count=sample_count)
    compared = samples.inputs[:sample_count]
    report = pipeline.check_exactness(run.path)
    files = {artifact.target: artifact.path for artifact in run.load_artifacts()}
    expected = answers("torch", run.compressed / "program.pt2", compared, limit_s=limit_s)
    common = {
        "fixture": task.name,
        "recipe": recipe,
        "real_samples": min(samples.real_count, sample_count),
        "limit_s": limit_s,
        "checker": "exact" if report.is_exact else [f"{kernel.layer}: {kernel.reason}" for kernel in report.inexact],
    }
    rows = list[Row]()
    for executor, (runtime, threads, options) in EXECUTORS.items():
        file, given = files[_TARGET_OF[runtime]], compared[: len(expected)]
        found = answers(runtime, file, given, limit_s=limit_s, threads=threads, options=options)
        rows.append({**common, "executor": executor, **differences(found, expected)})
    found = answers("onnxruntime", files["onnx"], samples.inputs[: samples.real_count], limit_s=limit_s)
    return [*rows, {**common, "executor": "price", **price(task, run, samples, found, limit_s=limit_s)}]


def price(task: Task, run: RunFolder, samples: Samples, found: Floats, *, limit_s: float) -> Row:
    """The metric on real samples, paired with the float program."""
    floats = answers("torch", run.compressed / "float.pt2", samples.inputs[: samples.real_count], limit_s=limit_s)
    count = min(len(floats), len(found), samples.real_count)
    targets = None if samples.targets is None else samples.targets[:count]
    result = score(task.metric, {"output": found[:count]}, float_outputs={"output": floats[:count]}, targets=targets)
    return {
        "metric": result.name,
        "value": result.value,
        "float_value": result.float_value,
        "drop_points": result.drop_points,
        "drop_interval": result.drop_interval,
        "sample_count": count,
    }


def other_rows(fixture: str, *, quick: bool) -> list[Row]:
    """What earlier calls wrote of the other fixtures: they take minutes each, and can be measured apart."""
    path = RESULTS / f"exactness{'-quick' if quick else ''}.json"
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    return [row for row in rows if row["fixture"] != fixture]


def show(console: Console, rows: list[Row]) -> None:
    table = Table("fixture", "recipe", "executor", "outputs", "values differ", "bits differ", "predictions differ")
    for row in rows:
        names = (row["fixture"], row["recipe"], row["executor"])
        if "metric" in row:
            text = f"{row['value']:.2%}, float {row['float_value']:.2%}"
            table.add_row(*names, f"{row['sample_count']:,} samples", text, row["metric"], "")
            continue
        numbers = (row["differing_values"], row["differing_bits"])
        predictions = f"{row['differing_predictions']:,} of {row['sample_count']:,}"
        table.add_row(*names, f"{row['output_count']:,}", *(f"{number:,}" for number in numbers), predictions)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a hundredth of the outputs: does it work?")
    parser.add_argument("--fixture", action="append", choices=FIXTURES, help="only these; may be repeated")
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="seconds an executor may take; then fewer outputs count")
    parser.add_argument("--work", type=Path, help="folder that keeps the runs  [default: a temporary one]")
    arguments = parser.parse_args()
    outputs = OUTPUTS // 100 if arguments.quick else OUTPUTS
    console = Console(width=150)
    settings = {"outputs": outputs, "expected": "the compressed program in torch"}
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.fixture or FIXTURES:
            task, own = load_example(name), list[Row]()
            for recipe in RECIPES:
                own += measure(task, recipe, outputs=outputs, limit_s=arguments.limit_s, work=arguments.work or Path(temporary))
                rows = [*other_rows(name, quick=arguments.quick), *own]
                path = write_results("exactness", rows, settings=settings, packages=PACKAGES, quick=arguments.quick)
            show(console, own)
    console.print(f"written: {path}")


if __name__ == "__main__":
    main()
