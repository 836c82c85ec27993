"""An artifact's answers on a device, by its transport, as a validation asks for them."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import pipeline
from edgekit.core.artifact import Artifact
from edgekit.core.errors import EdgekitError, WorkerError
from edgekit.core.plugins import Transport
from edgekit.core.profile import DeviceProfile
from edgekit.core.run import RunFolder
from edgekit.device_tests.workbench import Workbench
from lab.exactness import Floats, load_example

__all__ = ["Row", "ask", "count_differences", "explain", "int8_artifacts", "samples_of"]

Row = dict[str, Any]
TARGETS = ("onnx", "tflite")


def int8_artifacts(example: str, work: Path) -> dict[str, Artifact]:
    """Target -> the example's int8 file; what an earlier call made in ``work`` is kept."""
    run = RunFolder(work / f"{example}-int8")
    if not run.manifest_path.is_file():
        pipeline.compress(load_example(example), recipe="int8", output=run.path)
        pipeline.export(run.path, targets=TARGETS, float_baseline=False)
    return {artifact.target: artifact for artifact in run.load_artifacts() if not artifact.is_baseline}


def samples_of(example: str, count: int) -> Floats:
    """The first evaluation samples, ``[count, ...]``."""
    values = np.concatenate([next(iter(batch.values())) for batch, _ in load_example(example).evaluation_batches()])
    return values[:count].astype(np.float32)


def ask(profile: DeviceProfile, transport: Transport, artifact: Artifact, samples: Floats) -> tuple[Floats, float]:
    """Answers ``[N, ...]`` to samples on a device, and how long the job took, seconds.

    Raises:
        EdgekitError: The device was lost, or the file cannot run there.
    """
    (spec,) = artifact.inputs
    with tempfile.TemporaryDirectory() as temporary:
        bench = Workbench(profile, transport, output=Path(temporary), log=Path(temporary, "log.txt"))
        bench.share("golden", {spec.name: samples[:1, None]})
        bench.share("evaluation", {spec.name: samples})
        start = time.monotonic()
        found = bench.answers(artifact, contract=None)
        seconds = time.monotonic() - start
        bench.close()
        if found.failure:
            raise WorkerError(found.failure)
        answers: Floats = next(iter(found.outputs("evaluation").values()))
        return answers, seconds


def count_differences(found: Floats, expected: Floats, artifact: Artifact) -> Row:
    """Values that differ in any bit, of all values; the answers are on the artifact's output grid."""
    (spec,) = artifact.outputs
    changed = np.ascontiguousarray(found).view(np.uint32) != np.ascontiguousarray(expected).view(np.uint32)
    return {
        "output": spec.name,
        "sample_count": len(found),
        "value_count": int(found.size),
        "different_values": len(np.unique(expected)),
        "differing_count": int(np.count_nonzero(changed)),
    }


def explain(reason: EdgekitError) -> str:
    """An error in one line, without paths."""
    return f"{type(reason).__name__}: {str(reason).splitlines()[0][:160]}"
