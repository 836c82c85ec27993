"""Do the exact kernels compute the integers that the runtimes compute, bit for bit and layer by layer?

::

    python examples/assets.py --all
    python benchmarks/exact_kernels.py
    python benchmarks/exact_kernels.py --net smartwatch --quick

Ordinary ``int8`` nets. Every layer of the exported files is run alone, in each executor and by its rounding rules:

=========== =============================================================================================================
program     fed the compressed program's integers on evaluation data
random      fed integers drawn evenly from each tensor's whole grid: ties and saturation occur far more often
grids       the same, with every activation's scale changed by a factor of its own (``lab/regrid.py``): what edgekit's recipes
            would not choose, and other makers' files have
own         fed the runtime's own values on evaluation data (LiteRT: XNNPACK and the reference kernels)
=========== =============================================================================================================

A row counts one operator type of one net in one executor: integers compared, integers equal, the share that the float simulation
of the file gets right, and the largest difference in steps.
"""

from __future__ import annotations

import argparse
import collections
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lab.exactness import gather, load_example, make_run
from lab.regrid import regrid_onnx, regrid_tflite
from lab.results import RESULTS, write_results
from rich.console import Console
from rich.table import Table

from edgekit.core.artifact import Artifact
from edgekit.core.contract import QuantizationContract
from edgekit.core.provenance import TracedFile
from edgekit.core.run import RunFolder
from edgekit.core.tensors import to_stored
from edgekit.runtimes.exact.forcing import forced_answers
from edgekit.runtimes.exact.replay import replay
from edgekit.runtimes.exact.rules import RULES, SIMULATION
from edgekit.runtimes.exact.tflite_file import read_graph
from edgekit.runtimes.litert import RUNTIME as LITERT
from edgekit.runtimes.replays import EXECUTORS, Executor
from edgekit.runtimes.torch import record_layers

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

NETS = {"smartwatch": 32, "residual": 16, "fashion": 32, "mobilenet": 4, "resnet18": 4}
"""Net -> samples."""
TARGETS = ("onnx", "tflite")
TRACED = {"LiteRT XNNPACK": "shipped", "TFLite reference": "reference"}
PACKAGES = ("edgekit", "torch", "onnx", "onnxruntime", "ai-edge-litert", "litert-torch", "numpy")

Row = dict[str, Any]
Counts = collections.defaultdict[str, list[int]]


def measure(net: str, run: RunFolder, *, sample_count: int, console: Console) -> Iterator[Row]:
    """All rows of one net."""
    contract = QuantizationContract.read_json(run.compressed / "contract.json")
    samples = gather(load_example(net), sample_count=sample_count).inputs[:sample_count]
    artifacts = {artifact.target: artifact for artifact in run.load_artifacts()}
    name = artifacts["onnx"].inputs[0].name
    modes = {
        "program": record_layers(run.compressed / "program.pt2", contract, {name: samples}),
        "random": drawn(contract, sample_count),
    }
    for executor in EXECUTORS:
        if executor.target not in TARGETS:
            continue
        begin = time.process_time()
        altered = regridded(artifacts[executor.target], folder=run.path)
        for mode, recorded in (*modes.items(), ("grids", modes["random"])):
            rows = replayed(executor, altered if mode == "grids" else artifacts[executor.target], contract, recorded)
            yield from ({"net": net, "executor": executor.name, "rules": executor.rules, "mode": mode, **row} for row in rows)
        if executor.name in TRACED:
            rows = traced(executor, artifacts[executor.target], samples)
            yield from ({"net": net, "executor": executor.name, "rules": executor.rules, "mode": "own", **row} for row in rows)
        console.print(f"{net}, {executor.name}: {time.process_time() - begin:.1f} s of CPU time")


def regridded(artifact: Artifact, *, folder: Path) -> Artifact:
    """The artifact's file with other scales, beside the run."""
    change = {"onnx": regrid_onnx, "tflite": regrid_tflite}[artifact.target]
    path = folder / f"regridded{artifact.path.suffix}"
    path.write_bytes(change(artifact.path.read_bytes(), seed=0))
    return artifact.replace(path=path)


def drawn(contract: QuantizationContract, sample_count: int) -> dict[str, Array]:
    """Integers of every activation, evenly from its grid."""
    random = np.random.default_rng(0)
    return {
        entry.name: random.integers(entry.minimum, entry.maximum + 1, (sample_count, *entry.shape)).astype(entry.dtype)
        for entry in contract.activations
    }


def replayed(executor: Executor, artifact: Artifact, contract: QuantizationContract, recorded: Mapping[str, Array]) -> list[Row]:
    """Layers cut out of the file."""
    answers = executor.replay(artifact, contract, recorded)
    own = replay(artifact, contract, recorded, RULES[executor.rules])
    simulated = replay(artifact, contract, recorded, SIMULATION).answers
    counts: Counts = collections.defaultdict(lambda: [0, 0, 0, 0, 0])
    for entry, found in answers.items():
        kind = own.operations[entry].type if entry in own.operations else "unknown"
        count(counts[kind], found, own.answers.get(entry), simulated.get(entry))
    return rows_of(counts)


def traced(executor: Executor, artifact: Artifact, samples: Array) -> list[Row]:
    """Every operator of the whole file, fed the runtime's own values."""
    spec = artifact.inputs[0]
    inputs = {spec.name: np.stack([to_stored(value, spec).astype(spec.dtype) for value in samples])}
    file: TracedFile = LITERT.trace(artifact.path, inputs, kernels=TRACED[executor.name])  # type: ignore[arg-type]
    graph = read_graph(artifact.path.read_bytes())
    makers = {name: operation for operation in graph.operations for name in operation.writes}
    own, simulated = (forced_answers(graph, file, rules) for rules in (RULES[executor.rules], SIMULATION))
    counts: Counts = collections.defaultdict(lambda: [0, 0, 0, 0, 0])
    for name, found in file.values.items():
        if name in makers and graph.tensors[name].is_integer:
            count(counts[makers[name].type], found, own.get(name), simulated.get(name))
    return rows_of(counts)


def count(row: list[int], found: Array, own: Array | None, simulated: Array | None) -> None:
    """Add one tensor to layers, values, equal values, values equal to the simulation, and the largest difference."""
    row[0] += 1
    row[1] += found.size
    if own is not None:
        steps = np.abs(own.astype(np.int64) - found.astype(np.int64))
        row[2] += int((steps == 0).sum())
        row[4] = max(row[4], int(steps.max(initial=0)))
    if simulated is not None:
        row[3] += int((simulated == found).sum())


def rows_of(counts: Counts) -> list[Row]:
    return [
        {
            "op": kind,
            "layer_count": layers,
            "value_count": values,
            "exact_count": exact,
            "exact_share": exact / values,
            "simulation_share": simulated / values,
            "largest_steps": largest,
        }
        for kind, (layers, values, exact, simulated, largest) in sorted(counts.items())
    ]


def other_rows(nets: list[str], *, quick: bool) -> list[Row]:
    """What earlier calls wrote of the other nets."""
    path = RESULTS / f"exact_kernels{'-quick' if quick else ''}.json"
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    return [row for row in rows if row["net"] not in nets]


def show(console: Console, rows: list[Row]) -> None:
    table = Table("net", "executor", "mode", "integers", "not equal", "exact", "by simulation")
    sums: dict[tuple[str, ...], list[int]] = collections.defaultdict(lambda: [0, 0, 0])
    for row in rows:
        own = sums[row["net"], row["executor"], row["mode"]]
        for at, value in enumerate((row["value_count"], row["exact_count"], round(row["simulation_share"] * row["value_count"]))):
            own[at] += value
    for names, (values, exact, simulated) in sums.items():
        table.add_row(*names, f"{values:,}", f"{values - exact:,}", f"{exact / values:.6%}", f"{simulated / values:.4%}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two samples a net: does it work?")
    parser.add_argument("--net", action="append", choices=list(NETS), help="only these; may be repeated")
    parser.add_argument("--work", type=Path, help="folder that keeps the runs  [default: a temporary one]")
    arguments = parser.parse_args()
    console, nets = Console(width=130), arguments.net or list(NETS)
    rows = other_rows(nets, quick=arguments.quick)
    with tempfile.TemporaryDirectory() as temporary:
        for net in nets:
            run = make_run(load_example(net), "int8", targets=TARGETS, work=arguments.work or Path(temporary))
            rows += measure(net, run, sample_count=2 if arguments.quick else NETS[net], console=console)
    settings = {"recipe": "int8", "samples": NETS, "modes": ["program", "random", "grids", "own"]}
    path = write_results("exact_kernels", rows, settings=settings, packages=PACKAGES, quick=arguments.quick)
    show(console, rows)
    console.print(f"written: {path}")


if __name__ == "__main__":
    main()
