"""One net on a lab of devices: what ships where, and on what evidence.

::

    python examples/device_lab.py

This machine is measured, a Cortex-A53 emulated, an Ethos-U55 estimated. A board or phone of your own joins by its profile:
``edgekit devices add my-pi --ssh pi@raspberrypi.local``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import edgekit as ek

DEVICES = ["host", "cortex-a53", "ethos-u55-128"]


def make_task() -> ek.Task:
    """Is the bright spot left or right? A little convolutional net, trained in a moment."""
    random = np.random.default_rng(0)
    sides = random.integers(0, 2, 600)
    pictures = random.normal(0, 0.3, (600, 1, 16, 16)).astype(np.float32)
    for picture, side in zip(pictures, sides, strict=True):
        row, column = random.integers(2, 14), random.integers(1, 7) + 8 * side
        picture[0, row - 2 : row + 2, column - 1 : column + 1] += 2
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, stride=2, padding=1),
        torch.nn.ReLU6(),
        torch.nn.Conv2d(16, 16, 3, padding=1, groups=16),
        torch.nn.ReLU6(),
        torch.nn.Flatten(),
        torch.nn.Linear(16 * 64, 2),
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    inputs, targets = torch.from_numpy(pictures[:200]), torch.from_numpy(sides[:200])
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(inputs), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return ek.Task(
        name="side",
        model=net.eval(),
        example_inputs=pictures[:1],
        calibration=[pictures[:200]],
        evaluation=[(pictures[200:], sides[200:])],
        metric=ek.top1,
    )


def main() -> None:
    task = make_task()
    output = Path("runs/device-lab")
    ek.compress(task, recipe="int8", output=output, force=True)
    artifacts = ek.export(output, targets=["onnx", "tflite"])
    report = ek.validate(artifacts, task, devices=DEVICES)
    for device in report.devices:
        print(f"{device.profile.name}: {device.verdict.decision}")
        for result in device.results:
            if result.artifact.is_baseline or result.metric is None:
                continue
            latency = result.measurement("latency")
            time = f"{latency.value:.3f} ms {latency.evidence}" if latency else f"not timed: {result.evidence}"
            print(f"  {result.artifact.label}: {result.metric.value:.1%} of {result.metric.sample_count} right, {time}")
        for skipped in device.skipped:
            print(f"  {skipped.label}: not run, {skipped.reason}")
    print(f"the page of all devices: {output / 'report.html'}")


if __name__ == "__main__":
    main()
