"""Programs of other tools' tracers become plain ones that answer the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from edgekit.converters.sources.cleaning import clean
from edgekit.core.program import run_program

X = torch.randn(1, 8, 8, 3, generator=torch.Generator().manual_seed(0))


class ChannelsLast(nn.Module):
    """A net as Keras writes one for torch: pictures are ``[N, H, W, C]`` between layers, weights are turned in each call."""

    def __init__(self, between: Callable[[torch.Tensor], torch.Tensor], channels: int = 4) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(3, 3, 3, 4))
        self.second = nn.Parameter(torch.randn(1, 1, channels, 5))
        self.bias = nn.Parameter(torch.randn(4))
        self.between = between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(x.to(torch.float32), self.first) + self.bias.reshape(1, 1, 1, 4)
        return self.layer(self.between(x), self.second).mean((1, 2))

    @staticmethod
    def layer(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        made = torch.conv2d(x.permute(0, 3, 1, 2).contiguous(), weight.permute(3, 2, 0, 1))
        return made.permute(0, 2, 3, 1)


def gate(x: torch.Tensor) -> torch.Tensor:
    """Squeeze and excitation: a picture of one pixel scales the channels."""
    squeezed = x.mean((1, 2), keepdim=True).permute(0, 3, 1, 2)
    return x * torch.conv2d(squeezed, torch.ones(4, 4, 1, 1)).permute(0, 2, 3, 1).sigmoid()


BETWEEN: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], int]] = {
    "activation": (lambda x: torch.clamp(torch.relu(x), 0, 6), 4),
    "arithmetic": (lambda x: (x - torch.arange(4.0)) * torch.rsqrt(torch.full((4,), 2.0)) + x, 4),
    "pad": (lambda x: nn.functional.pad(x, (0, 0, 1, 0, 0, 2)), 4),
    "join": (lambda x: torch.cat([x, x.relu()], -1), 8),
    "gate": (gate, 4),
    "softmax": (lambda x: x.softmax(-1), 4),
    "cut": (lambda x: x[:, 1:, :, :3], 3),
    "divided": (lambda x: 2.0 / (x.abs() + 1), 4),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_pictures_become_channels_first(name: str) -> None:
    between, channels = BETWEEN[name]
    program = torch.export.export(ChannelsLast(between, channels).eval(), (X,))
    made = clean(program, (X,))
    assert made is not program
    found = Counter(str(node.target) for node in made.graph.nodes if node.op == "call_function")
    assert found["aten.permute.default"] <= 1, found  # the input's
    assert not any("assert" in target or target.startswith("aten.to.") for target in found), found
    torch.testing.assert_close(run_program(made, (X,))[0], run_program(program, (X,))[0], rtol=1e-4, atol=1e-4)


def test_batch_norms_written_out_are_folded_into_their_layers() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 3, bias=False)
            self.dense = nn.Parameter(torch.randn(4, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.layer(x)
            scale = torch.tensor([0.5, 2.0, -1.0, 1.0]).reshape(1, 4, 1, 1)
            x = (x - 0.25) * torch.rsqrt(scale.abs() + 1e-3) * scale / 2.0 + 1.0
            return 1.0 - (x.mean((2, 3)) @ self.dense + 3.0)

    x = X.permute(0, 3, 1, 2).contiguous()
    program = torch.export.export(Net().eval(), (x,))
    made = clean(program, (x,))
    targets = [str(node.target) for node in made.graph.nodes if node.op == "call_function"]
    assert targets[:3] == ["aten.conv2d.default", "aten.mean.dim", "aten.linear.default"]
    torch.testing.assert_close(run_program(made, (x,))[0], run_program(program, (x,))[0], rtol=1e-4, atol=1e-4)


def test_a_layer_somebody_else_reads_keeps_its_numbers() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            made = self.layer(x)
            return made, made * 2.0

    program = torch.export.export(Net().eval(), (X,))
    for expected, found in zip(run_program(program, (X,)), run_program(clean(program, (X,)), (X,)), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_program_that_would_answer_otherwise_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(module: Any) -> None:
        for node in module.graph.nodes:
            if str(node.target) == "aten.relu.default":
                node.target = torch.ops.aten.abs.default

    monkeypatch.setattr("edgekit.converters.sources.cleaning.fold_arithmetic", spoil)
    program = torch.export.export(ChannelsLast(torch.relu).eval(), (X,))
    assert clean(program, (X,)) is program
