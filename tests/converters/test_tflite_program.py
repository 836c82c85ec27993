"""Rewrites of the program before LiteRT sees it: they compute the same function, and do what they are for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edgekit import pipeline
from edgekit.converters.tflite_nodes import operator_name
from edgekit.converters.tflite_program import lowerable
from edgekit.core.task import Task


class Calls(nn.Module):
    """A net made of one function of its layers."""

    def __init__(self, function: Callable[..., torch.Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


def conv(*arguments: Any, **named: Any) -> nn.Module:
    return nn.Conv1d(*arguments, **named)


ONE_DIMENSIONAL: dict[str, nn.Module] = {
    "stride": Calls(lambda s, x: s.b(F.relu(s.a(x))), a=conv(4, 8, 5, 2, 2), b=conv(8, 8, 3, groups=8)),
    "dilation": Calls(lambda s, x: s.a(x), a=conv(4, 8, 3, dilation=3, padding=3, bias=False)),
    "same": Calls(lambda s, x: s.a(x), a=conv(4, 8, 5, padding="same")),
    "max pool": Calls(lambda s, x: F.max_pool1d(s.a(x), 3, 2, 1, ceil_mode=True), a=conv(4, 8, 3)),
    "average pool": Calls(lambda s, x: F.avg_pool1d(s.a(x), 3, 2, 1, count_include_pad=False), a=conv(4, 8, 3)),
    "adaptive pool": Calls(lambda s, x: F.adaptive_avg_pool1d(s.a(x), 5), a=conv(4, 8, 3)),
    "adaptive maximum": Calls(lambda s, x: F.adaptive_max_pool1d(s.a(x), 2), a=conv(4, 8, 3)),
    "transposed": Calls(lambda s, x: s.b(s.a(x)), a=conv(4, 8, 3, 2), b=nn.ConvTranspose1d(8, 6, 3, 2, 1, 1)),
    "transposed, TFLite's padding": Calls(lambda s, x: s.b(s.a(x)), a=conv(4, 8, 3), b=nn.ConvTranspose1d(8, 6, 4, 2, 1)),
    "concat": Calls(lambda s, x: torch.cat([s.a(x), x[:, :, 2:]], 1), a=conv(4, 8, 3)),
    "concat in time": Calls(lambda s, x: torch.cat([s.a(x), s.b(x)], -1), a=conv(4, 8, 3), b=conv(4, 8, 5)),
    "mean kept": Calls(lambda s, x: s.a(x) * torch.sigmoid(s.a(x).mean(-1, keepdim=True)), a=conv(4, 8, 3)),
    "mean": Calls(lambda s, x: s.a(x).mean(2), a=conv(4, 8, 3)),
    "mean over channels": Calls(lambda s, x: s.a(x).mean(1), a=conv(4, 8, 3)),
    "constants": Calls(lambda s, x: s.a(x) * torch.arange(8.0)[:, None] + torch.arange(30.0) - 2, a=conv(4, 8, 3)),
    "slice and pad": Calls(lambda s, x: F.pad(s.a(x)[:, 1:5, ::2], (2, 1, 0, 3), value=0.5), a=conv(4, 8, 3)),
    "causal": Calls(lambda s, x: s.a(F.pad(s.b(x), (2, 0))), a=conv(8, 4, 3), b=conv(4, 8, 1)),
    "reflected": Calls(lambda s, x: F.pad(s.a(x), (2, 1), mode="reflect"), a=conv(4, 8, 3)),
    "reshapes": Calls(lambda s, x: s.a(x).flatten(1)[:, None].unflatten(2, (8, 30)).squeeze(1), a=conv(4, 8, 3)),
    "transposition": Calls(lambda s, x: s.l(s.a(x).transpose(1, 2)), a=conv(4, 8, 3), l=nn.Linear(8, 3)),
    "norm": Calls(lambda s, x: s.n(s.a(x)), a=conv(4, 8, 3), n=nn.BatchNorm1d(8)),
}  # fmt: skip


def export(net: nn.Module, *shape: int) -> tuple[torch.export.ExportedProgram, torch.Tensor]:
    x = torch.from_numpy(np.random.default_rng(0).standard_normal(shape, np.float32))
    return torch.export.export(net.eval(), (x,)), x


@pytest.mark.parametrize("name", ONE_DIMENSIONAL)
def test_lifted_layers_compute_the_same(name: str) -> None:
    program, x = export(ONE_DIMENSIONAL[name], 2, 4, 32)
    before = [node.name for node in program.graph.nodes]
    lowered = lowerable(program)
    kinds = {operator_name(node) for node in lowered.graph.nodes}
    assert not [kind for kind in kinds if kind.endswith("1d")], kinds
    with torch.no_grad():
        torch.testing.assert_close(lowered(x), program.module(check_guards=False)(x), atol=1e-5, rtol=1e-5)
    assert [node.name for node in program.graph.nodes] == before, "the program itself was edited"


def test_a_chain_of_1d_layers_is_lifted_once() -> None:
    program, _ = export(ONE_DIMENSIONAL["stride"], 1, 4, 32)
    kinds = [operator_name(node) for node in lowerable(program).graph.nodes]
    assert (kinds.count("unsqueeze"), kinds.count("squeeze")) == (1, 1)


@pytest.mark.parametrize(
    ("layer", "is_cropped"),
    [
        (nn.ConvTranspose2d(4, 3, 3, 2), False),
        (nn.ConvTranspose2d(4, 3, 4, 2, 1), False),
        (nn.ConvTranspose2d(4, 3, 3, 2, 1), True),
        (nn.ConvTranspose2d(4, 3, (3, 5), 2, (1, 2), 1, bias=False), True),
    ],
)
def test_transposed_convolutions_are_cropped_where_padding_differs(layer: nn.Module, is_cropped: bool) -> None:
    program, x = export(nn.Sequential(layer), 1, 4, 6, 7)
    lowered = lowerable(program)
    assert ("slice" in [operator_name(node) for node in lowered.graph.nodes]) is is_cropped
    with torch.no_grad():
        torch.testing.assert_close(lowered(x), layer(x), atol=1e-5, rtol=1e-5)


def test_expansion_becomes_repetition() -> None:
    program, x = export(Calls(lambda s, x: s.a(x)[:, None].expand(2, 3, 5, 4) * 2, a=nn.Linear(6, 4)), 2, 5, 6)
    lowered = lowerable(program)
    kinds = [operator_name(node) for node in lowered.graph.nodes]
    assert ("cat" in kinds, "expand" in kinds) == (True, False)
    with torch.no_grad():
        assert torch.equal(lowered(x), program.module(check_guards=False)(x))


class Moves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.a(x).chunk(2, -1)
        return self.b(left.transpose(1, 2).transpose(1, 2) + right)


def test_quantized_programs_keep_their_bits() -> None:
    torch.manual_seed(0)
    samples = np.random.default_rng(0).standard_normal((8, 5, 6), np.float32)
    compressed = pipeline.compress(
        Task(name="moves", model=Moves(), example_inputs=samples[:1], calibration=[samples]), recipe="int8"
    )
    lowered = lowerable(compressed.program)
    x = torch.from_numpy(samples[:1])
    with torch.no_grad():
        assert torch.equal(lowered(x), compressed.program.module(check_guards=False)(x))
    dequantizes = [node for node in lowered.graph.nodes if operator_name(node) == "dequantize_per_tensor"]
    assert all(len(node.users) == 1 for node in dequantizes)
    weights = [node for node in lowered.graph.nodes if operator_name(node) == "dequantize_per_channel"]
    assert [operator_name(node.args[0]) for node in weights] == ["quantize_per_channel"] * 3  # the packed layer is two
    for node in lowered.graph.nodes:
        if operator_name(node) in {"transpose", "slice"}:
            assert {operator_name(user) for user in node.users} == {"quantize_per_tensor"}
