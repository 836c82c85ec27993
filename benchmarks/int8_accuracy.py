"""What each method wins for MobileNetV2: distance from float on photographs it was not calibrated on.

::

    python examples/assets.py mobilenet pictures
    python benchmarks/int8_accuracy.py            # about ten minutes

The compressed program itself is judged, in torch: no runtime's rounding is in these numbers. SNR is that of the 1,000 logits;
agreement is the share of photographs on which the most probable class is the float model's, with its 95 % Wilson interval.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from lab.results import write_results
from rich.console import Console
from rich.table import Table

import edgekit
from edgekit import pipeline
from edgekit.core.task import Task, load_task
from edgekit.runtimes.torch import RUNTIME

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "mobilenet"
PLAIN: dict[str, Any] = {"equalization": False, "bias_correction": False, "rounding": "nearest"}
VARIANTS: dict[str, edgekit.Quantize] = {
    "int8, nothing but ranges": edgekit.Quantize(**PLAIN),
    "int8, equalization": edgekit.Quantize(**PLAIN | {"equalization": True}),
    "int8, equalization and bias correction": edgekit.Quantize(rounding="nearest"),
    "int8 (and compensated rounding)": edgekit.Quantize(),
    "int8, mse ranges": edgekit.Quantize(estimator="mse"),
    "int8-exact": edgekit.Quantize(exact=True),
    "w4a8, round to nearest": edgekit.Quantize(**PLAIN | {"weights": "int4"}),
    "w4a8": edgekit.Quantize(weights="int4"),
}
PACKAGES = ("edgekit", "torch", "numpy")


def answers(path: Path, images: np.ndarray) -> np.ndarray:
    """Logits of a saved program, one picture at a time: ``[N, 1000]``."""
    session = RUNTIME.load(path, threads=2)
    name, output = session.inputs[0].name, session.outputs[0].name
    return np.concatenate([session.run({name: image[None]})[output] for image in images])


def wilson(share: float, count: int) -> tuple[float, float]:
    """95 % Wilson interval of a share."""
    z = 1.959964
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2)) / (1 + z * z / count)
    return centre - half, centre + half


def measure(
    task: Task, images: np.ndarray, label: str, step: edgekit.Quantize, work: Path, floats: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Compress one way and compare with float, whose answers are computed once and kept in ``floats``."""
    begin, cpu = time.perf_counter(), time.process_time()
    run = work / label.replace(" ", "-")
    pipeline.compress(task, recipe=edgekit.Recipe(name=label, steps=(step,)), output=run)
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu
    if "logits" not in floats:
        floats["logits"] = answers(run / "compressed" / "float.pt2", images)
    signal, found = floats["logits"], answers(run / "compressed" / "program.pt2", images)
    agreement = float((signal.argmax(1) == found.argmax(1)).mean())
    return {
        "model": label,
        "snr_db": float(10 * np.log10((signal**2).sum() / ((signal - found) ** 2).sum())),
        "agreement": agreement,
        "agreement_interval": wilson(agreement, len(images)),
        "sample_count": len(images),
        "compress_s": seconds,
        "compress_cpu_s": cpu_seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="eight pictures: does it work?")
    parser.add_argument("--pictures", type=int, default=195, help="photographs to judge on, spread evenly")
    parser.add_argument("--variant", action="append", choices=list(VARIANTS), help="only these; may be repeated")
    arguments = parser.parse_args()
    quick = arguments.quick
    task = load_task(EXAMPLE / "task.py")
    images = np.concatenate([next(iter(batch.values())) for batch, _ in task.evaluation_batches()])
    images = images[np.linspace(0, len(images) - 1, min(len(images), 8 if quick else arguments.pictures)).astype(int)]
    with tempfile.TemporaryDirectory() as work:
        floats: dict[str, np.ndarray] = {}
        rows = []
        for label, step in ((label, VARIANTS[label]) for label in arguments.variant or VARIANTS):
            rows.append(measure(task, images, label, step, Path(work), floats))
            print(f"{label}: {rows[-1]['snr_db']:.2f} dB, {rows[-1]['agreement']:.1%}", file=sys.stderr, flush=True)
    table = Table(
        "model", "SNR dB", "agreement with float", "95 % interval", "compress, CPU s", title=f"{len(images)} photographs"
    )
    for row in rows:
        low, high = row["agreement_interval"]
        numbers = (f"{row['snr_db']:.2f}", f"{row['agreement']:.1%}", f"{low:.1%} to {high:.1%}", f"{row['compress_cpu_s']:.1f}")
        table.add_row(row["model"], *numbers)
    console = Console()
    console.print(table)
    path = write_results("int8_accuracy", rows, settings={"calibration": "64 photographs"}, packages=PACKAGES, quick=quick)
    console.print(f"written: {path}")


if __name__ == "__main__":
    main()
