"""Multiply-accumulates and parameters, against what is worked out by hand."""

from __future__ import annotations

import pytest
import torch

from edgekit.core.program_cost import count_macs, count_parameters


class Everything(torch.nn.Module):
    """One layer of each kind that multiplies and accumulates."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = torch.nn.BatchNorm2d(8)
        self.up = torch.nn.ConvTranspose2d(8, 4, 2, 2)
        self.linear = torch.nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.up(self.norm(self.depthwise(self.conv(x)))).mean(-1).transpose(1, 2)
        y = self.linear(y)
        return torch.nn.functional.scaled_dot_product_attention(y, y, y) @ y.transpose(1, 2)


@pytest.mark.parametrize("batch", [1, 2])
def test_macs_are_those_of_one_sample(batch: int) -> None:
    program = torch.export.export(Everything().eval(), (torch.zeros(batch, 3, 16, 16),))
    convolutions = 256 * 8 * 27 + 256 * 8 * 9 + 256 * 8 * (4 * 4)
    expected = convolutions + 32 * 4 * 5 + 2 * (32 * 32 * 5) + 32 * 32 * 5
    assert count_macs(program) == expected
    assert count_parameters(program) == sum(one.numel() for one in Everything().parameters())


@pytest.mark.filterwarnings("ignore")  # torch's own, about the flat weights of recurrent layers
def test_recurrent_layers_count_every_step_gate_and_direction() -> None:
    net = torch.nn.LSTM(6, 7, bidirectional=True, batch_first=True).eval()
    program = torch.export.export(net, (torch.zeros(1, 10, 6),))
    assert count_macs(program) == 10 * 2 * (4 * 7 * 6 + 4 * 7 * 7)


def test_shared_weights_count_once() -> None:
    layer = torch.nn.Linear(4, 4)
    program = torch.export.export(torch.nn.Sequential(layer, torch.nn.ReLU(), layer).eval(), (torch.zeros(1, 4),))
    assert (count_parameters(program), count_macs(program)) == (20, 32)
