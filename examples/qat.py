"""Quantization-aware training in a loop of one's own: the smartwatch net with 4-bit weights, trained for one more epoch.

::

    python examples/qat.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

import edgekit as ek

FOLDER = Path(__file__).resolve().parent / "smartwatch"
sys.path.append(str(FOLDER))


def main() -> ek.Compressed:
    """Prepare, train as ever, finish."""
    import data

    task = ek.load_task(FOLDER / "task.py")
    prepared = ek.prepare_qat(task, recipe="w4a8-qat")
    signals, classes = (torch.from_numpy(array) for array in data.training_set())
    optimizer = torch.optim.AdamW(prepared.parameters(), lr=3e-4)
    prepared.train()
    torch.manual_seed(0)
    for chosen in torch.randperm(len(classes)).split(64):
        loss = nn.functional.cross_entropy(prepared(signals[chosen]), classes[chosen], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    prepared.eval()

    with torch.no_grad():
        right = [prepared(torch.from_numpy(x)).argmax(1) == torch.from_numpy(y) for x, y in task.evaluation()]
    print(f"accuracy on people the net has not met: {100 * torch.cat(right).float().mean().item():.2f} %")
    return ek.finish_qat(prepared)


if __name__ == "__main__":
    compressed = main()
    print(f"{compressed.precision}: {len(compressed.contract.entries)} contract entries; next: ek.export(compressed, ...)")
