"""No training: seeded random weights, whose batch-norms then take the statistics of real photographs.

The net recognises nothing. What it is for is everything that depends on the architecture and on realistic ranges, not on what
was learned: latency, size, which kernels run, whether runtimes compute the same bits, agreement with its own float answers.
"""

from __future__ import annotations

import data
import numpy as np
import torch
from model import ResNet18
from torch import nn

THREADS = 1
PICTURES = 32


@torch.no_grad()
def train() -> nn.Module:
    """Give every batch-norm the mean and variance it sees, and every class the same mean logit over 32 photographs."""
    model = ResNet18()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the running statistics become those of this one batch
    paths = data.split()[0][:PICTURES]
    pictures = torch.from_numpy(np.stack([data.load(path) for path in paths]))
    logits = model.train()(pictures)
    model.fc.bias -= logits.mean(0)  # else one class would win on every picture
    return model


if __name__ == "__main__":
    from task import random_model

    print(f"{sum(parameter.numel() for parameter in random_model().parameters()):,} parameters, none of them learned")
