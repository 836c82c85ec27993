"""What confinement costs: a model in a child beside the same model in the caller's own process.

::

    python benchmarks/confined_runs.py           # a minute

The identity of ``[1, N]`` floats in ONNX Runtime: what a run takes is the exchange alone. Both take turns, a block of runs each.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from lab.results import write_results
from onnx import TensorProto, helper, save

import edgekit as ek

PACKAGES = ("edgekit", "onnxruntime", "numpy")
SIZES = (10, 1_000, 150_528, 1_000_000)
"""Values of the input and of the output; 150,528 are a picture of 3 x 224 x 224."""


def identity(size: int, path: Path) -> Path:
    edges = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", edges[:1], edges[1:])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


def block_us(model: Any, inputs: dict[str, Any], count: int) -> float:
    """Mean time of a run, microseconds."""
    start = time.perf_counter()
    for _ in range(count):
        model.run(inputs)
    return (time.perf_counter() - start) / count * 1e6


def compare(size: int, folder: Path, *, blocks: int) -> dict[str, Any]:
    """Both in turn; medians over blocks, and the spread of what the child costs."""
    path, inputs = identity(size, folder / f"{size}.onnx"), {"x": np.zeros((1, size), np.float32)}
    start = time.perf_counter()
    with ek.runtimes.load(path) as apart, ek.runtimes.load(path, confined=False) as here:
        load_ms = (time.perf_counter() - start) * 1e3
        count = 200 if size < 100_000 else 30
        for model in (apart, here):
            block_us(model, inputs, count)
        rows = [(block_us(apart, inputs, count), block_us(here, inputs, count)) for _ in range(blocks)]
    costs = np.array([confined - own for confined, own in rows])
    return {
        "values": size,
        "confined_us": round(float(np.median([row[0] for row in rows])), 1),
        "here_us": round(float(np.median([row[1] for row in rows])), 1),
        "cost_us": round(float(np.median(costs)), 1),
        "cost_us_p10": round(float(np.percentile(costs, 10)), 1),
        "cost_us_p90": round(float(np.percentile(costs, 90)), 1),
        "both_loads_ms": round(load_ms, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three blocks instead of thirty")
    arguments = parser.parse_args()
    blocks = 3 if arguments.quick else 30
    with tempfile.TemporaryDirectory(prefix="edgekit-confined-") as folder:
        rows = [compare(size, Path(folder), blocks=blocks) for size in SIZES]
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    path = write_results("confined_runs", rows, settings={"blocks": blocks}, packages=PACKAGES, quick=arguments.quick)
    print(f"written to {path}")


if __name__ == "__main__":
    main()
