"""What does a step of the distillation trainer cost beside the arithmetic it cannot do without?

::

    python benchmarks/training_step.py         # about five minutes on one core

The parts: the student's forward and backward pass, and the teacher's forward pass, in a bare loop. The trainer: everything
from receiving a batch to asking for the next one (checks, conversion, losses, gradient clipping, AdamW,
progress). Both work on the same batches, in turn, step by step, so that what disturbs the machine disturbs both.
CPU time and wall time are medians over the steps; the spread of the ratio is a 95 % interval from resampling pairs of steps.
Memory is the largest resident set of a process that does only the one or only the other.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lab.results import write_results
from torch import nn

from edgekit.compression.distill.logits import KD
from edgekit.compression.distill.objective import DistillationObjective
from edgekit.compression.training.loop import train
from edgekit.core.task import Task
from edgekit.core.training import Training

PACKAGES = ("edgekit", "torch", "accelerate", "numpy")


def separable(channels_in: int, channels_out: int, *, stride: int = 1, dims: int = 2) -> nn.Sequential:
    """Depthwise and pointwise convolution, as MobileNets have them."""
    conv, norm = (nn.Conv1d, nn.BatchNorm1d) if dims == 1 else (nn.Conv2d, nn.BatchNorm2d)
    return nn.Sequential(
        conv(channels_in, channels_in, 3, stride, 1, groups=channels_in, bias=False), norm(channels_in), nn.ReLU(),
        conv(channels_in, channels_out, 1, bias=False), norm(channels_out), nn.ReLU(),
    )  # fmt: skip


class Inverted(nn.Module):
    """Inverted residual of MobileNetV2."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        wide = 6 * channels_in
        self.conv = nn.Sequential(
            nn.Conv2d(channels_in, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
            nn.Conv2d(wide, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out),
        )  # fmt: skip
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[N, C, H, W]`` -> ``[N, C', H / stride, W / stride]``."""
        return x + self.conv(x) if self.residual else self.conv(x)


def motion_net(width: int) -> nn.Module:
    """Four seconds of motion, ``[N, 6, 200]``."""
    return nn.Sequential(
        nn.Conv1d(6, width, 7, 2, 3, bias=False), nn.BatchNorm1d(width), nn.ReLU(),
        separable(width, 2 * width, stride=2, dims=1), separable(2 * width, 2 * width, dims=1),
        separable(2 * width, 2 * width, stride=2, dims=1), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(2 * width, 7),
    )  # fmt: skip


def fashion_net(width: int) -> nn.Module:
    """Grey pictures, ``[N, 1, 28, 28]``."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        separable(width, width), separable(width, 2 * width, stride=2), separable(2 * width, 2 * width),
        separable(2 * width, 4 * width), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10),
    )  # fmt: skip


def mobile_net(width: int) -> nn.Module:
    """MobileNetV2's stages at half their depth, ``[N, 3, 96, 96]``."""
    stages = ((1, 1, 1), (1, 2, 2), (2, 2, 1), (2, 3, 2), (3, 3, 1), (3, 5, 2), (5, 5, 1))
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU6(),
        *(Inverted(a * width, b * width, stride) for a, b, stride in stages),
        nn.Conv2d(5 * width, 20 * width, 1, bias=False), nn.BatchNorm2d(20 * width), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20 * width, 100),
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    """Student, teacher, the shape of a batch, and how many steps are measured."""

    net: Callable[[int], nn.Module]
    student: int
    teacher: int
    batch: tuple[int, ...]
    classes: int
    steps: int


CASES = {
    "motion": Case(motion_net, 32, 64, (64, 6, 200), 7, 200),
    "fashion": Case(fashion_net, 24, 48, (64, 1, 28, 28), 10, 80),
    "mobilenet": Case(mobile_net, 16, 32, (8, 3, 96, 96), 100, 30),
}


class Parts:
    """The bare loop: no losses but the student's own, no optimizer."""

    def __init__(self, case: Case) -> None:
        self.student, self.teacher = case.net(case.student).train(), case.net(case.teacher).eval()

    def step(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Forward of the teacher, forward and backward of the student: in this order memory is reused best."""
        with torch.no_grad():
            self.teacher(inputs)
        nn.functional.cross_entropy(self.student(inputs), targets).backward()
        for parameter in self.student.parameters():
            parameter.grad = None


class Clock:
    """Wall and CPU time of what happens between two calls."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float]] = []
        self.begin()

    def begin(self) -> None:
        """Now."""
        self.at = time.perf_counter(), time.process_time()

    def end(self) -> None:
        """Keep what passed since."""
        self.rows.append((time.perf_counter() - self.at[0], time.process_time() - self.at[1]))


def distil(case: Case, *, steps: int, beside: Parts | None) -> tuple[np.ndarray, np.ndarray]:
    """Train ``steps`` steps, and time each; the parts in turn with them. ``[steps, 2]`` seconds each: wall, CPU."""
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal(case.batch).astype(np.float32)
    targets = generator.integers(0, case.classes, case.batch[0])
    trainer, parts = Clock(), Clock()

    def batches() -> Iterator[Any]:
        for at in range(steps):
            if beside is not None and at % 2:
                time_parts()
            trainer.begin()
            yield inputs, targets
            trainer.end()
            if beside is not None and not at % 2:
                time_parts()

    def time_parts() -> None:
        parts.begin()
        if beside is not None:
            beside.step(torch.from_numpy(inputs), torch.from_numpy(targets))
        parts.end()

    student = case.net(case.student)
    task = Task(name="step", model=student, example_inputs=inputs[:2], training=Sized(batches, steps))
    objective = DistillationObjective(student, [case.net(case.teacher)], task, [KD()], cached=False)
    train(student, task, Training(epochs=1), objective=objective)
    return np.array(trainer.rows), np.array(parts.rows)


@dataclasses.dataclass(frozen=True)
class Sized:
    """Batches whose number is known: they need not be counted."""

    batches: Callable[[], Iterator[Any]]
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        return self.batches()


def interval(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float]:
    """Ratio of medians, and its 95 % interval from resampling pairs of steps."""
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, len(ours), (2000, len(ours)))
    ratios = np.median(ours[drawn], axis=1) / np.median(theirs[drawn], axis=1)
    return float(np.median(ours) / np.median(theirs)), *(float(value) for value in np.quantile(ratios, [0.025, 0.975]))


def measure(name: str, case: Case, *, steps: int, warm: int) -> dict[str, Any]:
    """One row."""
    trainer, parts = distil(case, steps=steps + warm, beside=Parts(case))
    trainer, parts = trainer[warm:], parts[warm:]
    row: dict[str, Any] = {"case": name, "steps": len(trainer), "batch": list(case.batch)}
    for at, clock in enumerate(("wall", "cpu")):
        row[f"trainer_{clock}_ms"] = float(np.median(trainer[:, at]) * 1e3)
        row[f"parts_{clock}_ms"] = float(np.median(parts[:, at]) * 1e3)
        ratio, low, high = interval(trainer[:, at], parts[:, at])
        row[f"{clock}_ratio"], row[f"{clock}_ratio_interval"] = ratio, [low, high]
    for what in ("nothing", "parts", "trainer"):
        command = [sys.executable, __file__, "--memory", what, "--case", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        row[f"peak_memory_mb_{what}"] = json.loads(done.stdout)
    return row


def peak_memory(what: str, case: Case) -> float:
    """Largest resident set of this process in MB after a few steps of one kind."""
    parts = Parts(case)
    if what == "trainer":
        distil(case, steps=8, beside=None)
    elif what == "parts":
        for _ in range(8):
            parts.step(torch.randn(case.batch), torch.zeros(case.batch[0], dtype=torch.int64))
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024  # not getrusage: that also knows the parent's, from before exec


def main() -> None:
    """Measure, print, write ``results/training_step.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few steps: does it run?")
    parser.add_argument("--case", choices=list(CASES))
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        print(peak_memory(options.memory, CASES[options.case]))
        return
    chosen = {options.case: CASES[options.case]} if options.case else CASES
    rows = []
    for name, case in chosen.items():
        rows.append(measure(name, case, steps=10 if options.quick else case.steps, warm=5))
        print(rows[-1], flush=True)
    settings = {"threads": 1, "load_average": os.getloadavg()[1], "losses": "kd and the task's", "optimizer": "adamw, clipped"}
    print(write_results("training_step", rows, settings=settings, packages=PACKAGES, quick=options.quick))


if __name__ == "__main__":
    main()
