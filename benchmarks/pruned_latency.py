"""Latency of pruned nets in ONNX Runtime: channel counts its kernels like against channel counts as they fall.

::

    python benchmarks/pruned_latency.py            # about 15 minutes; only a quiet machine gives wall times worth keeping
    python benchmarks/pruned_latency.py --quick    # few rounds: does it work?

ResNet18 (random weights) and MobileNetV2 (published weights) at 224 × 224, one thread. Every layer loses the same share of its
channels, the smallest by L2 norm; nothing is trained, for only speed is asked. All files of a net run in one process in turn.
*ideal* is the ratio of multiply-accumulates, *realised* the speed-up over the dense file of the same precision.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_pruning
from lab.results import write_results
from lab.turns import take_turns
from torch import nn

import edgekit
from edgekit.core.program_cost import count_macs
from edgekit.core.recipe import Prune, Quantize, Recipe, Step

HERE = Path(__file__).resolve().parent
PACKAGES = ("edgekit", "torch", "torch-pruning", "onnxruntime", "numpy")
INT8 = Quantize(rounding="nearest", equalization=False, bias_correction=False, sample_count=8)
"""Which integers a weight becomes is nothing to a kernel: the quick plan, few samples."""
RATIOS = {"resnet18": (0.3, 0.5), "mobilenet": (0.3,)}
GOALS = {"resnet18 30 %": 6.0, "resnet18 50 %": 8.0, "realised": 0.9}
DENSE = "dense float"


def unaligned(dense: nn.Module, ratio: float) -> nn.Module:
    """Torch-Pruning's magnitude pruner as its documentation shows it: the same share of every layer, counts as they fall."""
    model = copy.deepcopy(dense)
    [*_, last] = [module for module in model.modules() if isinstance(module, nn.Linear)]
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    pruner = torch_pruning.pruner.MagnitudePruner(
        model, torch.zeros(1, 3, 224, 224), importance=importance, pruning_ratio=ratio, ignored_layers=[last]
    )
    pruner.step()
    return model.eval()


def programs(task: edgekit.Task, ratios: Sequence[float]) -> dict[str, tuple[edgekit.Compressed, dict[str, Any]]]:
    """Every program by label, with what its row says of it."""
    dense = task.build_model()
    plans: list[tuple[str, float, edgekit.Task, tuple[Step, ...]]] = [("dense", 0.0, task, ())]
    for ratio in ratios:
        step = Prune(ratio=ratio, goal="channels", scope="layer", recover=False, never_slower=False)
        plans.append((f"edgekit {ratio:.0%}", ratio, task, (step,)))
        peer = dataclasses.replace(task, model=unaligned(dense, ratio), source=None)
        plans.append((f"torch-pruning {ratio:.0%}", ratio, peer, ()))
    found = {}
    for label, ratio, source, steps in plans:
        # Unaligned int8 is the peer's own: see quantize_static.
        for word, more in (("float", ()), ("int8", (INT8,)))[: 1 if label.startswith("torch") else 2]:
            state = edgekit.compress(source, recipe=Recipe(name=word, steps=(*steps, *more)), measure=False)
            program = state.source_program or state.float_program if more else state.program
            row = {"tool": label.rpartition(" ")[0] or label, "ratio": ratio, "precision": word, "macs": count_macs(program)}
            found[f"{label} {word}"] = (state, row)
            print(f"  {label} {word}: {row['macs'] / 1e6:.0f} million MACs", flush=True)
    return found


def quantize_static(model: Path, task: edgekit.Task, output: Path) -> Path:
    """ONNX Runtime's own static quantization of a float file, unsigned activations: the fast choice on x86."""
    images = np.concatenate([next(iter(batch.values())) for batch in task.calibration_batches()])[: INT8.sample_count]
    np.save(output.with_suffix(".npy"), images)
    command = [str(HERE / "lab" / "peers.py"), "onnxruntime-u8", str(model), str(output.with_suffix(".npy")), str(output)]
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return output


def measure(name: str, work: Path, *, budget_s: float, process_count: int) -> list[dict[str, Any]]:
    """Rows of one net."""
    task = edgekit.load_task(HERE.parent / "examples" / name / "task.py")
    found = programs(task, RATIOS[name])
    files, facts = {}, {}
    for at, (label, (state, row)) in enumerate(found.items()):
        [artifact] = edgekit.export(state, targets=["onnx"], float_baseline=False, output=work / f"{at}")
        files[label], facts[label] = artifact.path, row
        if row["tool"] == "torch-pruning" and row["precision"] == "float":
            peer = label.replace("float", "quantize_static")
            files[peer] = quantize_static(artifact.path, task, work / f"{at}-static.onnx")
            facts[peer] = row | {"tool": "torch-pruning, quantize_static", "precision": "int8"}
    timed = take_turns(files, baseline=DENSE, runtime="onnxruntime", work=work, budget_s=budget_s, process_count=process_count)
    rows = [{"net": name} | facts[row["model"]] | row for row in timed]
    dense = {row["precision"]: row for row in rows if row["tool"] == "dense"}
    for row in rows:
        own = dense[row["precision"]]
        row["ideal"] = own["macs"] / row["macs"]
        for clock in ("cpu", "wall"):
            row[f"{clock}_realised"] = row[f"{clock}_speedup"] / own[f"{clock}_speedup"] / row["ideal"]
    return rows


def findings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The goals, by CPU time."""
    said = []
    for row in rows:
        if row["tool"] != "edgekit":
            continue
        goal = GOALS.get(f"{row['net']} {row['ratio']:.0%}".replace("%", " %"), 1.0) if row["precision"] == "int8" else 1.0
        if row["net"] == "mobilenet":
            verdict = "met" if row["cpu_realised"] >= GOALS["realised"] else "MISSED"
            said.append(f"{row['model']}: realised/ideal {row['cpu_realised']:.2f} (goal {GOALS['realised']}: {verdict})")
        verdict = "met" if row["cpu_speedup"] >= goal else "MISSED"
        said.append(f"{row['net']}, {row['model']}: {row['cpu_speedup']:.2f}x over dense float (goal {goal:g}x: {verdict})")
    return said


def main() -> None:
    """Prune, convert, time, write ``results/pruned_latency.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--net", action="append", choices=sorted(RATIOS), help="only this net (may be repeated)")
    options = parser.parse_args()
    budget_s, process_count = (10.0, 1) if options.quick else (120.0, 4)
    rows: list[dict[str, Any]] = []
    load = os.getloadavg()
    for name in options.net or RATIOS:
        print(f"{name}:", flush=True)
        with tempfile.TemporaryDirectory(prefix="edgekit-benchmark-") as folder:
            rows += measure(name, Path(folder), budget_s=budget_s, process_count=process_count)
    for row in rows:
        print(
            f"{row['net']:10} {row['model']:36} {row['size_bytes'] / 1e6:6.2f} MB"
            f"  wall {row['wall_ms']:7.2f} ms  CPU {row['cpu_ms']:7.2f} ms"
            f"  {row['cpu_speedup']:5.2f}x  ideal {row['ideal']:.2f}  realised/ideal {row['cpu_realised']:.2f}"
        )
    print(*findings(rows), sep="\n")
    settings = {
        "threads": 1, "budget_s": budget_s, "process_count": process_count, "sample_count": INT8.sample_count,
        "load_before": load, "load_after": os.getloadavg(), "goals": GOALS, "findings": findings(rows),
    }  # fmt: skip
    print(write_results("pruned_latency", rows, settings=settings, packages=PACKAGES, quick=options.quick))


if __name__ == "__main__":
    main()
