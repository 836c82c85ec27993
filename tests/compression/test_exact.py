"""int8-exact: every executor computes the same bits, and the checker says why, or names what it is that cannot."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgekit import pipeline, registry
from edgekit.compression.capture import capture
from edgekit.compression.quantize import RUNNER
from edgekit.compression.quantize.exact.check import check_exactness
from edgekit.compression.quantize.exact.rational import ERROR_STEPS, margin_steps, nearby_multiplier, odd_multipliers, recognise
from edgekit.core.compressed import Compressed
from edgekit.core.plugins import silent
from edgekit.core.program import answer_samples
from edgekit.core.recipe import Quantize, Recipe
from edgekit.core.task import Task

RUNTIMES = {"onnxruntime": "onnx", "litert": "tflite", "coreml-reference": "coreml"}


class EveryExactKernel(nn.Module):
    """Convolutions, residual additions, products, constants, tables, poolings, concatenation, a mean and a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.wide = nn.Conv2d(8, 16, 1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.narrow = nn.Conv2d(16, 8, 1)
        self.gate = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(16, 5)
        self.shift = nn.Parameter(torch.randn(8, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = nn.functional.avg_pool2d(torch.relu(self.stem(image)), 2, padding=1)
        for _ in range(2):
            x = x + self.narrow(nn.functional.relu6(self.depthwise(nn.functional.relu6(self.wide(x)))))
        gated = torch.relu(x * torch.sigmoid(self.gate(x)) + self.shift)
        both = torch.cat([gated, torch.relu(x)], 1)
        return self.head(nn.functional.max_pool2d(both, 2).mean([2, 3]))


def quantize(task: Task, **fields: Any) -> Compressed:
    return RUNNER(capture(task, recipe=Recipe.parse_text("int8")), step=Quantize(**fields), task=task, progress=silent)[0]


@pytest.fixture
def task(make_task: Callable[..., Task]) -> Task:
    torch.manual_seed(0)
    return make_task(EveryExactKernel(), (1, 3, 24, 24), samples=32)


@given(st.floats(1e-4, 4.0), st.booleans())
def test_multipliers_are_tie_free_near_and_on_the_asked_side(value: float, larger: bool) -> None:
    found = nearby_multiplier(value, larger=larger)
    assert found.denominator % 2 == 1
    assert margin_steps(found) > 0
    if value > 1e-3:
        assert abs(float(found) / value - 1) <= 0.0081
        assert (
            (found >= Fraction(value) * Fraction(999999999, 10**9))
            if larger
            else (found <= Fraction(value) * Fraction(1000000001, 10**9))
        )


@given(st.floats(3e-4, 1.0), st.floats(1e-3, 1.0), st.floats(1e-3, 1.0))
def test_float32_scales_keep_the_fraction_and_its_rounding(value: float, source: float, output: float) -> None:
    source, output = float(np.float32(source)), float(np.float32(output))
    multiplier = odd_multipliers(np.array([value]))[0]
    scale = np.float32(multiplier * output / source)
    fraction = recognise(Fraction(source) * Fraction(float(scale)) / Fraction(output))
    assert abs(float(fraction) / multiplier - 1) < 1e-6
    sums = np.arange(-int(127 / multiplier), int(127 / multiplier), max(1, int(1 / multiplier / 97)))
    computed = sums.astype(np.float32) * (np.float32(source) * scale / np.float32(output))
    exact = sums * float(fraction)
    assert np.abs(computed - exact).max() < ERROR_STEPS
    assert np.array_equal(np.rint(computed), np.floor(exact + 0.5))  # even rounding and rounding up meet no tie to differ in


def test_every_runtime_computes_the_same_bits(task: Task, tmp_path: Path) -> None:
    state = pipeline.compress(task, recipe="int8-exact", output=tmp_path / "run")
    report = check_exactness(state.program)
    assert report.is_exact, report.inexact
    artifacts = pipeline.export(tmp_path / "run", targets=tuple(RUNTIMES.values()), float_baseline=False)
    images = np.random.default_rng(7).normal(size=(64, 1, 3, 24, 24)).astype(np.float32) * 1.5
    expected = answer_samples(state.program, {"image": images}, ["output"])["output"]
    files = {artifact.target: artifact.path for artifact in artifacts}
    for name, target in RUNTIMES.items():
        session = registry.runtime(name).load(files[target])
        found = np.stack([session.run({"image": image})["output"] for image in images])
        session.close()
        assert np.array_equal(found, expected), f"{name}: {(found != expected).sum()} of {found.size} differ"


def test_exactness_costs_next_to_nothing(task: Task) -> None:
    def noise(state: Compressed) -> float:
        signal = answer_samples(state.float_program, state.golden.inputs, ["output"])["output"]
        return float(((signal - state.golden.outputs["output"]) ** 2).mean())

    assert noise(quantize(task, exact=True)) < 1.5 * noise(quantize(task))


def test_what_cannot_be_exact_is_named_with_its_reason(make_task: Callable[..., Task]) -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score = nn.Linear(12, 12)
            self.norm = nn.LayerNorm(12)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(torch.softmax(self.score(x), -1))

    torch.manual_seed(0)
    task = make_task(Attention(), (1, 4, 12))
    state, record = RUNNER(
        capture(task, recipe=Recipe.parse_text("int8-exact")), step=Quantize(exact=True), task=task, progress=silent
    )
    reasons = {kernel.op: kernel.reason for kernel in check_exactness(state.program).inexact}
    assert "exponentials" in reasons["softmax"]
    assert "NOT exact" in record.summary
    assert any("softmax" in text for text in record.details["inexact_kernels"])


def test_ordinary_scales_are_found_wanting(task: Task) -> None:
    state = quantize(task)  # plain int8 aligns all but the input, and pools as the user wrote it
    inexact = check_exactness(state.program).inexact
    assert [kernel.op for kernel in inexact] == ["input", "avg_pool"]
    assert "power of two" in inexact[0].reason
