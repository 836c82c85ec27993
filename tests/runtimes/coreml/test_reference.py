"""The reference runtime: float nets against torch, precision modes, options, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgekit.core.artifact import Artifact
from edgekit.core.compressed import Compressed
from edgekit.core.errors import DataError, UsageError
from edgekit.runtimes.coreml.reference import RUNTIME

Export = Callable[..., tuple[Compressed, Artifact]]


class Encoder(nn.Module):
    """A two-layer transformer encoder over token indices."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.tokens = nn.Embedding(30, width)
        self.positions = nn.Parameter(0.1 * torch.randn(1, 8, width))
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "before": nn.LayerNorm(width), "qkv": nn.Linear(width, 3 * width), "out": nn.Linear(width, width),
                    "between": nn.LayerNorm(width), "up": nn.Linear(width, 32), "down": nn.Linear(32, width),
                }
            )
            for _ in range(2)
        )  # fmt: skip
        self.head = nn.Linear(width, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.positions
        n, t, d = x.shape
        for layer in self.layers:
            parts = layer["qkv"](layer["before"](x)).reshape(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
            query, key, value = parts.unbind(0)
            mixed = functional.scaled_dot_product_attention(query, key, value)
            x = x + layer["out"](mixed.transpose(1, 2).reshape(n, t, d))
            x = x + layer["down"](functional.gelu(layer["up"](layer["between"](x))))
        return torch.log_softmax(self.head(x.mean(1)), -1)


class Mobile(nn.Module):
    """Inverted residual, hard-swish, squeeze and excite, a strided stem and bilinear upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.wide = nn.Sequential(nn.Conv2d(8, 24, 1), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.SiLU())
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(24, 6, 1), nn.ReLU(), nn.Conv2d(6, 24, 1), nn.Hardsigmoid()
        )
        self.narrow = nn.Conv2d(24, 8, 1)
        self.up = nn.ConvTranspose2d(8, 4, 3, 2, 1, 1)
        self.head = nn.Linear(4, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.stem(image)
        y = self.depthwise(self.wide(x))
        x = x + self.narrow(y * self.squeeze(y))
        x = functional.interpolate(functional.max_pool2d(x, 2), scale_factor=2, mode="bilinear")
        return self.head(torch.cat([self.up(x)[..., 1:, :], functional.avg_pool2d(self.up(x), 2, 1)[..., :1, :1]
                                    .expand(-1, -1, 1, 16)], 2).mean((2, 3)))  # fmt: skip


class Signal(nn.Module):
    """1-D CNN: strided and dilated convolutions, pooling, instance norm, a global maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(6, 8, 5, padding=2), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(8, 8, 3, dilation=2),
            nn.Tanh(), nn.InstanceNorm1d(8), nn.AvgPool1d(3, 2, 1), nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(8, 3),
            nn.Softmax(-1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


IMAGES = np.random.default_rng(1).standard_normal((4, 3, 16, 16)).astype(np.float32)
SIGNALS = np.random.default_rng(2).standard_normal((4, 6, 32)).astype(np.float32)
TOKENS = np.random.default_rng(3).integers(0, 30, (4, 8))


@pytest.mark.parametrize(
    ("build", "data", "options"),
    [
        (Mobile, IMAGES, {}),
        (Mobile, IMAGES, {"compute_precision": "float16"}),
        (Signal, SIGNALS, {"minimum_ios_version": 15}),
        (Encoder, TOKENS, {}),
        (Encoder, TOKENS, {"minimum_ios_version": 18}),
    ],
)
def test_float_nets_answer_like_torch(export_package: Export, build: Any, data: np.ndarray, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = build().eval()
    _, artifact = export_package(model, data[:1], calibration=data, recipe="none", **options)
    session = RUNTIME.load(artifact.path)
    assert session.inputs == artifact.inputs
    assert session.outputs == artifact.outputs
    tolerance = 2e-2 if options.get("compute_precision") == "float16" else 1e-4
    for sample in data:
        with torch.no_grad():
            expected = model(torch.from_numpy(sample[None])).numpy()
        found = session.run({session.inputs[0].name: sample[None].astype(session.inputs[0].dtype)})["output"]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=tolerance)


@pytest.fixture(scope="session")
def signal(export_package: Export) -> Artifact:
    torch.manual_seed(0)
    return export_package(Signal(), SIGNALS[:1], calibration=SIGNALS, recipe="none")[1]


def test_precision_decides_where_to_round(signal: Artifact) -> None:
    answers = {}
    for precision in ("declared", "float32", "float16"):
        session = RUNTIME.load(signal.path, options={"precision": precision})
        answers[precision] = session.run({"x": SIGNALS[:1]})["output"]
    np.testing.assert_array_equal(answers["declared"], answers["float32"])  # the program declares float32
    difference = np.abs(answers["float16"] - answers["float32"]).max()
    assert 0 < difference < 5e-3
    np.testing.assert_array_equal(answers["float16"], answers["float16"].astype(np.float16).astype(np.float32))


def test_version_says_what_it_is(signal: Artifact) -> None:
    assert "reference semantics, not the Neural Engine" in RUNTIME.version()


def test_threads_are_set_for_the_run_only(signal: Artifact) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        session = RUNTIME.load(signal.path, threads=2)
        session.run({"x": SIGNALS[:1]})
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_inputs_are_neither_kept_nor_changed(signal: Artifact) -> None:
    session = RUNTIME.load(signal.path)
    locked = SIGNALS[:1].copy()
    locked.setflags(write=False)
    first = session.run({"x": locked})["output"]
    np.testing.assert_array_equal(session.run({"x": np.asfortranarray(SIGNALS[:1])})["output"], first)
    np.testing.assert_array_equal(locked, SIGNALS[:1])


def test_unknown_option(signal: Artifact) -> None:
    with pytest.raises(UsageError, match="'precision' is 'half'; known: declared, float32, float16"):
        RUNTIME.load(signal.path, options={"precision": "half"})


def test_closed_session(signal: Artifact) -> None:
    session = RUNTIME.load(signal.path)
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session.run({"x": SIGNALS[:1]})


def test_index_out_of_range_is_the_datas_fault(export_package: Export) -> None:
    torch.manual_seed(0)
    _, artifact = export_package(Encoder(), TOKENS[:1], calibration=TOKENS, recipe="none")
    ids = TOKENS[:1].astype(np.int32)
    ids[0, 3] = 99
    with pytest.raises(DataError, match=r"\(gather\) cannot run: .*out of range"):
        RUNTIME.load(artifact.path).run({"ids": ids})
