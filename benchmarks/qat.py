"""Quantization-aware training against post-training quantization, in every runtime's exported file: Fashion-MNIST, 4-bit weights.

::

    python examples/assets.py fashion
    python benchmarks/qat.py            # about ten minutes on one core

Rows: float; 4-bit weights rounded to nearest; the default post-training recipe; trained on 6,000 pictures for one epoch.
Every answer is the exported file's own, one picture at a time; Core ML's is the reference interpreter's.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lab.results import write_results

import edgekit
from edgekit import registry
from edgekit.core.recipe import AwareTraining, Quantize, Recipe

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "fashion"
RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert", "coreml": "coreml-reference"}
STEPS: dict[str, Quantize] = {
    "w4a8, round to nearest": Quantize(weights="int4", rounding="nearest", equalization=False, bias_correction=False),
    "w4a8": Quantize(weights="int4"),
    "w4a8-qat": Quantize(weights="int4", training=AwareTraining(epochs=1, learning_rate=1e-3)),
}
PACKAGES = ("edgekit", "torch", "onnxruntime", "ai-edge-litert", "coremltools", "numpy")


def with_training(task: edgekit.Task, count: int) -> edgekit.Task:
    """The task with its first ``count`` training pictures and the loss it was trained with."""
    import data  # beside the task, found once it is loaded

    pictures, classes = data.load("train")
    inputs, targets = data.normalise(pictures[:count]), classes[:count]

    def epoch() -> Iterator[tuple[Any, Any]]:
        for chosen in torch.randperm(count).split(64):
            yield inputs[chosen], targets[chosen]

    return dataclasses.replace(task, training=epoch, loss=torch.nn.CrossEntropyLoss(label_smoothing=0.05))


def right_answers(artifact: edgekit.Artifact, images: np.ndarray, classes: np.ndarray) -> float:
    """Share of pictures the artifact's own runtime recognises."""
    session = registry.runtime(RUNTIMES[artifact.target]).load(artifact.path)
    name, output = session.inputs[0].name, session.outputs[0].name
    found = [int(session.run({name: image[None]})[output].argmax()) for image in images]
    return float(np.mean(np.array(found) == classes))


def main() -> None:
    """Compress, export, run, write ``results/qat.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few pictures: does it run?")
    quick = parser.parse_args().quick
    sys.path.append(str(EXAMPLE))
    count, shown = (640, 200) if quick else (6000, 2000)
    task = with_training(edgekit.load_task(EXAMPLE / "task.py"), count)
    batches = list(task.evaluation()) if callable(task.evaluation) else []
    images, classes = (np.concatenate(part)[:shown] for part in zip(*batches, strict=True))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for at, (name, step) in enumerate(STEPS.items()):
            cpu = time.process_time()
            compressed = edgekit.compress(task, recipe=Recipe(name=name, steps=(step,)))
            cpu = time.process_time() - cpu
            artifacts = edgekit.export(compressed, targets=list(RUNTIMES), float_baseline=at == 0, output=Path(folder, str(at)))
            for artifact in artifacts:
                recipe = "float" if artifact.precision == "float32" else name
                share = right_answers(artifact, images, classes)
                rows.append({"recipe": recipe, "target": artifact.target, "accuracy": share, "compress_cpu_seconds": cpu})
                print(f"{recipe:24} {artifact.target:8} {100 * share:.2f} %", flush=True)
    settings = {"training_pictures": count, "test_pictures": shown, "epochs": 1, "learning_rate": 1e-3}
    print(write_results("qat", rows, settings=settings, packages=PACKAGES, quick=quick))


if __name__ == "__main__":
    main()
