"""A model file somebody gave you -> three targets, and what became of it.

::

    python examples/foreign.py                     # writes a small ONNX file first
    python examples/foreign.py model.onnx runs/net
"""

from __future__ import annotations

import sys
from pathlib import Path

import edgekit as ek


def write_small_model(path: Path) -> None:
    """A little picture classifier as an ONNX file: what you would have from somebody else."""
    import torch

    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2),
        torch.nn.ReLU6(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 5),
    )
    example = torch.zeros(1, 3, 32, 32)
    torch.onnx.export(net.eval(), (example,), path, input_names=["image"], output_names=["scores"], dynamo=True, verbose=False)


def main(source: Path, output: Path) -> None:
    artifacts = ek.export(source, targets=["onnx", "tflite", "coreml"], output=output)
    for artifact in artifacts:
        names = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in artifact.inputs)
        print(f"{artifact.label}: {artifact.size_bytes:,} bytes, takes {names}")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        Path("runs").mkdir(exist_ok=True)
        write_small_model(Path("runs/given.onnx"))
        main(Path("runs/given.onnx"), Path("runs/given"))
