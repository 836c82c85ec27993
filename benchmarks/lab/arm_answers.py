"""Runs inside the emulated Arm system: answers of one file, one sample at a time, with numpy and the runtime alone.

::

    arm_answers.py onnx model.onnx inputs.npy output.npy seconds

Inputs are ``[N, 1, ...]``; as many are answered as fit in the seconds after loading, at least one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Run = Callable[[Any], Any]


def onnx(path: str) -> Run:
    """ONNX Runtime, one thread."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda value: session.run(None, {name: value})[0]


def tflite(path: str) -> Run:
    """LiteRT with XNNPACK, one thread."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    source, output = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(value: Any) -> Any:
        interpreter.set_tensor(source, value)
        interpreter.invoke()
        return interpreter.get_tensor(output)

    return run


def main() -> None:
    _, kind, model, inputs, output, seconds = sys.argv
    run = {"onnx": onnx, "tflite": tflite}[kind](model)
    rows, begin = [], time.monotonic()
    for value in np.load(inputs):
        rows.append(run(value))
        if time.monotonic() - begin > float(seconds):
            break
    np.save(output, np.concatenate(rows))


if __name__ == "__main__":
    main()
