"""What a model is brought into before it is quantized: fewer operators, the same function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from edgekit.compression.quantize.canonical.form import canonicalize
from edgekit.compression.quantize.islands import REASON
from edgekit.compression.quantize.plan import Plan, make_plan

Function = Callable[..., torch.Tensor]


class Written(nn.Module):
    """A function with two layers to call."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.linear = nn.Linear(8, 24)
        self.gain = nn.Parameter(torch.rand(4, 1, 1) + 0.5)
        self.matrix = nn.Parameter(torch.randn(8, 5))
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
        self.norm = nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


def canonical(function: Function, *shape: int) -> tuple[Any, Counter[str]]:
    """The canonical module and how often it calls each operator; canonicalize itself checks that the function stays."""
    torch.manual_seed(0)
    example = (torch.randn(*shape),)
    module = canonicalize(torch.export.export(Written(function).eval(), example, strict=False), example)
    calls = Counter(str(node.target).split(".")[1] for node in module.graph.nodes if node.op == "call_function")
    return module, calls


def packed_attention(net: Any, x: torch.Tensor) -> torch.Tensor:
    query, key, value = net.linear(x).reshape(1, 6, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
    return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(1, 6, 8)


FORMS: list[tuple[str, Function, tuple[int, ...], dict[str, int]]] = [
    ("gain and shift", lambda n, x: (n.conv(x) * n.gain + 1.0) / 4.0 - 2.0, (1, 4, 6, 6), {"conv2d": 1}),
    ("scale through moves", lambda n, x: n.linear(x).reshape(2, 3, 24).transpose(1, 2) * 0.5, (6, 8),
     {"linear": 1, "reshape": 1, "transpose": 1}),
    ("number after relu", lambda n, x: 1.0 - 2.0 * torch.relu(x), (1, 4), {"relu": 1, "mul": 1, "sub": 1}),
    ("negation", lambda _, x: -torch.relu(x), (1, 4), {"relu": 1, "mul": 1}),
    ("alpha", lambda _, x: torch.add(x, torch.relu(x), alpha=3), (1, 4), {"relu": 1, "mul": 1, "add": 1}),
    ("product with a matrix", lambda n, x: x @ n.matrix, (3, 8), {"linear": 1}),
    ("normed weight", lambda n, x: n.normed(x), (3, 8), {"linear": 1}),
    ("split", lambda _, x: torch.cat([part * part for part in x.split([1, 3], 1)], 1), (1, 4, 2),
     {"slice": 2, "mul": 2, "cat": 1}),
    ("unbind and stack", lambda _, x: torch.stack([torch.relu(one) for one in x.unbind(1)], 1), (1, 2, 3),
     {"select": 2, "relu": 2, "unsqueeze": 2, "cat": 1}),
    ("reshapes in a row", lambda _, x: x.unsqueeze(0).flatten(1).view(4, 9).squeeze(), (1, 4, 3, 3), {"reshape": 1}),
    ("permutes that cancel", lambda _, x: torch.relu(x.transpose(1, 2).permute(0, 2, 1)), (1, 4, 3), {"relu": 1}),
    ("even kernel", lambda n, x: functional.conv2d(x, n.conv.weight[:, :, :2, :2], padding="same"), (1, 4, 6, 6),
     {"pad": 1, "conv2d": 1}),
    ("equal windows", lambda _, x: functional.adaptive_avg_pool2d(x, 2), (1, 4, 6, 6), {"avg_pool2d": 1}),
    ("silu", lambda _, x: functional.silu(x), (1, 4), {"sigmoid": 1, "mul": 1}),
    ("hardsigmoid", lambda _, x: functional.hardsigmoid(x), (1, 4), {"add": 1, "hardtanh": 1, "mul": 1}),
    ("attention with packed projection", packed_attention, (1, 6, 8),
     {"linear": 3, "reshape": 4, "permute": 3, "transpose": 2, "matmul": 2, "softmax": 1}),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize(("function", "shape", "expected"), [row[1:] for row in FORMS], ids=[row[0] for row in FORMS])
def test_canonical_form(function: Function, shape: tuple[int, ...], expected: dict[str, int]) -> None:
    _, calls = canonical(function, *shape)
    assert calls == expected


def planned(function: Function, *shape: int) -> Plan:
    return make_plan(canonical(function, *shape)[0])


def test_a_sum_between_norms_stays_float_and_one_before_a_layer_does_not() -> None:
    plan = planned(lambda n, x: n.norm(n.norm(x) + n.normed(x)), 3, 8)
    assert [kernel.family.name for kernel in plan.kernels] == ["linear"]
    assert [(layer.op, layer.reason) for layer in plan.float_layers if layer.op == "add"] == [("add", REASON)]
    plan = planned(lambda n, x: n.linear(n.norm(x) + n.normed(x)), 3, 8)
    assert [kernel.family.name for kernel in plan.kernels] == ["linear", "add", "linear"]


def masked(net: Any, x: torch.Tensor) -> torch.Tensor:
    scores = net.linear(x) @ net.linear(x).transpose(0, 1)
    return torch.softmax(scores + torch.full((6, 6), -1e9).triu(1), -1) @ x


def biased(net: Any, x: torch.Tensor) -> torch.Tensor:
    scores = net.linear(x) @ net.linear(x).transpose(0, 1)
    return torch.softmax(scores + torch.linspace(-2, 2, 36).reshape(6, 6), -1) @ x


def test_a_mask_stays_float_and_a_bias_of_scores_does_not() -> None:
    plan = planned(masked, 6, 8)
    assert {layer.op for layer in plan.float_layers} == {"add", "softmax"}
    plan = planned(biased, 6, 8)
    assert plan.float_layers == ()
    assert [kernel.family.name for kernel in plan.kernels if kernel.family.name in {"add", "softmax"}] == ["add", "softmax"]


def edited_in_place(net: Any, x: torch.Tensor) -> torch.Tensor:
    y = net.linear(x).sigmoid()
    y[..., :2] = y[..., :2] * 2 - 0.5
    y[:, 1].mul_(3)
    y[..., 2:4].add_(1)
    return y


def test_what_is_edited_in_place_through_a_view_is_read_anew() -> None:
    """As the decoders of detection heads are written; canonicalize checks that the function stays."""
    _, calls = canonical(edited_in_place, 1, 3, 8)
    assert calls["slice_scatter"] >= 2
    assert calls["select_scatter"] == 1
    assert calls["copy"] == calls["copy_"] == calls["mul_"] == 0


def stepped(net: Any, x: torch.Tensor) -> torch.Tensor:
    state = x.new_zeros(1, 8)
    for _ in range(2):
        state = torch.tanh(net.normed(x)) + torch.sigmoid(x) * state
    return state


def test_a_first_state_of_zeros_costs_nothing() -> None:
    _, calls = canonical(stepped, 1, 8)
    assert calls["new_zeros"] == 0
    assert calls["mul"] == calls["add"] == 1  # those of the second step
