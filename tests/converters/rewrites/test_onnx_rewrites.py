"""Operators that torch.onnx has not, in operators it has: running products, distances, masked attention; branches as integers."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit import pipeline
from edgekit.conversion import convert_in_worker
from edgekit.converters.rewrites import rewrite_for
from edgekit.core.artifact import Artifact
from edgekit.core.compressed import Compressed
from edgekit.core.program import answer_samples
from edgekit.core.task import Task
from edgekit.runtimes.onnxruntime import RUNTIME


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * torch.cond(x.sum() > 0, lambda x: self.left(x).relu(), lambda x: self.right(x).tanh(), (x,))


class Product(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.cumprod(-1)


class Distance(nn.Module):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cdist(x, x.flip(1) + 0.5, p=self.p)


class Masked(nn.Module):
    """T5's attention: the kernel's memory order is not the decomposition's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = x.view(1, 5, 2, 2).transpose(1, 2)
        bias = torch.arange(25.0).view(5, 5, 1).permute(2, 0, 1).unsqueeze(0).expand(1, 2, 5, 5)
        y = nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=bias, scale=1.0)
        return y.reshape(1, -1, 5, 2).transpose(1, 2).reshape(1, 5, -1)


def captured(net: nn.Module, shape: tuple[int, ...] = (1, 5, 4)) -> Compressed:
    torch.manual_seed(0)
    drawn = [np.random.default_rng(seed).standard_normal(shape).astype(np.float32) for seed in range(8)]
    task = Task(name="net", model=net, example_inputs=drawn[0], calibration=drawn)
    return pipeline.compress(task, recipe="none")


def test_a_branch_becomes_integers() -> None:
    torch.manual_seed(0)
    drawn = [np.random.default_rng(seed).standard_normal((1, 4)).astype(np.float32) for seed in range(16)]
    task = Task(name="net", model=Branch(), example_inputs=drawn[0], calibration=drawn)
    state = pipeline.compress(task, recipe="int8")
    assert len([entry for entry in state.contract.parameters if entry.role == "weight"]) == 2
    assert not [node for node in state.program.graph.nodes if str(node.target) == "cond"]
    samples = np.stack(drawn)
    found, expected = (answer_samples(p, {"x": samples}, ["y"])["y"] for p in (state.program, state.float_program))
    assert np.abs(found - expected).max() < 0.03 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("net", "name"),
    [(Product(), "cumprod-to-products"), (Distance(2.0), "cdist-to-differences"), (Distance(1.0), "cdist-to-differences")],
)
def test_onnx_takes_what_the_exporter_alone_refuses(net: nn.Module, name: str, tmp_path: Path) -> None:
    with warnings.catch_warnings(), pytest.raises(torch.onnx.OnnxExporterError):  # the vendor's own call
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (torch.randn(1, 5, 4),), dynamo=True, verbose=False)
    state = captured(net)
    state.save(tmp_path / "compressed")
    (tmp_path / "onnx").mkdir()
    places = {"compressed": str(tmp_path / "compressed"), "output": str(tmp_path / "onnx")}
    convert_in_worker(target="onnx", as_float=False, options={}, **places)
    artifact = Artifact.load(tmp_path / "onnx")
    assert [record.name for record in artifact.rewrites] == [name]
    sample = np.random.default_rng(7).standard_normal((1, 5, 4)).astype(np.float32)
    session = RUNTIME.load(artifact.path)
    [found] = session.run({session.inputs[0].name: sample}).values()
    np.testing.assert_allclose(found, net(torch.from_numpy(sample)).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("p", [0.0, 3.0, float("inf")])
def test_other_norms(p: float) -> None:
    state = captured(Distance(p))
    rewritten, _ = rewrite_for(state, "onnx")
    samples = np.random.default_rng(3).standard_normal((2, 1, 5, 4)).astype(np.float32)
    found, expected = (answer_samples(made.program, {"x": samples}, ["y"])["y"] for made in (rewritten, state))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_masked_attention_is_copied_into_plain_order() -> None:
    state = captured(Masked())
    rewritten, [record] = rewrite_for(state, "onnx")
    assert (record.name, record.count, record.largest_error) == ("attention-in-plain-order", 1, 0.0)
    attention = next(node for node in rewritten.program.graph.nodes if "scaled_dot_product" in str(node.target))
    assert [str(user.target) for user in attention.users] == ["aten.clone.default"]
