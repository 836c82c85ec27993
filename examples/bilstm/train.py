"""Train the net; ``python examples/bilstm/train.py`` says how well it does on the test sentences."""

from __future__ import annotations

import time

import data
import torch
from model import SentenceLSTM
from torch import nn
from trained import report_progress

EPOCHS = 3
BATCH_SIZE = 128
THREADS = 1
LEARNING_RATE = 1e-2


def train() -> nn.Module:
    """Train from scratch: AdamW, one-cycle learning rate."""
    numbers, classes = data.split(test=False)
    inputs, targets = torch.from_numpy(numbers), torch.from_numpy(classes)
    model = SentenceLSTM()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
    batches = len(classes) // BATCH_SIZE
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=EPOCHS * batches)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    start = time.monotonic()
    for epoch in range(1, EPOCHS + 1):
        total = 0.0
        for chosen in torch.randperm(len(classes))[: batches * BATCH_SIZE].split(BATCH_SIZE):
            loss = loss_of(model(inputs[chosen]), targets[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        report_progress("bilstm", epoch, EPOCHS, total / batches, time.monotonic() - start)
    return model


@torch.inference_mode()
def accuracy(model: nn.Module) -> float:
    """Share of the test sentences that are judged as people did."""
    right = [model(torch.from_numpy(numbers)).argmax(1) == torch.from_numpy(classes) for numbers, classes in data.evaluation()]
    return torch.cat(right).float().mean().item()


if __name__ == "__main__":
    from task import trained_model

    print(f"accuracy on the test sentences: {100 * accuracy(trained_model()):.2f} %")
