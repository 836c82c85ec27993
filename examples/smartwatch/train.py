"""Train the net on seven people; ``python examples/smartwatch/train.py`` says how well it does on the other three."""

from __future__ import annotations

import time

import data
import torch
from model import MotionNet
from torch import nn
from trained import report_progress

EPOCHS = 12
BATCH_SIZE = 64
THREADS = 1  # so small a net gains nothing from a second one
LEARNING_RATE = 5e-3
JITTER = 0.1  # standard deviation of the random gain and offset of each channel, in units of its own


def train() -> nn.Module:
    """Train from scratch: AdamW, one-cycle learning rate, random gain and offset per channel."""
    signals, classes = (torch.from_numpy(array) for array in data.training_set())
    model = MotionNet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
    batches = len(classes) // BATCH_SIZE
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=EPOCHS * batches)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)
    start = time.monotonic()
    for epoch in range(1, EPOCHS + 1):
        total = 0.0
        for chosen in torch.randperm(len(classes))[: batches * BATCH_SIZE].split(BATCH_SIZE):
            gain, offset = JITTER * torch.randn(2, len(chosen), 6, 1)
            loss = loss_of(model(signals[chosen] * (1 + gain) + offset), classes[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        report_progress("smartwatch", epoch, EPOCHS, total / batches, time.monotonic() - start)
    return model


@torch.inference_mode()
def accuracy(model: nn.Module) -> float:
    """Share of the held-out people's windows that are recognised."""
    right = [model(torch.from_numpy(signals)).argmax(1) == torch.from_numpy(classes) for signals, classes in data.evaluation()]
    return torch.cat(right).float().mean().item()


if __name__ == "__main__":
    from task import trained_model

    print(f"accuracy on people {data.HELD_OUT_SUBJECTS}: {100 * accuracy(trained_model()):.2f} %")
