"""How long the Core ML reference executor takes beside torch's eager execution of the net: MobileNetV2 and MiniLM, one thread.

::

    python examples/assets.py mobilenet minilm pictures sentences
    python benchmarks/coreml_executor.py             # about three minutes
    python benchmarks/coreml_executor.py --quick     # MobileNetV2, a few rounds

Each net is exported to Core ML as float32, float16 and int8 and run on this machine by the reference executor: reference
semantics, not the Neural Engine, so this is the cost of a check, no latency of a device. Net and packages take turns within one
process; CPU time stands beside wall time. ``difference`` is the largest difference from the net, over the largest output.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lab.results import write_results
from numpy.typing import NDArray

from edgekit.converters.coreml import CONVERTER
from edgekit.core.artifact import ExportOptions
from edgekit.pipeline import compress
from edgekit.runtimes.coreml.reference import RUNTIME

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
KINDS: Mapping[str, tuple[str, ExportOptions]] = {
    "float32": ("none", ExportOptions()),
    "float16": ("none", ExportOptions(compute_precision="float16")),
    "int8": ("int8", ExportOptions()),
}
PACKAGES = ("edgekit", "torch", "coremltools", "numpy")
LIMIT = 3.0
Clocks = tuple[float, float]


def task_of(name: str) -> Any:
    """The task of an example."""
    for module in ("data", "model", "task"):
        sys.modules.pop(module, None)
    sys.path.insert(0, str(EXAMPLES / name))
    try:
        return importlib.import_module("task").task
    finally:
        sys.path.pop(0)


def example_of(name: str) -> NDArray[Any]:
    """One input: a noisy picture, or word pieces of which the last quarter is padding."""
    draw = np.random.default_rng(0)
    if name == "mobilenet":
        return draw.standard_normal((1, 3, 224, 224)).astype(np.float32)
    tokens = draw.integers(1000, 30_000, (1, 32)).astype(np.int32)
    tokens[:, 24:] = 0
    return tokens


def clocked(call: Callable[[], Any]) -> Clocks:
    """Milliseconds of one call: wall and CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3


def measure(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, NDArray[np.float64]]:
    """``[rounds, 2]`` milliseconds by name; the calls take turns, each round in another order, after two rounds of warm-up."""
    taken: dict[str, list[Clocks]] = {name: [] for name in calls}
    names = list(calls)
    for number in range(rounds + 2):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            found = clocked(calls[name])
            if number >= 2:
                taken[name].append(found)
    return {name: np.array(found) for name, found in taken.items()}


def one(name: str, kinds: list[str], rounds: int, work: Path) -> list[dict[str, Any]]:
    """The rows of one net."""
    task, example = task_of(name), example_of(name)
    net = task.build_model().eval()
    feed = torch.from_numpy(example)
    with torch.inference_mode():
        eager = net(feed).numpy()

    def run_eager() -> None:
        with torch.inference_mode():
            net(feed)

    calls: dict[str, Callable[[], Any]] = {"eager": run_eager}
    differences: dict[str, float] = {}
    compressed: dict[str, Any] = {}
    for kind in kinds:
        recipe, options = KINDS[kind]
        if recipe not in compressed:
            compressed[recipe] = compress(task, recipe=recipe, measure=False)
        folder = work / f"{name}-{kind}"
        folder.mkdir()
        artifact = CONVERTER.convert(compressed[recipe], output=folder, options=options)
        session = RUNTIME.load(artifact.path)
        inputs = {session.inputs[0].name: example.astype(session.inputs[0].dtype)}
        answer = next(iter(session.run(inputs).values()))
        differences[kind] = float(np.abs(answer - eager).max() / np.abs(eager).max())
        calls[kind] = lambda session=session, inputs=inputs: session.run(inputs)
    series = measure(calls, rounds)
    rows = []
    for kind in kinds:
        ratio = series[kind] / series["eager"]
        row: dict[str, Any] = {"net": name, "package": kind, "rounds": rounds, "difference": differences[kind]}
        for at, clock in enumerate(("wall", "cpu")):
            row[f"eager_{clock}_ms"] = float(np.median(series["eager"][:, at]))
            row[f"{clock}_ms"] = float(np.median(series[kind][:, at]))
            row[f"{clock}_ratio"] = float(np.median(ratio[:, at]))
            row[f"{clock}_ratio_quartiles"] = [float(part) for part in np.quantile(ratio[:, at], (0.25, 0.75))]
        row["within_limit"] = row["cpu_ratio"] <= LIMIT
        rows.append(row)
        print(
            f"{name} {kind}: {row['cpu_ms']:.1f} ms CPU, {row['cpu_ratio']:.2f} times eager, differs by {row['difference']:.1e}"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="MobileNetV2 alone, a few rounds")
    parser.add_argument("--rounds", type=int, default=40, help="timed rounds of each net")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    nets = ["mobilenet"] if arguments.quick else ["mobilenet", "minilm"]
    kinds = ["float32", "float16"] if arguments.quick else list(KINDS)
    rounds = 5 if arguments.quick else arguments.rounds
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for name in nets for row in one(name, kinds, rounds, Path(folder))]
    settings = {"threads": 1, "limit": LIMIT, "semantics": "reference semantics, not the Neural Engine"}
    print(write_results("coreml_executor", rows, settings=settings, packages=PACKAGES, quick=arguments.quick))


if __name__ == "__main__":
    main()
