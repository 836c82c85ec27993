"""Does bisection name the layer with the fault? Faults planted by chance into real files of three formats, float and int8.

::

    python examples/assets.py smartwatch fashion
    python benchmarks/bisection.py          # about five minutes on one core

Each file of two nets (smartwatch, fashion; recipes int8 and float) gets faults of every kind in ``lab/faults.py``,
at places drawn by chance. A fault counts only if it shows: a tensor on a grid differs by more than one step, or one of a float
file by more than a thousandth of its largest value; others are drawn again. Two questions are asked of each file: which layer
does bisection name first when it has nothing but the file and the program (``alone``: a converter's own bug), and when the
file as it was exported lies beside it (``beside``: ``edgekit bisect --file``). The right answers are the layers whose operators
the file computes in the tensor that was altered: with a convolution, its normalisation and its activation fused there are three.
The unaltered files are asked the same, with both sets of kernels: every layer named there is a false alarm.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lab.faults import KINDS, Fault, plant
from lab.results import write_results
from rich.console import Console
from rich.table import Table

import edgekit as ek
from edgekit.core.artifact import Artifact
from edgekit.core.compressed import Compressed
from edgekit.core.task import load_task
from edgekit.device_tests.bisection.examine import Examination, examine, report
from edgekit.device_tests.bisection.program import module_path
from edgekit.device_tests.bisection.search import group_of

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NETS = {"smartwatch": 2, "fashion": 2}
"""Net -> faults of each kind in each of its files."""
RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert", "coreml": "coreml-reference"}
PACKAGES = ("edgekit", "torch", "onnx", "onnxruntime", "litert-torch", "ai-edge-litert", "coremltools", "numpy")
SAMPLES, DRAWS = 2, 40


def make_runs(folder: Path, nets: Iterable[str]) -> Iterator[tuple[str, Path]]:
    for net in nets:
        run = folder / net
        if not run.exists():
            ek.compress(load_task(EXAMPLES / net / "task.py"), recipe="int8", output=run)
            ek.export(run, targets=tuple(RUNTIMES))
        yield net, run


def layers_by_tensor(exported: Examination) -> dict[str, set[str]]:
    """The layers whose operators a tensor is the result of; for a copy of a tensor, those that read it too."""
    found: dict[str, set[str]] = {}
    twins = set()
    for node, placed in exported.walk.placed.items():
        layers = {module_path(one) for one in group_of(node, exported.walk)[0]}
        twins |= set(placed.twins)
        for tensor in (placed.candidate.tensor, *placed.twins):
            found.setdefault(tensor, set()).update(layers)
    producers = {name: operation for operation in exported.file.operations for name in operation.writes}
    for node, placed in exported.walk.placed.items():
        for tensor in twins.intersection(getattr(producers.get(placed.candidate.tensor), "reads", ())):
            found.setdefault(tensor, set()).add(module_path(node))
    return found


def shows(altered: Examination, exported: Examination) -> bool:
    for name in exported.file.values:
        one, other = (side.file.real(name).astype(np.float64) for side in (altered, exported))
        if exported.file.grids:
            if name in exported.file.grids and np.abs(one - other).max(initial=0.0) > 1.01 * exported.file.grids[name][0]:
                return True
        elif np.abs(one - other).max(initial=0.0) > 1e-3 * np.abs(other).max(initial=0.0):
            return True
    return False


def ask(compressed: Compressed, artifact: Artifact, path: Path, **options: Any) -> Examination:
    return examine(compressed, artifact, path, runtime=RUNTIMES[artifact.target], sample_count=SAMPLES, **options)


def one_fault(
    compressed: Compressed, artifact: Artifact, exported: Examination, kind: str, rng: np.random.Generator
) -> tuple[Fault, dict[str, Any]] | None:
    """Plant a fault that shows, and ask for it; None where this file has no place for one."""
    layers = layers_by_tensor(exported)
    for _ in range(DRAWS):
        with tempfile.TemporaryDirectory() as scratch:
            fault = plant(artifact.path, Path(scratch, "altered"), target=artifact.target, kind=kind, rng=rng)
            if fault is None:
                return None
            clock = time.process_time()
            alone = ask(compressed, artifact, fault.path)
            seconds = time.process_time() - clock
            if fault.tensor not in layers or not shows(alone, exported):
                continue
            named = {"alone": alone, "beside": ask(compressed, artifact, fault.path, known=exported)}
            row: dict[str, Any] = {"fault": fault.what, "layers": sorted(layers[fault.tensor]), "alone_cpu_s": round(seconds, 2)}
            for mode, found in named.items():
                first = report(found, run="", original=exported.file, reproductions={}).first
                row |= {f"{mode}_named": first.layer if first else None, f"{mode}_op": first.op if first else None}
                row[f"{mode}_right"] = first is not None and first.layer in layers[fault.tensor]
            return fault, row
    return None


def false_alarms(compressed: Compressed, artifact: Artifact) -> int:
    return sum(
        bool(ask(compressed, artifact, artifact.path, kernels=kernels).found.suspects) for kernels in ("reference", "shipped")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smartwatch only, one fault of each kind in each file")
    parser.add_argument("--runs", type=Path, help="folder of runs to use, or to make")
    options = parser.parse_args()
    torch.set_num_threads(1)
    nets = {"smartwatch": 1} if options.quick else NETS
    rng, rows, alarms, files = np.random.default_rng(0), list[dict[str, Any]](), 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        for net, run in make_runs(options.runs or Path(scratch), nets):
            compressed = Compressed.load(run / "compressed")
            for folder in sorted((run / "artifacts").iterdir()):
                artifact = Artifact.load(folder)
                alarms, files = alarms + false_alarms(compressed, artifact), files + 2
                exported = ask(compressed, artifact, artifact.path)
                for kind in KINDS:
                    for _ in range(nets[net]):
                        found = one_fault(compressed, artifact, exported, kind, rng)
                        if found is None:
                            break
                        rows.append({"net": net, "target": artifact.target, "artifact": artifact.label, "kind": kind, **found[1]})
                        print(rows[-1], flush=True)
            settings = {"samples": SAMPLES, "nets": nets, "unaltered": files, "false_alarms": alarms, "totals": totals(rows)}
            path = write_results("bisection", rows, settings=settings, packages=PACKAGES, quick=options.quick)
    show(rows, alarms, files, path)


def totals(rows: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    return {
        target: {
            "faults": sum(row["target"] == target for row in rows),
            "alone": sum(row["target"] == target and row["alone_right"] for row in rows),
            "beside": sum(row["target"] == target and row["beside_right"] for row in rows),
        }
        for target in RUNTIMES
    }


def show(rows: list[dict[str, Any]], alarms: int, files: int, path: Path) -> None:
    table = Table("format", "faults", "right layer, file alone", "right layer, exported file beside it")
    for target, counts in totals(rows).items():
        table.add_row(target, *(str(counts[name]) for name in ("faults", "alone", "beside")))
    console = Console()
    console.print(table)
    console.print(f"False alarms: {alarms} in {files} unaltered files. Written to {path}")


if __name__ == "__main__":
    main()
