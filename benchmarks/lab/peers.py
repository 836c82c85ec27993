"""Other tools' static int8 quantization of the same float files with the same calibration data.

Each is a process of its own, because the tools pin threads and print::

    python benchmarks/lab/peers.py onnxruntime-s8 float.onnx calibration.npy int8.onnx
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]


def onnxruntime_s8(model: Path, images: Images, output: Path) -> None:
    """``quantize_static`` as it comes: signed activations; per-channel weights, as everyone recommends for depthwise nets."""
    _quantize_static(model, images, output, activations="QInt8")


def onnxruntime_u8(model: Path, images: Images, output: Path) -> None:
    """``quantize_static`` with unsigned activations, the fast choice on x86; per-channel weights."""
    _quantize_static(model, images, output, activations="QUInt8")


def _quantize_static(model: Path, images: Images, output: Path, *, activations: str) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = output.with_suffix(".prepared.onnx")
    quant_pre_process(model, prepared)

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest: Iterator[Images] = iter(images)
            self.name = _input_name(prepared)

        def get_next(self) -> dict[str, Images] | None:
            image = next(self.rest, None)
            return None if image is None else {self.name: image[None]}

    quantize_static(
        prepared,
        output,
        Reader(),
        per_channel=True,
        activation_type=QuantType[activations],
        weight_type=QuantType.QInt8,
    )
    prepared.unlink()


def _input_name(model: Path) -> str:
    import onnx

    return str(onnx.load(model).graph.input[0].name)


def ai_edge_quantizer(model: Path, images: Images, output: Path) -> None:
    """ai-edge-quantizer's ``static_wi8_ai8`` recipe."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    signatures = Interpreter(model_content=model.read_bytes()).get_signature_list()
    key, signature = next(iter(signatures.items()))
    name = signature["inputs"][0]
    shape = _input_shape(model)
    laid_out = images if shape[1:] == images.shape[1:] else images.transpose(0, 2, 3, 1)
    tool = quantizer.Quantizer(str(model), recipe.static_wi8_ai8())
    statistics = tool.calibrate({key: [{name: image[None]} for image in laid_out]}, num_threads=1)
    result: Any = tool.quantize(statistics)
    result.export_model(output, overwrite=True)


def _input_shape(model: Path) -> tuple[int, ...]:
    from ai_edge_litert.interpreter import Interpreter

    return tuple(int(size) for size in Interpreter(model_content=model.read_bytes()).get_input_details()[0]["shape"])


PEERS: dict[str, Callable[[Path, Images, Path], None]] = {
    "onnxruntime-s8": onnxruntime_s8,
    "onnxruntime-u8": onnxruntime_u8,
    "ai-edge-quantizer": ai_edge_quantizer,
}


if __name__ == "__main__":
    _, peer, source, calibration, target = sys.argv
    PEERS[peer](Path(source), np.load(calibration), Path(target))
