"""A zoo of small nets: which channels can go, why others cannot, and that cutting silent channels changes no answer."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from edgekit.compression.prune.cost import cost_model
from edgekit.compression.prune.graph import find_groups
from edgekit.compression.prune.groups import cut, silence
from edgekit.compression.prune.proof import prove
from edgekit.compression.prune.stand_ins import Attention, open_attention
from edgekit.core.errors import RecipeError

PICTURE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
WORDS = torch.randint(0, 50, (2, 7), generator=torch.Generator().manual_seed(1))
SIGNAL = torch.randn(2, 3, 10, generator=torch.Generator().manual_seed(1))


def conv(inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


class Zoo(nn.Module):
    head_width = 16

    def __init__(self) -> None:
        super().__init__()
        self.first = conv(3, 16)
        self.build()
        self.head = nn.Linear(self.head_width, 5)

    def build(self) -> None: ...

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.first(x)).mean((2, 3)))


class Residual(Zoo):
    def build(self) -> None:
        self.up, self.down = conv(16, 32), nn.Conv2d(32, 16, 3, padding=1)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(self.up(x))


class Depthwise(Zoo):
    head_width = 24

    def build(self) -> None:
        self.filters, self.mix = conv(16, 16, 3, 16), conv(16, 24, 1)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return self.mix(self.filters(x))


class Concat(Zoo):
    def build(self) -> None:
        self.left, self.right, self.joined = conv(16, 8), conv(16, 12), conv(36, 16)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return self.joined(torch.cat([self.left(x), x, self.right(x)], 1))


class Grouped(Zoo):
    def build(self) -> None:
        self.grouped, self.norm, self.mix = conv(16, 32, 3, 4), nn.GroupNorm(4, 32), nn.Conv2d(32, 16, 1)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return self.mix(self.norm(self.grouped(x)))


class Gated(Zoo):
    def build(self) -> None:
        self.both = nn.Conv2d(16, 32, 1)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.both(x).chunk(2, 1)
        return left * torch.sigmoid(right)


class Squeeze(Zoo):
    def build(self) -> None:
        self.narrow, self.wide = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.wide(functional.relu(self.narrow(x.mean((2, 3), keepdim=True)))))


class Transposed(Zoo):
    head_width = 12

    def build(self) -> None:
        self.up = nn.ConvTranspose2d(16, 12, 2, 2)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.up(x))


class Scaled(Zoo):
    """A ConvNeXt block: layer norm over the last axis, a scale for each channel."""

    def build(self) -> None:
        self.filters, self.norm = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.LayerNorm(16)
        self.wide, self.narrow, self.scale = nn.Linear(16, 64), nn.Linear(64, 16), nn.Parameter(0.1 * torch.ones(16))

    def body(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.filters(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.narrow(functional.gelu(self.wide(y)))).permute(0, 3, 1, 2)


class Twice(Zoo):
    def build(self) -> None:
        self.again = conv(16, 16)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return self.again(self.again(x))


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(3, 16, 3, padding=1), nn.Conv1d(16, 8, 3, padding=1)
        self.norm, self.head = nn.BatchNorm1d(8), nn.Linear(80, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.second(functional.relu(self.first(x)))).flatten(1))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 32)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)
        self.head = nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.words(x)).mean(1))


class OwnAttention(nn.Module):
    """As people write it: the number of heads in a field, shapes derived from it."""

    def __init__(self, *, derived: bool) -> None:
        super().__init__()
        self.words, self.num_heads, self.derived = nn.Embedding(50, 32), 4, derived
        self.query, self.key, self.value, self.out = (nn.Linear(32, 32) for _ in range(4))
        self.head = nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.words(x)
        n, t, c = x.shape
        width = -1 if self.derived else c // self.num_heads
        q, k, v = (layer(x).view(n, t, self.num_heads, width).transpose(1, 2) for layer in (self.query, self.key, self.value))
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.head((x + self.out(mixed.flatten(2))).mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind: Any, *, bidirectional: bool, layers: int = 1, last: bool = False) -> None:
        super().__init__()
        self.words, self.last = nn.Embedding(50, 32), last
        self.cells = kind(32, 24, batch_first=True, bidirectional=bidirectional, num_layers=layers)
        self.head = nn.Linear(48 if bidirectional else 24, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answers, state = self.cells(self.words(x))
        if self.last:
            return self.head((state[0] if isinstance(state, tuple) else state)[-1])
        return self.head(answers.amax(1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.wide, self.narrow = nn.Embedding(50, 32), nn.Linear(32, 64), nn.Linear(64, 32)
        self.head = nn.Linear(32, 50, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.words(x)
        return self.head(x + self.narrow(functional.relu(self.wide(x))))


# name: (net, inputs, {group: (units, channels of a unit)})
NETS: dict[str, tuple[Any, torch.Tensor, dict[str, tuple[int, int]]]] = {
    "residual": (Residual, PICTURE, {"first.0": (16, 1), "up.0": (32, 1)}),
    "depthwise": (Depthwise, PICTURE, {"first.0": (16, 1), "mix.0": (24, 1)}),
    "concat": (Concat, PICTURE, {"first.0": (16, 1), "left.0": (8, 1), "right.0": (12, 1), "joined.0": (16, 1)}),
    "grouped": (Grouped, PICTURE, {"first.0": (4, 4), "grouped.0": (8, 4), "mix": (16, 1)}),
    "gated": (Gated, PICTURE, {"first.0": (16, 1), "both": (16, 2)}),
    "squeeze": (Squeeze, PICTURE, {"first.0": (16, 1), "narrow": (8, 1)}),
    "transposed": (Transposed, PICTURE, {"first.0": (16, 1), "up": (12, 1)}),
    "scaled": (Scaled, PICTURE, {"first.0": (16, 1), "wide": (64, 1)}),
    "twice": (Twice, PICTURE, {"first.0": (16, 1)}),
    "flat": (Flat, SIGNAL, {"first": (16, 1), "second": (8, 1)}),
    "encoder": (Encoder, WORDS, {"words": (32, 1), "layer.self_attn.query": (4, 8), "layer.linear1": (64, 1)}),
    "heads": (lambda: OwnAttention(derived=True), WORDS, {"words": (32, 1), "query": (4, 8)}),
    "lstm": (lambda: Recurrent(nn.LSTM, bidirectional=True), WORDS, {"words": (32, 1), "cells": (24, 2)}),
    "lstm-deep": (lambda: Recurrent(nn.LSTM, bidirectional=True, layers=2), WORDS, {"words": (32, 1), "cells": (24, 2)}),
    "lstm-last": (lambda: Recurrent(nn.LSTM, bidirectional=False, last=True), WORDS, {"words": (32, 1), "cells": (24, 1)}),
    "gru": (lambda: Recurrent(nn.GRU, bidirectional=False), WORDS, {"words": (32, 1), "cells": (24, 1)}),
    "tied": (Tied, WORDS, {"wide": (64, 1)}),
}


def build(name: str) -> tuple[nn.Module, Any]:
    make, inputs, _ = NETS[name]
    torch.manual_seed(0)
    net = make().eval()
    open_attention(net)
    return net, lambda module: [module(inputs)]


@pytest.mark.parametrize("name", NETS)
def test_groups_of_the_zoo(name: str) -> None:
    net, call = build(name)
    found = prove(net, find_groups(net, call), call)
    assert {group.name: (group.unit_count, group.unit_width) for group in found.groups} == NETS[name][2]


@pytest.mark.parametrize("name", [name for name in NETS if name not in {"grouped", "scaled", "encoder"}])
def test_cutting_silent_channels_changes_no_answer(name: str) -> None:
    """The nets left out have norms over all channels: those are another function when channels go, silent or not."""
    net, call = build(name)
    groups = prove(net, find_groups(net, call), call).groups
    plan = {group.name: torch.arange(0, group.unit_count - 1, 2) for group in groups}
    with torch.no_grad():
        silence(net, groups, plan)
        expected = call(net)[0]
        small = copy.deepcopy(net)
        cut(small, groups, plan)
        assert torch.allclose(call(small)[0], expected, atol=1e-5)
    removed = {name: len(units) for name, units in plan.items()}
    left = sum(parameter.numel() for parameter in small.parameters())
    assert cost_model(net, groups, call).cost(removed).parameters == left < sum(p.numel() for p in net.parameters())


def test_reasons_for_what_stays() -> None:
    refused = {}
    for name in ("residual", "tied", "twice"):
        net, call = build(name)
        refused[name] = prove(net, find_groups(net, call), call).refused
    assert refused["residual"] == {"head": "its channels are an output of the net"}
    assert "the weight of words is shared with head" in refused["tied"]["words"]
    torch.manual_seed(0)
    net, call = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 16, 3, groups=8), nn.Conv2d(16, 1, 1)), lambda m: [m(PICTURE)]
    grouped = prove(net.eval(), find_groups(net, call), call).refused
    assert "tied to each other by a grouped layer" in grouped["0"]
    assert "single channel" in grouped["2"]


def test_attention_with_a_width_written_in_the_shape_names_the_users_line() -> None:
    torch.manual_seed(0)
    net = OwnAttention(derived=False).eval()

    def call(module: nn.Module) -> list[torch.Tensor]:
        return [module(WORDS)]

    reason = prove(net, find_groups(net, call), call).refused["query"]
    assert reason.startswith("Pruning a transformer breaks reshape calls that use the residual width: derive the shape from the")
    assert "test_prune_zoo.py" in reason
    assert "self.num_heads, width" in reason


def test_a_net_that_mixes_channels_without_weights_is_refused() -> None:
    class Softmax(Zoo):
        def body(self, x: torch.Tensor) -> torch.Tensor:
            return x.softmax(1)

    net = Softmax().eval()
    refused = prove(net, find_groups(net, lambda m: [m(PICTURE)]), lambda m: [m(PICTURE)]).refused
    assert "from all its channels together" in refused["first.0"]


def test_kept_layers_and_unknown_patterns() -> None:
    net, call = build("residual")
    found = find_groups(net, call, keep=["up"])
    assert "up.0" not in {group.name for group in found.groups}
    assert "'keep' names up.0" in found.refused["up.0"]
    with pytest.raises(RecipeError, match=r"no layer is named 'dwon'\. Did you mean 'down'"):
        find_groups(net, call, keep=["dwon"])


@pytest.mark.parametrize("batch_first", [True, False])
def test_opened_attention_answers_as_torchs(batch_first: bool) -> None:
    torch.manual_seed(0)
    source = nn.MultiheadAttention(32, 4, batch_first=batch_first).eval()
    x, mask = torch.randn(5, 5, 32), torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
    padding = torch.zeros(5, 5, dtype=torch.bool)
    padding[1, 3:] = True
    opened = Attention(source)
    with torch.no_grad():
        expected = source(x, x, x, attn_mask=mask, key_padding_mask=padding)
        answers = opened(x, x, x, attn_mask=mask, key_padding_mask=padding)
    for ours, theirs in zip(answers, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_heads_go_whole_and_the_field_that_counts_them_follows() -> None:
    net, call = build("heads")
    groups = prove(net, find_groups(net, call), call).groups
    cut(net, groups, {"query": torch.tensor([1, 2, 3])})
    assert net.num_heads == 1
    assert call(net)[0].shape == (2, 3)
