"""neural-compressor's static int8 of one example, as it comes, and its answers in torch.

::

    python benchmarks/lab/neural_compressor_answers.py examples/fashion calibration.npy evaluation.npy answers.npy
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from edgekit.core.task import load_task


def main(example: Path, calibration: Path, evaluation: Path, output: Path) -> None:
    from neural_compressor.torch.export import export
    from neural_compressor.torch.quantization import StaticQuantConfig, convert, prepare

    torch.set_num_threads(1)
    net = load_task(example / "task.py").build_model()
    samples = torch.from_numpy(np.load(calibration))
    prepared = prepare(export(net, (samples[:1],)), StaticQuantConfig())
    with torch.no_grad():
        for sample in samples:
            prepared(sample[None])
        quantized = convert(prepared)
        np.save(output, np.concatenate([quantized(sample[None]).numpy() for sample in torch.from_numpy(np.load(evaluation))]))


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
