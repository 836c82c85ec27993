"""4-bit weights beside 8-bit activations on the convolutional examples: how much of what round-to-nearest loses comes back?

::

    python examples/assets.py --all
    python benchmarks/four_bits.py            # about five minutes

The compressed program is judged by the task's metric on the whole evaluation set; recovered is
``(w4a8 - nearest) / (float - nearest)``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from lab.results import write_results
from rich.console import Console
from rich.table import Table

import edgekit
from edgekit.core.evaluation import gather_evaluation, pair_scores
from edgekit.core.program import answer_samples
from edgekit.core.task import load_task

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
FIXTURES = ("smartwatch", "fashion", "residual")
NEAREST = edgekit.Quantize(weights="int4", rounding="nearest", equalization=False, bias_correction=False)
DEFAULT = edgekit.Quantize(weights="int4")
PACKAGES = ("edgekit", "torch", "numpy")


def judge(name: str, label: str, step: edgekit.Quantize, *, limit: int | None) -> dict[str, Any]:
    """Compress one way; mean scores of the float and the compressed program."""
    task = load_task(EXAMPLES / name / "task.py")
    task.build_model()  # trains once where no weights are stored yet: not part of the time
    cpu = time.process_time()
    compressed = edgekit.compress(task, recipe=edgekit.Recipe(name=label, steps=(step,)))
    cpu = time.process_time() - cpu
    evaluation = gather_evaluation(task)
    if evaluation is None:
        raise SystemExit(f"{name}: the task has no evaluation data")
    inputs = {key: value[:limit, None] for key, value in evaluation.inputs.items()}
    names = [spec.name for spec in compressed.record.outputs]
    found, floats = (
        {key: value[:, 0] for key, value in answer_samples(program, inputs, names).items()}
        for program in (compressed.program, compressed.float_program)
    )
    targets = None if evaluation.targets is None else evaluation.targets[:limit]
    ours, theirs = pair_scores(task.metric, found, float_outputs=floats, targets=targets)
    return {
        "fixture": name,
        "model": label,
        "score": float(np.mean(ours)),
        "float_score": float(np.mean(theirs)),
        "sample_count": len(ours),
        "compress_cpu_s": cpu,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="50 samples: does it work?")
    quick = parser.parse_args().quick
    rows: list[dict[str, Any]] = []
    table = Table("fixture", "float", "nearest", "w4a8", "recovered", "compress, CPU s", title="4-bit weights")
    for name in FIXTURES:
        nearest = judge(name, "w4a8, round to nearest", NEAREST, limit=50 if quick else None)
        ours = judge(name, "w4a8", DEFAULT, limit=50 if quick else None)
        lost = nearest["float_score"] - nearest["score"]
        ours["recovered"] = (ours["score"] - nearest["score"]) / lost if lost > 0 else None
        rows += [nearest, ours]
        numbers = [f"{value:.2%}" for value in (ours["float_score"], nearest["score"], ours["score"])]
        recovered = "–" if ours["recovered"] is None else f"{ours['recovered']:.0%}"
        table.add_row(name, *numbers, recovered, f"{ours['compress_cpu_s']:.1f}")
    console = Console()
    console.print(table)
    console.print(f"written: {write_results('four_bits', rows, settings={}, packages=PACKAGES, quick=quick)}")


if __name__ == "__main__":
    main()
