"""Every package the zoo's nets become, run by the Core ML reference executor and compared with the program it was made from.

::

    python benchmarks/coreml_packages.py                  # 101 nets, three packages each: half an hour; goes on where it stopped
    python benchmarks/coreml_packages.py --only resnet18  # one net, written to no results
    python benchmarks/coreml_packages.py --table          # results/coreml_packages.json from what is there

For each net a float32, a float16 and an int8 package: which operations it holds, and how far its answers are from the program's
on inputs that neither tracing nor calibration saw. float16 is rounded after each operation where the package declares it. Of the
int8 package each quantized layer is also run alone on the program's own integers: ``layer_steps`` is the largest difference of a
layer's output, in steps of its grid, ``exact_share`` the share of values without any. The examples' nets are done likewise, on
their golden inputs (``python examples/assets.py --all`` fetches what they are made of), and Basic Pitch's published package.
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from lab.results import write_results
from zoo.architecture import Architecture
from zoo.catalogue import FAMILIES, architectures
from zoo.isolation import call_forked
from zoo.judge import compare
from zoo.programs import load_answers, make_program
from zoo.roads import import_framework

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
sys.path.append(str(EXAMPLES))
import assets  # noqa: E402

EXAMPLE_NAMES = ("bilstm", "fashion", "minilm", "mobilenet", "residual", "resnet18", "sentiment", "smartwatch")
SAMPLES = 3
Answers = dict[str, np.ndarray]
Made = tuple[Any, Answers, Answers]
"""A compressed program, inputs and right answers ``[S, *shape]`` by name."""
WORK = Path(tempfile.gettempdir()) / "edgekit-coreml-packages"
PACKAGES = ("edgekit", "torch", "coremltools", "numpy")
PRECISIONS = ("float32", "float16", "int8")
TIMEOUT_S, MEMORY_BYTES = 300.0, 6 * 2**30


def measure(net: Architecture, wanted: Collection[str]) -> dict[str, Any]:
    """The rows of one net of the zoo, by precision."""
    from edgekit.core.compressed import Compressed

    with tempfile.TemporaryDirectory(prefix="packages-") as scratch:
        place = Path(scratch)

        def program(base: str) -> Made:
            make_program(net, place, base)
            return Compressed.load(place / base), *load_answers(place, base)

        return rows_of(program, place, wanted)


def measure_example(name: str, wanted: Collection[str]) -> dict[str, Any]:
    """The rows of one example, by precision, on its golden inputs."""
    import edgekit

    sys.path.insert(0, str(EXAMPLES / name))
    task = importlib.import_module("task").task

    def program(base: str) -> Made:
        compressed = edgekit.compress(task, recipe="none" if base == "float" else "int8", measure=False)
        return compressed, dict(compressed.golden.inputs), dict(compressed.golden.outputs)

    with tempfile.TemporaryDirectory(prefix="packages-") as scratch:
        return rows_of(program, Path(scratch), wanted)


def measure_shipped(wanted: Collection[str]) -> dict[str, Any]:  # noqa: ARG001  there is one package
    """Basic Pitch as its authors ship it, beside their ONNX file of the same net in ONNX Runtime."""
    from edgekit import registry
    from edgekit.runtimes.coreml.package import read_package

    folder, draw = assets.find("basic-pitch"), np.random.default_rng(0)
    ours = registry.runtime("coreml-reference").load(folder / "nmp.mlpackage")
    theirs = registry.runtime("onnxruntime").load(folder / "nmp.onnx")
    off, most = 0.0, 0.0
    for _ in range(SAMPLES):
        sound = (0.1 * draw.standard_normal(theirs.inputs[0].shape)).astype(np.float32)
        answers = ours.run({ours.inputs[0].name: sound.reshape(ours.inputs[0].shape)})
        rights = theirs.run({theirs.inputs[0].name: sound})
        for answer, right in zip(sorted_by_sum(answers), sorted_by_sum(rights), strict=True):
            off, most = max(off, float(np.abs(answer.ravel() - right.ravel()).max())), max(most, float(np.abs(right).max()))
    found = sorted(operations(read_package(folder / "nmp.mlpackage").operations))
    return {"as shipped": {"relative_error": off / most, "finite": True, "operations": found}}


def sorted_by_sum(answers: dict[str, Any]) -> list[Any]:
    """Outputs in an order both files share: their names do not tell which is which."""
    return sorted(answers.values(), key=lambda array: (array.size, float(array.sum())))


def rows_of(program: Callable[[str], Made], place: Path, wanted: Collection[str]) -> dict[str, Any]:
    """The wanted packages of what ``program`` gives, each run and compared."""
    found: dict[str, Any] = {}
    for base, kinds in (("float", ("float32", "float16")), ("int8", ("int8",))):
        made: Made | None = None
        for kind in (kind for kind in kinds if kind in wanted):
            try:
                made = made or program(base)
                found[kind] = one(*made, output=place / kind, kind=kind)
            except Exception as reason:
                found[kind] = {"refused": f"{type(reason).__name__}: {(str(reason).splitlines() or [''])[0][:300]}"}
    return found


def one(compressed: Any, inputs: Answers, expected: Answers, *, output: Path, kind: str) -> dict[str, Any]:
    """Convert one program, run the package, compare."""
    from edgekit.converters.coreml import CONVERTER
    from edgekit.core.artifact import ExportOptions
    from edgekit.runtimes.coreml.package import read_package
    from edgekit.runtimes.coreml.reference import RUNTIME

    options = ExportOptions(compute_precision="float16" if kind == "float16" else "float32")
    artifact = CONVERTER.convert(compressed, output=output, options=options)
    session = RUNTIME.load(artifact.path)
    rows = [
        session.run({spec.name: inputs[spec.name][at].astype(spec.dtype, copy=False) for spec in session.inputs})
        for at in range(len(next(iter(inputs.values()))))
    ]
    answers = {name: np.stack([row[name].reshape(right.shape[1:]) for row in rows]) for name, right in expected.items()}
    result = compare(answers, expected, is_float=kind != "int8")
    row = {name: result[name] for name in ("relative_error", "snr_db", "equal_share")}
    row["finite"] = all(bool(np.isfinite(answer).all()) for answer in answers.values() if answer.dtype.kind == "f")
    row["operations"] = sorted(operations(read_package(artifact.path).operations))
    return row | (steps(compressed, artifact, inputs) if kind == "int8" else {})


def operations(found: Any) -> set[str]:
    """Operation types, those of nested blocks included."""
    names = {operation.type for operation in found}
    return names.union(*(operations(block.operations) for operation in found for block in operation.blocks))


def steps(compressed: Any, artifact: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Each quantized layer alone, fed the program's integers."""
    import torch

    from edgekit.runtimes.coreml.reference import RUNTIME

    nodes = {entry.node: entry.name for entry in compressed.contract.activations}
    seen: dict[str, list[np.ndarray]] = {name: [] for name in nodes.values()}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, node: torch.fx.Node) -> Any:
            result = super().run_node(node)
            if node.name in nodes:
                seen[nodes[node.name]].append(result.numpy())
            return result

    recorder = Recorder(compressed.program.module(check_guards=False))
    with torch.no_grad():
        for at in range(len(next(iter(inputs.values())))):
            recorder.run(*(torch.from_numpy(np.ascontiguousarray(array[at])) for array in inputs.values()))
    recorded = {name: np.stack(values) for name, values in seen.items() if values}
    replayed = RUNTIME.replay_layers(artifact, compressed.contract, recorded)
    apart = [np.abs(found.astype(np.int64) - recorded[name].astype(np.int64)) for name, found in replayed.items()]
    values = np.concatenate([part.ravel() for part in apart]) if apart else np.zeros(1)
    return {"layer_count": len(apart), "layer_steps": int(values.max()), "exact_share": float((values == 0).mean())}


Job = Callable[[Collection[str]], dict[str, Any]]


def jobs(only: list[str] | None) -> dict[str, tuple[str, Job]]:
    """Name -> family, and what is to be done."""
    found: dict[str, tuple[str, Job]] = {
        name: (net.family, functools.partial(measure, net)) for name, net in architectures(*FAMILIES).items()
    }
    found |= {f"example {name}": ("examples", functools.partial(measure_example, name)) for name in EXAMPLE_NAMES}
    found["Basic Pitch"] = ("published", measure_shipped)
    return {name: job for name, job in found.items() if not only or name in only}


def run_all(todo: dict[str, tuple[str, Job]], work: Path) -> None:
    """One child process a net; packages that are there already are left alone."""
    import_framework("coreml", with_transformers=any(family in {"text", "audio"} for family, _ in todo.values()))
    gc.freeze()
    done = read(work)
    with (work / "cells.jsonl").open("a", encoding="utf-8") as stream:
        for name, (family, job) in todo.items():
            known = done.get(name, {"rows": {}})["rows"]
            wanted = () if "as shipped" in known else [kind for kind in PRECISIONS if kind not in known]
            if not wanted:
                continue
            log = work / "logs" / f"{name}.txt"
            call = functools.partial(job, wanted)
            ended = call_forked(call, timeout_s=TIMEOUT_S, memory_bytes=MEMORY_BYTES, log=log)
            rows = ended.get("value") or {kind: {"refused": ended["error"]} for kind in wanted}
            stream.write(json.dumps({"architecture": name, "family": family, "rows": rows}) + "\n")
            stream.flush()
            words = [f"{kind} {rows[kind].get('refused', rows[kind].get('relative_error'))}"[:90] for kind in rows]
            print(f"{name:28} {ended['seconds']:5.1f} s  {'  '.join(words)}", flush=True)


def read(work: Path) -> dict[str, dict[str, Any]]:
    """What is there: name -> family and the rows of its packages."""
    path, found = work / "cells.jsonl", dict[str, dict[str, Any]]()
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        cell = json.loads(line)
        known = found.setdefault(cell["architecture"], {**cell, "rows": {}})
        known["rows"] |= cell["rows"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", metavar="NAME", help="one net; may be repeated")
    parser.add_argument("--table", action="store_true", help="only write the results")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of cells and logs")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    todo = jobs(arguments.only)
    if not arguments.table:
        run_all(todo, arguments.work)
    if arguments.only:
        return
    cells = [cell for name, cell in read(arguments.work).items() if name in todo]
    rows = [
        {"architecture": cell["architecture"], "family": cell["family"], "package": kind, **row}
        for cell in cells
        for kind, row in cell["rows"].items()
    ]
    settings = {"samples": SAMPLES, "semantics": "reference semantics, not the Neural Engine", "nets": len(cells)}
    print(write_results("coreml_packages", rows, settings=settings, packages=PACKAGES, quick=False))


if __name__ == "__main__":
    sys.exit(main())
