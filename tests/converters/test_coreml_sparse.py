"""What became zero is not stored: the package is smaller, and computes the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit import compress, export, registry
from edgekit.core.compressed import load_golden
from edgekit.core.recipe import Recipe, Sparsify
from edgekit.core.task import Task

pytest.importorskip("coremltools", reason="needs coremltools: pip install 'edgekit[coreml]'")


def test_zeros_take_a_bit_each(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv1d(3, 64, 5, padding=2), torch.nn.ReLU(), torch.nn.Conv1d(64, 64, 5, padding=2), torch.nn.Flatten()
    )
    signals = np.random.default_rng(0).standard_normal((16, 3, 8)).astype(np.float32)
    task = Task(name="zeros", model=net, example_inputs=signals[:1], calibration=[signals])
    recipe = Recipe(name="sparse", steps=(Sparsify(ratio=0.6, recover=False),))
    compressed = compress(task, recipe=recipe, measure=False)
    sparse, dense = export(compressed, targets=["coreml"], output=tmp_path / "run")
    assert any("mask and values" in note for note in sparse.notes)
    assert dense.is_baseline
    values = sum(parameter.numel() for parameter in net.parameters())
    assert dense.size_bytes - sparse.size_bytes == pytest.approx(values * 4 * 0.6 - values / 8, rel=0.1)

    golden = load_golden(tmp_path / "run" / "compressed")
    runtime = registry.runtime("coreml-reference").load(sparse.path)
    for sample in range(4):
        found = runtime.run({name: array[sample] for name, array in golden.inputs.items()})
        for name, expected in golden.outputs.items():
            np.testing.assert_allclose(found[name], expected[sample], rtol=1e-4, atol=1e-5)
