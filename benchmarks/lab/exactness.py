"""What both exactness benchmarks share: compressed examples, inputs enough for the counts, and counting what differs."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit import pipeline, registry
from edgekit.core.run import RunFolder
from edgekit.core.task import Task, load_task

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

Floats = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Samples:
    """Inputs of one example: its evaluation data, then as many altered copies of it as the count asks for.

    Args:
        inputs: ``[N, 1, ...]`` float32.
        real_count: How many of them are evaluation data as they are.
        targets: Labels ``[real_count]``, or None where the example has none.
    """

    inputs: Floats
    real_count: int
    targets: Any


def gather(task: Task, *, sample_count: int) -> Samples:
    """All evaluation samples; where they are too few, also copies with another gain (0.5 to 1.5) and noise, always the same."""
    batches = list(task.evaluation_batches())
    values = np.concatenate([next(iter(batch.values())) for batch, _ in batches]).astype(np.float32)
    targets = None if batches[0][1] is None else np.concatenate([target for _, target in batches])
    random = np.random.default_rng(0)
    parts, count = [values], len(values)
    while count < sample_count:
        gain = random.uniform(0.5, 1.5, (len(values), *[1] * (values.ndim - 1)))
        parts.append((values * gain + random.normal(0, 0.1, values.shape)).astype(np.float32))
        count += len(values)
    return Samples(np.concatenate(parts)[: max(sample_count, len(values)), None], len(values), targets)


def load_example(name: str) -> Task:
    """The task of ``examples/<name>``."""
    return load_task(EXAMPLES / name / "task.py")


def make_run(task: Task, recipe: str, *, targets: tuple[str, ...], work: Path) -> RunFolder:
    """A compressed and exported run in ``work``; what an earlier call made there is kept."""
    run = RunFolder(work / f"{task.name}-{recipe}")
    if not run.manifest_path.is_file():
        pipeline.compress(task, recipe=recipe, output=run.path)
    pipeline.export(run.path, targets=targets, float_baseline=False)
    return run


def output_size(run: RunFolder) -> int:
    """Values of one answer."""
    session = registry.runtime("torch").load(run.compressed / "program.pt2")
    shape = session.outputs[0].shape
    session.close()
    return math.prod(shape)


def answers(
    runtime: str, path: Path, inputs: Floats, *, limit_s: float, threads: int = 1, options: Mapping[str, Any] | None = None
) -> Floats:
    """First outputs of a file, one sample at a time, ``[N, ...]``: fewer than there are inputs where the time is over before."""
    session = registry.runtime(runtime).load(path, threads=threads, options=options)
    name, begin, rows = session.inputs[0].name, time.monotonic(), []
    for value in inputs:
        rows.append(next(iter(session.run({name: value}).values())))
        if time.monotonic() - begin > limit_s:
            break
    session.close()
    found: Floats = np.concatenate(rows).astype(np.float32)
    return found


def differences(found: Floats, expected: Floats) -> dict[str, Any]:
    """How far answers differ from the expected ones to the same samples: values, bits, decisions, and the largest distance."""
    count = min(len(found), len(expected))
    ours, theirs = found[:count], expected[:count]
    changed = np.ascontiguousarray(ours).view(np.uint32) ^ np.ascontiguousarray(theirs).view(np.uint32)
    return {
        "sample_count": count,
        "output_count": int(ours.size),
        "differing_values": int(np.count_nonzero(changed)),
        "differing_bits": int(np.bitwise_count(changed).sum()),
        "differing_predictions": int((ours.argmax(-1) != theirs.argmax(-1)).sum()),
        "largest_difference": float(np.abs(ours - theirs).max()),
    }
