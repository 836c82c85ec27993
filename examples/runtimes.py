"""One net, three files: run each, compare the answers, and see where the time goes.

::

    python examples/runtimes.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import edgekit as ek


def make_files(output: Path) -> list[Path]:
    """A little int8 picture classifier for every target."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, stride=2),
        torch.nn.ReLU6(),
        torch.nn.Conv2d(16, 16, 3, padding=1, groups=16),
        torch.nn.ReLU6(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(16, 5),
    )
    pictures = np.random.default_rng(0).standard_normal((32, 3, 48, 48), np.float32)
    task = ek.Task(name="runtimes", model=net, example_inputs=pictures[:1], calibration=[pictures])
    ek.compress(task, recipe="int8", output=output)
    return [one.path for one in ek.export(output, targets=["onnx", "tflite", "coreml"], float_baseline=False)]


def main() -> None:
    files = make_files(Path("runs/runtimes"))
    picture = np.random.default_rng(1).standard_normal((1, 3, 48, 48), np.float32)

    answers = {}
    for file in files:  # each in a confined process; Core ML by reference semantics
        with ek.runtimes.load(file) as model:
            (output,) = model.run({model.inputs[0].name: picture}).values()
            answers[file.suffix] = output
            print(f"{file.name}: {model.runtime}, answers {np.array2string(output[0], precision=3)}")
    first = answers[files[0].suffix]
    print(f"largest difference: {max(float(np.abs(one - first).max()) for one in answers.values()):.4f}")

    found = ek.bench(*files, seconds=0.3, profile=True)
    for timed in found.files:
        latency, profile = timed.find("latency"), timed.profile
        if latency is not None and profile is not None:
            share = profile.share_of("integer")
            print(f"{Path(timed.path).name}: {latency.value:.3f} ms ({timed.evidence}), {share:.0%} of it in integer kernels")


if __name__ == "__main__":
    main()
