"""Structured pruning beside Torch-Pruning's own pruner with plain fine-tuning: same net, epochs, batches, optimizer and rates.

::

    python examples/assets.py smartwatch && python examples/assets.py fashion
    python benchmarks/pruning.py            # about eight minutes on one core

The peer is ``MagnitudePruner`` with ``MagnitudeImportance(p=2)`` at its defaults, its ratio bisected until the MACs are at most
those asked for; it is fine-tuned on the task's own loss. edgekit is ``prune`` at its defaults, which add the dense net's answers
to that loss (a forward pass of the dense net a batch: the CPU seconds are in the results); ``align`` is 1, because the peer does
not align. Fashion-MNIST is fine-tuned on its first 4,000 pictures. Answers are PyTorch's, on the
whole evaluation data. No run sees it, but edgekit's defaults (each layer the same share, ``dense_weight`` 0.9) were settled with
a few runs on these two tasks in view, so read the gain as that of the defaults on tasks like these. Each tool reaches the share
of MACs by its own count, edgekit's without norms; ``macs_removed`` is Torch-Pruning's count for both.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_pruning
from lab.results import write_results
from rich.console import Console
from rich.table import Table
from torch import nn

import edgekit as ek
from edgekit.compression.training.loop import train
from edgekit.core.task import Task, load_task

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
RATIOS, SEEDS = (0.3, 0.5, 0.7), (0, 1, 2)
FASHION_COUNT = 4000
TRAININGS = {"smartwatch": ek.Training(epochs=3, learning_rate=3e-3), "fashion": ek.Training(epochs=2, learning_rate=3e-3)}
PACKAGES = ("edgekit", "torch", "torch-pruning", "numpy")


def load(name: str) -> Task:
    task = load_task(EXAMPLES / name / "task.py")
    if name != "fashion":
        return task
    load_pictures: Any = sys.modules[task.calibration.__module__]  # type: ignore[union-attr]  # the example's data.py
    pictures, classes = load_pictures.load("train")
    inputs, targets = load_pictures.normalise(pictures[:FASHION_COUNT]), classes[:FASHION_COUNT]

    def epoch() -> Iterator[Any]:
        for chosen in torch.randperm(FASHION_COUNT).split(64):
            yield inputs[chosen.numpy()], targets[chosen.numpy()]

    return dataclasses.replace(task, training=epoch)


@torch.no_grad()
def accuracy(net: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    net.eval()
    return float(torch.cat([net(inputs).argmax(1) == targets for inputs, targets in batches]).double().mean())


def macs_of(net: nn.Module, example: torch.Tensor) -> float:
    return float(torch_pruning.utils.count_ops_and_params(net, example)[0])


def peer(net: nn.Module, example: torch.Tensor, ratio: float) -> nn.Module:
    """Torch-Pruning's pruner, its channel ratio bisected until at most the asked share of the MACs is left."""
    low, high, best = 0.0, 0.95, net
    bound = (1 - ratio) * macs_of(net, example)
    for _ in range(14):
        middle, small = (low + high) / 2, copy.deepcopy(net).eval()
        last = [module for module in small.modules() if isinstance(module, nn.Linear)][-1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importance = torch_pruning.importance.MagnitudeImportance(p=2)
            torch_pruning.pruner.MagnitudePruner(
                small, example, importance=importance, pruning_ratio=middle, ignored_layers=[last]
            ).step()
        low, high, best = (low, middle, small) if macs_of(small, example) <= bound else (middle, high, best)
    return best


def compare(task: Task, ratio: float, seed: int, training: ek.Training, batches: Any) -> Iterator[dict[str, Any]]:
    """One seed: both, pruned and fine-tuned."""
    dense = task.build_model()
    example = torch.from_numpy(next(iter(task.named_inputs(task.example_inputs).values())))
    whole = macs_of(dense, example)
    for which in ("torch-pruning", "edgekit"):
        cpu = time.process_time()
        if which == "edgekit":
            step = ek.Prune(ratio=ratio, align=1, never_slower=False, training=training.with_seed(seed))
            found = ek.compress(task, recipe=ek.Recipe(name="prune", steps=(step,)), measure=False).module
        else:
            found = peer(dense, example, ratio)
            train(found, task, training.with_seed(seed))
        assert found is not None
        yield {
            "data": task.name,
            "ratio": ratio,
            "which": which,
            "seed": seed,
            "macs_removed": 1 - macs_of(found, example) / whole,
            "accuracy": accuracy(found, batches),
            "cpu_seconds": time.process_time() - cpu,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, one ratio, one epoch: does it work?")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    table = Table("data", "MACs removed", "Torch-Pruning, % (spread)", "edgekit, % (spread)", "gain, points", title="Pruning")
    dense_accuracy = {}
    for name, training in TRAININGS.items():
        task = load(name)
        batches = [
            (torch.from_numpy(next(iter(inputs.values()))), torch.from_numpy(np.asarray(targets)))
            for inputs, targets in task.evaluation_batches()
        ]
        dense_accuracy[name] = accuracy(task.build_model(), batches)
        for ratio in RATIOS[:1] if quick else RATIOS:
            for seed in SEEDS[:1] if quick else SEEDS:
                rows += compare(task, ratio, seed, training.replace(epochs=1) if quick else training, batches)
            some = [row for row in rows if row["data"] == task.name and row["ratio"] == ratio]
            found = {
                w: 100 * np.array([row["accuracy"] for row in some if row["which"] == w]) for w in ("torch-pruning", "edgekit")
            }
            texts = [f"{values.mean():.2f} ({values.min():.2f} to {values.max():.2f})" for values in found.values()]
            gain = found["edgekit"].mean() - found["torch-pruning"].mean()
            table.add_row(name, f"{ratio:.0%}", *texts, f"{gain:+.2f}")
            print(name, ratio, texts, f"{gain:+.2f}", file=sys.stderr, flush=True)
    Console().print(table)
    settings = {
        "trainings": {name: training.model_dump() for name, training in TRAININGS.items()},
        "fashion_training_pictures": FASHION_COUNT,
        "dense_accuracy": dense_accuracy,
        "threads": 1,
        "answers": "PyTorch, float32",
    }
    print(write_results("pruning", rows, settings=settings, packages=PACKAGES, quick=quick))


if __name__ == "__main__":
    main()
