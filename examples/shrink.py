"""Half the multiplications, a quarter of the bits: the smartwatch net pruned, taught by its dense self, and quantized.

::

    python examples/shrink.py

Every row of the table is measured on the ONNX file of that stage, in ONNX Runtime, on people the net has not met.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

import edgekit as ek
from edgekit.report.stages import render_stages

TASK = Path(__file__).resolve().parent / "smartwatch" / "task.py"

RECIPE = ek.Recipe(
    name="prune50+distill+int8",
    steps=(
        ek.Prune(ratio=0.5, recover=False),  # what is left is trained by the next step
        ek.Distill(training=ek.Training(epochs=6)),  # the dense net teaches
        ek.Quantize(),
    ),
)


def main(output: Path | None = None) -> ek.Compressed:
    """Compress, and show what each step won."""
    task = ek.load_task(TASK)
    compressed = ek.compress(task, recipe=RECIPE, output=output, target="onnx")
    render_stages(compressed.record.history, Console())
    return compressed


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
