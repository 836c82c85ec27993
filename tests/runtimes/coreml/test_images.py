"""Inputs and outputs that are images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.converters.coreml import quiet_coremltools
from edgekit.core.errors import DataError
from edgekit.runtimes.coreml.reference import RUNTIME

with quiet_coremltools():
    import coremltools as ct

Save = Callable[..., Path]


class Brighter(torch.nn.Module):
    """Twice as bright, upside down: a picture in, a picture out."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.flip(x, (2,)) * 2.0 + 0.3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", ["RGB", "BGR", "GRAYSCALE", "GRAYSCALE_FLOAT16"])
def test_a_picture_in_and_a_picture_out(save_program: Save, layout: str) -> None:
    channels = 1 if layout.startswith("GRAY") else 3
    shape, colours = (1, channels, 4, 6), getattr(ct.colorlayout, layout)
    path = save_program(
        torch.jit.trace(Brighter().eval(), torch.zeros(shape)), target="iOS16",
        inputs=[ct.ImageType(name="x", shape=shape, color_layout=colours)],
        outputs=[ct.ImageType(name="y", color_layout=colours)],
    )  # fmt: skip
    session = RUNTIME.load(path)
    dtype = "float16" if layout.endswith("FLOAT16") else "uint8"
    assert [(spec.shape, spec.dtype) for spec in (*session.inputs, *session.outputs)] == [((1, 4, 6, channels), dtype)] * 2
    x = np.random.default_rng(0).integers(0, 256, (1, 4, 6, channels)).astype(dtype)
    expected = x[:, ::-1].astype(np.float64) * 2 + 0.3
    expected = np.clip(np.round(expected), 0, 255) if dtype == "uint8" else expected.astype(np.float16)
    np.testing.assert_array_equal(session.run({"x": x})["y"], expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("enumerated", [True, False])
def test_pictures_of_different_sizes(save_program: Save, enumerated: bool) -> None:
    sizes: Any = ct.EnumeratedShapes([(1, 3, 4, 6), (1, 3, 8, 5)]) if enumerated else (1, 3, ct.RangeDim(4, 8), ct.RangeDim(5, 6))
    path = save_program(
        torch.jit.trace(Brighter().eval(), torch.zeros(1, 3, 4, 6)), target="iOS16",
        inputs=[ct.ImageType(name="x", shape=sizes, color_layout=ct.colorlayout.RGB)],
    )  # fmt: skip
    session = RUNTIME.load(path)
    assert [axis.axis for axis in session.inputs[0].flexible] == [1, 2]
    for height, width in ((4, 6), (8, 5)):
        x = np.random.default_rng(height).integers(0, 256, (1, height, width, 3)).astype(np.uint8)
        (found,) = session.run({"x": x}).values()
        expected = x.transpose(0, 3, 1, 2)[:, :, ::-1].astype(np.float32) * 2 + np.float32(0.3)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    with pytest.raises(DataError, match=r"\[1, 9, 6, 3\], but the model expects uint8 \[1, 4"):
        session.run({"x": np.zeros((1, 9, 6, 3), np.uint8)})
