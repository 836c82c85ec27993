"""What litert-torch refuses or gets wrong, and what its runtime refuses: rewritten, the same nets convert and agree."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgekit.compression.capture import capture
from edgekit.converters.preparation import prepare
from edgekit.converters.rewrites import rewrite_for
from edgekit.converters.tflite import CONVERTER
from edgekit.core.artifact import ExportOptions
from edgekit.core.compressed import Compressed
from edgekit.core.program import answer_samples
from edgekit.core.recipe import Recipe
from edgekit.core.task import Task
from edgekit.runtimes.litert import RUNTIME

Function = Callable[..., torch.Tensor]


class Net(nn.Module):
    """A function as a net."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


class Bags(nn.Module):
    def __init__(self, mode: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.bag = nn.EmbeddingBag(10, 4, mode=mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bag(x.abs().long().clamp(max=9))


def spectrum(x: torch.Tensor) -> torch.Tensor:
    return torch.stft(x[:, 0], 16, 4, window=torch.hann_window(16), return_complex=True).abs()


def filtered(x: torch.Tensor) -> torch.Tensor:
    gains = torch.complex(torch.linspace(0, 1, 13), torch.linspace(1, 0, 13))
    return torch.fft.irfft(torch.fft.rfft(x, norm="ortho") * gains, n=24, norm="ortho")


def resynthesized(x: torch.Tensor) -> torch.Tensor:
    window = torch.hann_window(16)
    return torch.istft(torch.stft(x[:, 0], 16, 4, window=window, return_complex=True) * 0.5, 16, 4, window=window)


def rotated(x: torch.Tensor) -> torch.Tensor:
    turns = torch.polar(torch.ones(4, 12), torch.arange(48.0).reshape(4, 12) / 10)
    return torch.view_as_real(torch.view_as_complex(x.reshape(1, 4, 12, 2)) * turns).flatten(-2)


def masked(x: torch.Tensor) -> torch.Tensor:
    x = x + 0.0
    x[x < 0] = 0.5
    return x * 2


def summed_by_place(x: torch.Tensor) -> torch.Tensor:
    return torch.zeros(1, 3, 24).index_add(1, torch.tensor([2, 0, 2, 1]), x)


def largest_by_place(x: torch.Tensor) -> torch.Tensor:
    return x.scatter_reduce(2, (x.abs() * 7).long().clamp(max=23), x * 2, "amax")


def scattered(x: torch.Tensor) -> torch.Tensor:
    values, places = x.topk(3, -1)
    return torch.zeros(1, 4, 24).scatter(-1, places, values.softmax(-1))


def repeated(x: torch.Tensor) -> torch.Tensor:
    from torch._higher_order_ops.while_loop import while_loop

    def body(count: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return count + 1, value * 0.9 + 0.1

    result: torch.Tensor = while_loop(lambda count, value: count < 5, body, (torch.tensor(0), x))[1]
    return result


def widened(x: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(x.reshape(1, 4, 4, 6), size=(7, 11), mode="nearest")


def smoothed(x: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(x.reshape(1, 4, 4, 6), size=(3, 4), mode="bicubic", antialias=True)


def many_axes(x: torch.Tensor) -> torch.Tensor:
    return functional.pad(x.reshape(1, 2, 2, 2, 3, 4), (1, 0, 0, 1)) ** 2


CASES: dict[str, tuple[nn.Module, str]] = {
    "stft": (Net(spectrum), "complex-to-pairs"),
    "rfft": (Net(filtered), "complex-to-pairs"),
    "rotation": (Net(rotated), "complex-to-pairs"),
    "mask": (Net(masked), "masked-write-to-where"),
    "sort": (Net(lambda x: x.sort(1)[0]), "sort-to-top-k"),
    "median": (Net(lambda x: x.median(-1)[0]), "median-to-top-k"),
    "smallest": (Net(lambda x: x.topk(3, 1, largest=False)[0]), "top-k-of-last-axis"),
    "index-add": (Net(summed_by_place), "index-add-to-matmul"),
    "scatter-reduce": (Net(largest_by_place), "scatter-reduce-to-reductions"),
    "bag": (Bags("mean"), "embedding-bag-to-matmul"),
    "loop": (Net(repeated), "counted-loop-written-out"),
    "nearest": (Net(widened), "fractional-nearest-to-index"),
    "antialias": (Net(smoothed), "smoothed-bicubic-to-matrices"),
    "six-axes": (Net(many_axes), "pad-axis-by-axis"),
}


def captured(net: nn.Module) -> Compressed:
    drawn = [np.random.default_rng(seed).standard_normal((1, 4, 24)).astype(np.float32) for seed in range(8)]
    example = drawn[0][0].copy() * 4 if isinstance(net, Bags) else drawn[0]
    calibration = [sample[0] * 4 for sample in drawn] if isinstance(net, Bags) else drawn
    task = Task(name="net", model=net, example_inputs=example, calibration=calibration)
    return capture(task, recipe=Recipe.read("none"))


def vendor_answers(net: nn.Module, state: Compressed) -> np.ndarray | None:
    """The vendor's own call on the second golden input; None where it refuses, or its runtime does."""
    import litert_torch

    first, second = (torch.from_numpy(state.golden.inputs["x"][at]) for at in (0, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return np.asarray(litert_torch.convert(net.eval(), (first,))(second))
        except Exception:
            return None


def one_in(count: int, cases: Iterable[str]) -> list[Any]:
    """One case in so many is shown by every test run, all of them by ``make proofs``."""
    return [case if at % count == 0 else pytest.param(case, marks=pytest.mark.proof) for at, case in enumerate(cases)]


@pytest.mark.parametrize("case", one_in(4, CASES))
def test_the_vendor_fails_where_the_rewritten_program_agrees(case: str, tmp_path: Path) -> None:
    net, name = CASES[case]
    state = captured(net)
    expected = state.golden.outputs["output"][1]
    alone = vendor_answers(net, state)
    assert alone is None or alone.shape != expected.shape or np.abs(alone - expected).max() > 0.05 * np.abs(expected).max()
    given, records = prepare(state, target="tflite", options=ExportOptions())
    assert name in {record.name for record in records}
    artifact = CONVERTER.convert(given, output=tmp_path, options=ExportOptions())
    session = RUNTIME.load(artifact.path)
    found = session.run({"x": state.golden.inputs["x"][1]})["output"]
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


REWRITTEN: dict[str, tuple[nn.Module, tuple[int, ...], str]] = {
    "fft2": (Net(lambda x: torch.fft.fft2(x, norm="forward").real), (1, 2, 6, 5), "complex-to-pairs"),
    "ifftn": (Net(lambda x: torch.view_as_real(torch.fft.ifftn(torch.fft.fftn(x)))), (1, 3, 4), "complex-to-pairs"),
    "irfft2": (Net(lambda x: torch.fft.irfft2(torch.fft.rfft2(x) / (2 + 1j), s=(6, 5))), (1, 2, 6, 5), "complex-to-pairs"),
    "padded-rfft": (Net(lambda x: torch.fft.rfft(x, n=20, dim=1).angle().cos()), (1, 16, 3), "complex-to-pairs"),
    "two-sided-stft": (
        Net(lambda x: torch.view_as_real(torch.stft(x, 8, 3, 6, torch.hann_window(6), normalized=True, onesided=False,
                                                    return_complex=True))),
        (2, 32), "complex-to-pairs",
    ),
    "istft": (Net(resynthesized), (1, 1, 64), "complex-to-pairs"),
    "complex-matmul": (
        Net(lambda x: torch.view_as_real(torch.complex(x, x + 1) @ torch.complex(x, -x).mT)), (1, 3, 4), "complex-to-pairs"
    ),
    "complex-einsum": (
        Net(lambda x: torch.einsum("bij,bkj->bik", torch.complex(x, x * 2), torch.complex(x + 1, x)).abs()), (1, 3, 4),
        "complex-to-pairs",
    ),
    "index-copy": (Net(lambda x: x.index_copy(1, torch.tensor([2, 0]), x[:, :2] * 3)), (1, 4, 3), "index-copy-to-matmul"),
    "index-fill": (Net(lambda x: x.index_fill(1, torch.tensor([0, 3]), -1.0)), (1, 4, 3), "index-fill-to-where"),
    "scatter": (Net(scattered), (1, 4, 24), "scatter-to-where"),
    "scatter-rows": (
        Net(lambda x: x.scatter_add(1, torch.tensor([[[0, 2], [1, 1]]]), x[:, :2, :2] * 2)), (1, 4, 3), "scatter-add-to-sums"
    ),
    "scatter-mean": (
        Net(lambda x: x.scatter_reduce(1, torch.tensor([[[1] * 3, [1] * 3]]), x[:, 2:], "mean", include_self=False)), (1, 4, 3),
        "scatter-reduce-to-reductions",
    ),
    "stable-argsort": (Net(lambda x: torch.sort(x.round(), dim=1, stable=True)[1].float()), (1, 8, 3), "stable-sort-to-top-k"),
    "descending": (Net(lambda x: x.argsort(1, descending=True).float()), (1, 8, 3), "argsort-to-top-k"),
    "kth": (Net(lambda x: x.kthvalue(2, 1)[0]), (1, 8, 3), "kth-value-to-top-k"),
    "mask-of-rows": (
        Net(lambda x: torch.zeros(2, 3).index_put((x[:, 0] > 0,), torch.arange(3.0)) + x), (2, 3), "masked-write-to-where"
    ),
    "two-sided-branch": (
        Net(lambda x: torch.cond(x.sum() > 0, lambda v: (v.sin(), v + 1), lambda v: (v.cos(), v - 1), (x,))[1]), (2, 3),
        "cond-to-where",
    ),
    "deconvolution": (
        nn.ConvTranspose3d(2, 4, 3, (2, 1, 2), 1, (1, 0, 1), groups=2), (1, 2, 3, 4, 3), "transposed-conv3d-to-slices"
    ),
    "grouped": (nn.Conv3d(4, 8, 3, 2, 1, groups=4), (1, 4, 6, 5, 6), "grouped-conv3d-to-parts"),
    "uneven-maximum": (nn.AdaptiveMaxPool1d(3), (1, 2, 8), "adaptive-max-pool-1d-to-slices"),
    "fractional": (nn.Upsample(scale_factor=1.5), (1, 2, 5, 6), "fractional-nearest-to-index"),
}  # fmt: skip


@pytest.mark.parametrize("case", one_in(3, REWRITTEN))
def test_the_rewritten_program_computes_the_same(case: str) -> None:
    net, shape, name = REWRITTEN[case]
    drawn = [np.random.default_rng(seed).standard_normal(shape).astype(np.float32) for seed in range(8)]
    state = capture(Task(name="net", model=net, example_inputs=drawn[0], calibration=drawn), recipe=Recipe.read("none"))
    rewritten, records = rewrite_for(state, "tflite")
    assert name in {record.name for record in records}
    (inputs,) = state.golden.inputs
    samples = {inputs: np.random.default_rng(99).standard_normal((6, *shape)).astype(np.float32)}
    found, expected = (answer_samples(made.program, samples, ["output"])["output"] for made in (rewritten, state))
    np.testing.assert_allclose(found, expected, atol=2e-5 * max(1.0, float(np.abs(expected).max())))


def test_complex_numbers_without_a_rule_stay_whole() -> None:
    """A program is rewritten altogether or not at all."""
    net = Net(lambda x: torch.complex(x, x).log().real + torch.fft.rfft(x, n=4).real.sum())
    sample = np.ones((1, 4), np.float32)
    state = capture(Task(name="net", model=net, example_inputs=sample, calibration=[sample] * 8), recipe=Recipe.read("none"))
    rewritten, records = rewrite_for(state, "tflite")
    assert "complex-to-pairs" not in {record.name for record in records}
    assert [str(node.target) for node in rewritten.program.graph.nodes if "log" in str(node.target)] == ["aten.log.default"]
