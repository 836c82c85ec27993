"""ONNX files of sixteen nets, read and written again: does ONNX Runtime answer the same with ours as with the original?

::

    python benchmarks/onnx_roundtrip.py              # about 3 minutes
    python benchmarks/onnx_roundtrip.py --only LSTM

The originals are written by both of torch's exporters and by ONNX Runtime's own static quantization; the error is the largest
absolute difference over all outputs of four samples, relative to the largest value.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lab.results import write_results
from torch import nn

from edgekit.conversion import convert_in_worker
from edgekit.core.artifact import ExportOptions
from edgekit.core.source import SourceOptions
from edgekit.intake import import_in_worker

PACKAGES = ("edgekit", "torch", "onnx", "onnxruntime", "numpy")
PICTURE = (1, 3, 32, 32)


class Residual(nn.Module):
    """Two convolutions around a shortcut, with batch normalization."""

    def __init__(self, width: int = 8, groups: int = 1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1, groups=groups), nn.BatchNorm2d(width), nn.ReLU6(), nn.Conv2d(width, width, 1)
        )
        self.head = nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[1, 3, 32, 32]`` -> ``[1, 5]``."""
        x = torch.nn.functional.hardswish(self.stem(x))
        return self.head((x + self.body(x)).mean((2, 3)))


class UNet(nn.Module):
    """Down, up, and a concatenation."""

    def __init__(self, *, transposed: bool) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, 1, 1))
        self.up = nn.ConvTranspose2d(8, 8, 3, 2, 1, 1) if transposed else nn.Upsample(scale_factor=2, mode="bilinear")
        self.out = nn.Conv2d(11, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[1, 3, 32, 32]`` -> ``[1, 2, 32, 32]``."""
        return self.out(torch.cat([self.up(self.down(x)), x], 1))


class Recurrent(nn.Module):
    """A recurrent layer and what it ends with."""

    def __init__(self, kind: Any, *, bidirectional: bool) -> None:
        super().__init__()
        self.layer = kind(6, 8, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(16 if bidirectional else 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[1, 12, 6]`` -> ``[1, 12, 3]``."""
        return self.head(self.layer(x)[0])


class Transformer(nn.Module):
    """Words, positions and two layers of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, 0.0, activation="gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[1, 9]`` -> ``[1, 4]``."""
        return self.head(self.layers(self.words(tokens)).mean(1))


class Patches(nn.Module):
    """A picture in patches, layer norm and GELU: a small vision transformer without attention."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, 16, 8, 8)
        self.mix = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.rows = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[1, 3, 32, 32]`` -> ``[1, 16]``."""
        x = self.cut(x).flatten(2).transpose(1, 2)
        x = x + self.rows(x.transpose(1, 2)).transpose(1, 2)
        return (x + self.mix(x)).amax(1)


class Attention(nn.Module):
    """Attention over a sequence, written by hand, with a causal mask."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.Linear(12, 36)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[1, 10, 12]`` -> the same."""
        query, key, value = self.parts(x).reshape(1, 10, 3, 2, 6).permute(2, 0, 3, 1, 4)
        mask = torch.ones(10, 10, dtype=torch.bool).tril()
        scores = (query @ key.transpose(-1, -2) / 6**0.5).masked_fill(~mask, -1e9)
        return (scores.softmax(-1) @ value).transpose(1, 2).reshape(1, 10, 12)


@dataclasses.dataclass(frozen=True)
class Net:
    """A net and how its file is written: by which exporter, at which opset."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    opset: int = 18
    traced: bool = False
    words: bool = False
    quantized: bool = False


SERIES = (1, 12, 6)
NETS = (
    Net("convolutions, residual", Residual, PICTURE),
    Net("convolutions, depthwise", lambda: Residual(groups=8), PICTURE),
    Net("convolutions, opset 11", Residual, PICTURE, opset=11, traced=True),
    Net("U-Net, bilinear", lambda: UNet(transposed=False), PICTURE),
    Net("U-Net, transposed", lambda: UNet(transposed=True), PICTURE),
    Net("U-Net, opset 9", lambda: UNet(transposed=True), PICTURE, opset=9, traced=True),
    Net("LSTM", lambda: Recurrent(nn.LSTM, bidirectional=False), SERIES, traced=True),
    Net("LSTM, both directions", lambda: Recurrent(nn.LSTM, bidirectional=True), SERIES, traced=True),
    Net("GRU, both directions", lambda: Recurrent(nn.GRU, bidirectional=True), SERIES, traced=True),
    Net("RNN", lambda: Recurrent(nn.RNN, bidirectional=False), SERIES, traced=True),
    Net("transformer", Transformer, (1, 9), words=True),
    Net("transformer, opset 14", Transformer, (1, 9), opset=14, traced=True, words=True),
    Net("patches", Patches, PICTURE),
    Net("patches, opset 13", Patches, PICTURE, opset=13, traced=True),
    Net("attention by hand", Attention, (1, 10, 12)),
    Net("static int8 of ONNX Runtime", Residual, PICTURE, quantized=True),
)


def write(net: Net, path: Path) -> list[np.ndarray[Any, Any]]:
    """Write the original file; return its samples."""
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    samples = [draw.integers(0, 50, net.shape) if net.words else draw.standard_normal(net.shape, np.float32) for _ in range(4)]
    model = net.build().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr, operator]
                module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
    torch.onnx.export(
        model, (torch.from_numpy(samples[0]),), path, input_names=["x"], output_names=["y"], opset_version=net.opset,
        dynamo=not net.traced, external_data=False, verbose=False,
    )  # fmt: skip
    if net.quantized:
        quantize(path, samples)
    return samples


def quantize(path: Path, samples: list[np.ndarray[Any, Any]]) -> None:
    """ONNX Runtime's static quantization, in its Q/DQ form."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = iter([{"x": sample} for sample in samples])

        def get_next(self) -> Any:
            return next(self.rows, None)

    plain = path.with_name("plain.onnx")
    path.rename(plain)
    quantize_static(plain, path, Reader(), per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)


def answers(path: Path, samples: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.stack([session.run(None, {"x": sample})[0] for sample in samples])


def measure(net: Net, work: Path) -> dict[str, Any]:
    """Error of the file that is written again."""
    original, folder, output = work / "model.onnx", work / "compressed", work / "onnx"
    output.mkdir()
    samples = write(net, original)
    import_in_worker(
        source="onnx", path=str(original), output=str(folder), options=SourceOptions().model_dump(mode="json"), keep_all=False
    )
    convert_in_worker(
        target="onnx", compressed=str(folder), output=str(output), as_float=False, options=ExportOptions().model_dump(mode="json")
    )
    expected, found = answers(original, samples), answers(output / "model.onnx", samples)
    largest = float(np.abs(expected).max())
    return {
        "net": net.name,
        "exporter": "tracing" if net.traced else "torch.export",
        "opset": net.opset,
        "largest_value": largest,
        "relative_error": float(np.abs(expected - found).max()) / largest,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="nets whose name holds this word")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")  # torch warns about its older exporter
    torch.set_num_threads(1)
    rows = []
    for net in NETS:
        if arguments.only in net.name:
            with tempfile.TemporaryDirectory() as temporary:
                rows.append(measure(net, Path(temporary)))
            print(f"{net.name:32} {rows[-1]['relative_error']:.1e}", flush=True)
    path = write_results("onnx_roundtrip", rows, settings={"samples": 4}, packages=PACKAGES, quick=bool(arguments.only))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
