"""How long from ``edgekit bench x.tflite`` to the model's first answer, and is it without torch and TensorFlow?

::

    python benchmarks/light_start.py            # a minute
    python benchmarks/light_start.py --quick    # a few processes

Every sample is a fresh ``edgekit bench`` on the same small int8 net as .tflite, .onnx and .ort: the command line, a confined
child, the runtime, the load, one inference. The time is that from the start of the process to the answer, which the command
itself reports from the system's clocks (to a hundredth of a second). What parent and child import is told by the interpreter
(``PYTHONPROFILEIMPORTTIME``).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

LIMIT_S = 0.6
HEAVY = ("torch", "tensorflow", "keras", "jax", "coremltools", "litert_torch")
FILES = ("tflite/model.tflite", "onnx/model.onnx", "onnx/model.ort")


def make_files(folder: Path) -> list[Path]:
    """The same small int8 net in each format."""
    import torch

    from edgekit import pipeline
    from edgekit.core.artifact import ExportOptions
    from edgekit.core.task import Task

    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3, 2, 1), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, 10),
    )  # fmt: skip
    images = np.random.default_rng(0).standard_normal((16, 3, 64, 64), np.float32)
    task = Task(name="light", model=net, example_inputs=images[:1], calibration=[images])
    pipeline.compress(task, recipe="int8", output=folder / "run")
    pipeline.export(folder / "run", targets=("onnx", "tflite"), options=ExportOptions(ort=True))
    return [path for name in FILES if (path := folder / "run" / "artifacts" / name).exists()]


def start(path: Path, **variables: str) -> tuple[float, str]:
    """One fresh process: seconds to the first answer, and what it wrote to stderr."""
    command = [str(Path(sys.executable).with_name("edgekit")), "bench", str(path), "--seconds", "0.01", "--json", "-v"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **variables})
    return float(json.loads(done.stdout)["bench"]["first_answer_s"]), done.stderr


def heavy_imports(path: Path) -> list[str]:
    """Those of :data:`HEAVY` that parent or child imported."""
    _, log = start(path, PYTHONPROFILEIMPORTTIME="1")
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in log.splitlines() if line.startswith("import time:")}
    if not {"numpy", "click"} <= imported:
        raise RuntimeError("the interpreter's report of its imports is missing from the log")
    return sorted(imported & set(HEAVY))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three processes of each instead of thirty")
    options = parser.parse_args()
    count = 3 if options.quick else 30

    from lab.results import write_results

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        files = make_files(Path(scratch))
        samples: dict[Path, list[float]] = {path: [] for path in files}
        for number in range(-1, count):
            for path, found in samples.items():
                seconds, _ = start(path)
                if number >= 0:
                    found.append(seconds)
        for path, found in samples.items():
            quartiles = statistics.quantiles(found, n=4)
            rows.append({
                "format": path.suffix, "size_bytes": path.stat().st_size, "sample_count": count,
                "first_answer_s": statistics.median(found), "first_answer_s_quartiles": (quartiles[0], quartiles[2]),
                "first_answer_s_range": (min(found), max(found)), "heavy_imports": heavy_imports(path),
            })  # fmt: skip
    for row in rows:
        low, high = row["first_answer_s_quartiles"]
        kept = "keeps" if row["first_answer_s"] <= LIMIT_S else "BREAKS"
        heavy = ", ".join(row["heavy_imports"]) or "no heavy framework"
        print(f"{row['format']:8} first answer after {row['first_answer_s']:.2f} s ({low:.2f} to {high:.2f}):"
              f" {kept} its limit of {LIMIT_S} s; imports {heavy}")  # fmt: skip
    settings = {"limit_s": LIMIT_S, "sample_count": count}
    packages = ("edgekit", "numpy", "onnxruntime", "ai-edge-litert", "click", "pydantic")
    print(f"written: {write_results('light_start', rows, settings=settings, packages=packages, quick=options.quick)}")


if __name__ == "__main__":
    main()
