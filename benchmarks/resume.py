"""Is a training that was killed with ``kill -9`` the same as one that was not? Fifty random moments, to the last bit.

::

    python benchmarks/resume.py         # about five minutes on one core

A student with batch norm and dropout is distilled (soft targets, and features through an adapter), from a loader that draws
its order and its noise from torch's generator, with an average of the weights, the best epoch kept. Every row is a
process that is killed somewhere in its training, and another that goes on in the same folder; their final weights are hashed.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # which the first optimizer imports: here it is done before the processes are forked
from lab.results import write_results
from torch import nn

from edgekit.compression.distill.features import FeatureMatch
from edgekit.compression.distill.logits import KD
from edgekit.compression.distill.objective import DistillationObjective
from edgekit.compression.training.checkpoint import digest_of
from edgekit.compression.training.loop import train
from edgekit.core.task import Task
from edgekit.core.training import Training

SAMPLES, CHECKPOINT_SECONDS = 1024, 0.2
TRAINING = Training(epochs=10, learning_rate=5e-3, ema=0.95, keep="best", warmup=0.1)
PACKAGES = ("edgekit", "torch", "accelerate", "numpy")
FORK = multiprocessing.get_context("fork")


def make_net(width: int) -> nn.Sequential:
    """A 1-D convolutional net for ``[N, 6, 64]``."""
    torch.manual_seed(width)
    return nn.Sequential(
        nn.Conv1d(6, width, 5, stride=2), nn.BatchNorm1d(width), nn.ReLU(),
        nn.Conv1d(width, 2 * width, 5, stride=2), nn.BatchNorm1d(2 * width), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(2 * width, 5),
    )  # fmt: skip


def make_task() -> Task:
    """Noisy waves of five kinds."""
    generator = np.random.default_rng(0)
    kinds = generator.integers(0, 5, SAMPLES + 256)
    phases = generator.uniform(0, 2 * np.pi, (len(kinds), 6, 1))
    waves = np.sin(phases + np.arange(64) * (kinds[:, None, None] + 2) / 8) + 0.5 * generator.standard_normal((len(kinds), 6, 64))
    signals = torch.from_numpy(waves.astype(np.float32))

    def training() -> Iterator[Any]:
        for chosen in torch.randperm(SAMPLES).split(32):
            yield signals[chosen] + 0.2 * torch.randn(len(chosen), 6, 64), kinds[chosen]

    validation = [(signals[SAMPLES:], kinds[SAMPLES:])]
    return Task(name="waves", model=make_net(16), example_inputs=signals[:1], training=training, validation=validation)


def work(folder: Path, told: Connection) -> None:
    """Distil in this process, going on from what lies in ``folder``; tell of the first batch, and what came out in the end."""
    task, student = make_task(), make_net(16)
    losses = [KD(temperature=2), FeatureMatch(layers={"3": "3"})]
    objective = DistillationObjective(student, [make_net(32).eval()], task, losses, epochs=TRAINING.epochs)
    times: list[float] = []

    def progress(what: str, done: int, total: int | None) -> None:
        del what, total
        if not times:
            told.send(done)
        times.append(time.monotonic())

    done = train(
        student, task, TRAINING, objective=objective, work=folder, checkpoint_seconds=CHECKPOINT_SECONDS, progress=progress
    )
    seconds = time.monotonic() - times[0] if times else 0.0
    told.send({"resumed_at": done.resumed_at, "sha256": digest_of(*student.state_dict().values()), "seconds": seconds})


def start(folder: Path) -> tuple[ForkProcess, Connection]:
    """A process that distils in ``folder``; a fork, so that a hundred of them need not import torch a hundred times."""
    hears, tells = FORK.Pipe(duplex=False)
    process = FORK.Process(target=work, args=(folder, tells))
    process.start()
    tells.close()
    return process, hears


def finish(folder: Path) -> dict[str, Any]:
    """What a process that is left alone ends with."""
    process, hears = start(folder)
    found: dict[str, Any] = {}
    with contextlib.suppress(EOFError):
        while True:
            told = hears.recv()
            found = told if isinstance(told, dict) else found
    process.join()
    if not found:
        raise SystemExit(f"A training process ended with {process.exitcode}.")
    return found


def kill_and_resume(folder: Path, moment: float) -> dict[str, Any]:
    """Kill a training ``moment`` seconds after its first batch, and let another process finish it."""
    process, hears = start(folder)
    hears.recv()
    time.sleep(moment)
    was_running = process.is_alive()
    process.kill()
    process.join()
    was_running = was_running and process.exitcode == -signal.SIGKILL
    return {"killed_after_seconds": round(moment, 3), "was_running": was_running, **finish(folder)}


def main() -> None:
    """Run, compare hashes, write ``results/resume.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three kills: does it run?")
    parser.add_argument("--kills", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(1)
    moments, rows = random.Random(0), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        whole = finish(Path(folder, "whole"))
        for at in range(3 if options.quick else options.kills):
            row = kill_and_resume(Path(folder, str(at)), moments.uniform(0, whole["seconds"]))
            rows.append({**row, "is_identical": row["sha256"] == whole["sha256"]})
            print(at, rows[-1], flush=True)
    batches = TRAINING.epochs * SAMPLES // 32
    settings = {
        "training": TRAINING.model_dump(), "batches": batches, "checkpoint_seconds": CHECKPOINT_SECONDS,
        "uninterrupted": whole, "kills": len(rows), "running_when_killed": sum(row["was_running"] for row in rows),
        "identical": sum(row["is_identical"] for row in rows),
        "resumed_from_a_checkpoint": sum(row["resumed_at"] > 0 for row in rows),
        "resumed_inside_an_epoch": sum(row["resumed_at"] % (SAMPLES // 32) > 0 for row in rows),
    }  # fmt: skip
    print(f"{settings['identical']} of {len(rows)} identical")
    print(write_results("resume", rows, settings=settings, packages=PACKAGES, quick=options.quick))


if __name__ == "__main__":
    main()
