"""Does a teacher help? A small student with and without one: the same first weights, batches, epochs and rates, several seeds.

::

    python examples/assets.py smartwatch fashion sentences
    python benchmarks/distillation.py            # about six minutes on one core
    python benchmarks/distillation.py --data sentiment    # only this; the other rows stay

The teachers are the examples' trained nets. Students, with and without a teacher, have less data than it had: three of seven
people's recordings, 6,000 of 60,000 pictures, 3,000 sentences. "Without" is the task's own loss alone; "with" adds soft
targets at the step's defaults (``kd``, temperature 4, half the task's loss). Accuracies are the student's in PyTorch, on people,
pictures and sentences that neither it nor its teacher has seen. The gain's intervals are at 95 %: over seeds (Student's t),
and over samples (paired bootstrap of what the seeds gained on average on each).
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lab.results import write_results
from numpy.typing import NDArray
from torch import nn

import edgekit as ek
from edgekit.compression.training.loop import train
from edgekit.core.paired import drop_interval

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
RESULTS = Path(__file__).resolve().parent / "results" / "distillation.json"
FASHION_COUNT = 6000  # the first of 60,000 training pictures
SENTENCE_COUNT = 3000  # spread evenly over the training sentences
WATCH_PEOPLE = (1, 2, 3)  # the first of seven that are trained on
SEEDS = (0, 1, 2, 3, 4, 5)
T_QUANTILES = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}  # 97.5 % of Student's t by number of seeds
PACKAGES = ("edgekit", "torch", "numpy")


def watch_student() -> nn.Module:
    """Three convolutions over the signal."""
    return nn.Sequential(
        nn.Conv1d(6, 8, 7, 2, 3, bias=False), nn.BatchNorm1d(8), nn.ReLU(),
        nn.Conv1d(8, 12, 5, 2, 2, bias=False), nn.BatchNorm1d(12), nn.ReLU(),
        nn.Conv1d(12, 16, 5, 2, 2, bias=False), nn.BatchNorm1d(16), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 7),
    )  # fmt: skip


def fashion_student() -> nn.Module:
    """Three convolutions over the picture."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10),
    )  # fmt: skip


def sentence_student() -> nn.Module:
    """The example's transformer with one layer of a quarter of the width."""
    import model  # beside the task, found once it is loaded

    return model.SentimentTransformer(width=16, heads=2, depth=1)


CASES: dict[str, tuple[Callable[[], nn.Module], ek.Training]] = {
    "smartwatch": (watch_student, ek.Training(epochs=24, learning_rate=5e-3, warmup=0.1)),
    "fashion": (fashion_student, ek.Training(epochs=12, learning_rate=1e-2, warmup=0.1)),
    "sentiment": (sentence_student, ek.Training(epochs=12, learning_rate=5e-3, warmup=0.1)),
}


def parameter_count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@torch.inference_mode()
def is_right(net: nn.Module, batches: list[tuple[Any, Any]]) -> NDArray[np.float64]:
    """1 for each sample the net recognises, else 0."""
    return np.concatenate([net(*map(torch.from_numpy, x.values())).argmax(1).numpy() == y for x, y in batches]).astype(np.float64)


def interval_over_seeds(gains: list[float]) -> tuple[float, float]:
    """95 % interval of the mean, Student's t."""
    mean, half = float(np.mean(gains)), T_QUANTILES[len(gains)] * float(np.std(gains, ddof=1)) / math.sqrt(len(gains))
    return mean - half, mean + half


def load_example(name: str) -> ek.Task:
    """An example's task; modules of another example's names are forgotten first."""
    for module in ("data", "model", "train", "training"):
        sys.modules.pop(module, None)
    return ek.load_task(EXAMPLES / name / "task.py")


def with_few_samples(task: ek.Task) -> ek.Task:
    """The task with a part of its training data, in an order and with gains that the trainer seeds."""
    import data  # beside the task, found once it is loaded

    if task.name == "smartwatch":
        signals, classes, people = data.load_windows()
        chosen = np.isin(people, WATCH_PEOPLE)
        inputs, targets, jitter = data.normalise(signals[chosen]), classes[chosen], 0.1  # as the example's train.py disturbs
    elif task.name == "sentiment":
        numbers, classes = data.split(test=False)
        rows = np.linspace(0, len(classes) - 1, SENTENCE_COUNT).astype(int)
        inputs, targets, jitter = numbers[rows], classes[rows], 0.0
    else:
        pictures, classes = data.load("train")
        inputs, targets, jitter = data.normalise(pictures[:FASHION_COUNT]), classes[:FASHION_COUNT], 0.0

    def epoch() -> Iterator[tuple[Any, Any]]:
        for rows in torch.randperm(len(targets)).split(64)[:-1]:
            x = inputs[rows]
            if jitter:
                gain, offset = jitter * torch.randn(2, *x.shape[:2], 1).numpy()
                x = x * (1 + gain) + offset
            yield x, targets[rows]

    return dataclasses.replace(task, training=epoch)


def compare(name: str, seeds: tuple[int, ...], *, epochs: int | None) -> dict[str, Any]:
    """One data set: the student with and without its teacher, for each seed."""
    task = with_few_samples(load_example(name))
    build, training = CASES[name]
    training = training if epochs is None else training.replace(epochs=epochs)
    teacher = task.build_model()
    batches = list(task.evaluation_batches())
    right: dict[str, list[NDArray[np.float64]]] = {"without": [], "with": []}
    seconds = {"without": 0.0, "with": 0.0}
    for seed in seeds:
        torch.manual_seed(seed)
        first = build()
        for which, found in right.items():
            cpu = time.process_time()
            if which == "with":
                student = ek.distill(teacher, first, task, training=training.with_seed(seed))
            else:
                student = copy.deepcopy(first)
                train(student, task, training.with_seed(seed))
            seconds[which] += time.process_time() - cpu
            found.append(is_right(student.eval(), batches))
        print(
            f"{name} seed {seed}: {100 * right['without'][-1].mean():.2f} -> {100 * right['with'][-1].mean():.2f} %", flush=True
        )
    gains = [float(a.mean() - b.mean()) for a, b in zip(right["with"], right["without"], strict=True)]
    by_sample = np.mean(right["with"], axis=0) - np.mean(right["without"], axis=0)
    low, high = interval_over_seeds(gains)
    row: dict[str, Any] = {
        "data": name,
        "teacher_parameters": parameter_count(teacher),
        "student_parameters": parameter_count(build()),
        "teacher_accuracy": float(is_right(teacher, batches).mean()),
        "samples": len(by_sample),
        "epochs": training.epochs,
        "learning_rate": training.learning_rate,
        "without": [float(found.mean()) for found in right["without"]],
        "with": [float(found.mean()) for found in right["with"]],
        "gain": float(np.mean(gains)),
        "gain_interval_over_seeds": (low, high),
        "gain_interval_over_samples": drop_interval(by_sample),
        "cpu_seconds": seconds,
    }
    print(f"{name}: gain {100 * row['gain']:+.2f} points [{100 * low:+.2f}, {100 * high:+.2f}]", flush=True)
    return row


def main() -> None:
    """Train, compare, write ``results/distillation.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two seeds, one epoch: does it run?")
    parser.add_argument("--data", choices=CASES, action="append", help="only this (may be repeated); the other rows stay")
    chosen = parser.parse_args()
    quick = chosen.quick
    torch.set_num_threads(1)
    seeds = SEEDS[:2] if quick else SEEDS
    names = chosen.data or list(CASES)
    rows = [compare(name, seeds, epochs=1 if quick else None) for name in names]
    if RESULTS.is_file() and not quick:
        rows = [row for row in json.loads(RESULTS.read_text(encoding="utf-8"))["rows"] if row["data"] not in names] + rows
    settings = {
        "seeds": seeds,
        "losses": "kd, temperature 4",
        "task_weight": 0.5,
        "smartwatch_people": WATCH_PEOPLE,
        "fashion_training_pictures": FASHION_COUNT,
        "training_sentences": SENTENCE_COUNT,
        "threads": 1,
        "answers": "PyTorch, float32",
    }
    print(write_results("distillation", rows, settings=settings, packages=PACKAGES, quick=quick))


if __name__ == "__main__":
    main()
