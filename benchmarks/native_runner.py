"""Does edgekit-runner compute Python's bits, on x86-64 and on emulated Arm cores, and what does its timing cost?

::

    apt-get install cmake g++ g++-aarch64-linux-gnu qemu-user-static mmdebstrap
    python benchmarks/native_runner.py                      # everything
    python benchmarks/native_runner.py --part overhead      # on a quiet machine; the other rows are kept

Outputs are compared by SHA-256, over all samples. On Arm the expected ones are Python's on the same emulated core, with the same
library. Emulation gives a core's numbers, not its speed: nothing is timed there. The cost of timing is measured in one process:
blocks of inferences in a bare loop and in the loop that samples, in turn.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from lab.arm import CORES, WHEELS, emulator_version, launcher, library_on_arm, make_root, run_on_arm
from lab.exactness import Floats, gather, load_example
from lab.results import RESULTS, write_results
from rich.console import Console
from rich.table import Table

from edgekit import pipeline, registry
from edgekit.core.run import RunFolder
from edgekit.runtimes.native.build import build_runner
from edgekit.runtimes.native.libraries import library_of
from edgekit.runtimes.native.measurement import run_report, target_of

FIXTURES = {"smartwatch": (500, 20), "fashion": (500, 20), "mobilenet": (8, 1)}
"""Fixture -> samples on x86-64, and on each emulated core."""

PARTS = ("hashes", "overhead")
PAIRS = 400
PYTHON = {"tflite": "litert", "onnx": "onnxruntime"}
PACKAGES = ("edgekit", "torch", *WHEELS)
ROOT = Path(__file__).resolve().parents[1] / ".assets" / "arm64"
LIMIT_S = 1800.0

Row = dict[str, Any]


def files_of(fixture: str, work: Path) -> Iterator[tuple[str, Path]]:
    """Precision and file of every format: int8 and float, .tflite, .onnx and .ort."""
    task, run = load_example(fixture), RunFolder(work / f"{fixture}-int8")
    if not run.manifest_path.is_file():
        pipeline.compress(task, recipe="int8", output=run.path)
        pipeline.export(run.path, targets=("onnx", "tflite"))
    for artifact in run.load_artifacts():
        precision = "float32" if artifact.label.endswith("float32") else "int8"
        yield precision, artifact.path
        if artifact.target == "onnx":
            yield precision, artifact.path.with_suffix(".ort")


def digest(arrays: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(arrays).tobytes()).hexdigest()


def python_digest(path: Path, inputs: Floats) -> str:
    session = registry.runtime(PYTHON[target_of(path)]).load(path)
    name = session.inputs[0].name
    rows = [next(iter(session.run({name: value}).values())) for value in inputs]
    session.close()
    return digest(rows)


def native_digest(path: Path, inputs: Floats, *, start: list[str], program: Path, library: Path) -> str:
    session = registry.runtime(PYTHON[target_of(path)]).load(path)
    name = session.inputs[0].name
    session.close()
    command = [*start, program, path, "--library", library, "--stacked"]
    report = run_report(command, {name: inputs}, source=path.name, timeout_s=LIMIT_S)
    found: str = report["outputs"][0]["sha256"]
    return found


def compare(
    fixture: str, files: list[tuple[str, Path]], inputs: Floats, *, root: Path | None, counts: tuple[int, int]
) -> list[Row]:
    """A row for each file on x86-64 and on each emulated core."""
    rows = list[Row]()
    for precision, path in files:
        target, cell = target_of(path), {"part": "hashes", "fixture": fixture, "precision": precision, "format": path.suffix[1:]}
        given = inputs[: counts[0]]
        found = native_digest(path, given, start=[], program=build_runner(), library=library_of(target))
        expected = python_digest(path, given)
        rows.append({**cell, "machine": "x86-64", "evidence": "measured", **verdict(len(given), found, expected)})
        if root is None:
            continue
        given = inputs[: counts[1]]
        here = python_digest(path, given)
        for core in CORES:
            start = launcher(root, core)
            program, library = build_runner("aarch64"), library_on_arm(root, target)
            found = native_digest(path, given, start=start, program=program, library=library)
            expected = digest(run_on_arm(root, core, target=target, model=path, inputs=given, limit_s=LIMIT_S))
            row = {**cell, "machine": core, "evidence": "emulated", **verdict(len(given), found, expected)}
            rows.append({**row, "equals_x86": found == here})
    return rows


def verdict(count: int, found: str, expected: str) -> Row:
    return {"sample_count": count, "sha256": found, "python_sha256": expected, "is_equal": found == expected}


def audit(fixture: str, files: list[tuple[str, Path]], *, pairs: int) -> list[Row]:
    """What sampling costs: blocks with it over blocks without it, less one."""
    rows = list[Row]()
    for precision, path in files:
        words = ["--library", library_of(target_of(path)), "--audit-overhead", str(pairs)]
        found = run_report([build_runner(), path, *words], {}, source=path.name, timeout_s=LIMIT_S)["audit"]
        times = {key: np.array(values, np.float64) for key, values in found.items() if key != "inferences_in_block"}
        row: Row = {"part": "overhead", "fixture": fixture, "precision": precision, "format": path.suffix[1:]}
        row["pair_count"] = pairs
        row["inferences_in_block"] = found["inferences_in_block"]
        row["bare_us"] = float(np.median(times["bare_wall_ns"])) / found["inferences_in_block"] / 1e3
        for clock in ("wall", "cpu"):
            ratios = times[f"sampled_{clock}_ns"] / times[f"bare_{clock}_ns"] - 1
            row[f"overhead_{clock}"], row[f"overhead_{clock}_interval"] = median_with_interval(ratios)
        fast = [float(np.percentile(times[f"{loop}_wall_ns"], 10)) for loop in ("sampled", "bare")]
        row["overhead_fast"] = fast[0] / fast[1] - 1  # of the tenth of the blocks that were disturbed least
        reported = times["reported_ns"] / times["bare_wall_ns"] - 1
        row["reported_over_bare"], row["reported_over_bare_interval"] = median_with_interval(reported)
        rows.append(row)
    return rows


def median_with_interval(values: Any) -> tuple[float, tuple[float, float]]:
    """The median, and its distribution-free 95 % interval by order statistics."""
    ordered = np.sort(values)
    half = 0.98 * np.sqrt(len(ordered))
    low, high = max(int(len(ordered) / 2 - half), 0), min(int(np.ceil(len(ordered) / 2 + half)), len(ordered) - 1)
    return float(np.median(ordered)), (float(ordered[low]), float(ordered[high]))


def show(console: Console, rows: list[Row]) -> None:
    table = Table("fixture", "precision", "format", "machine", "samples", "equal to Python", "equal to x86")
    for row in rows:
        if row["part"] == "hashes":
            names = (row["fixture"], row["precision"], row["format"], f"{row['machine']} ({row['evidence']})")
            table.add_row(*names, str(row["sample_count"]), str(row["is_equal"]), str(row.get("equals_x86", "")))
    console.print(table)
    shares = {
        "overhead_wall": "overhead, wall", "overhead_fast": "fastest tenth", "overhead_cpu": "overhead, CPU",
        "reported_over_bare": "reported over bare",
    }  # fmt: skip
    table = Table("fixture", "precision", "format", "bare loop", *shares.values())
    for row in rows:
        if row["part"] == "overhead":
            cells = [f"{100 * row[key]:+.2f} %" for key in shares]
            table.add_row(row["fixture"], row["precision"], row["format"], f"{row['bare_us']:.1f} µs", *cells)
    console.print(table)


def earlier_rows(fixture: str, parts: tuple[str, ...], *, quick: bool) -> list[Row]:
    """What earlier calls wrote of other fixtures and parts."""
    path = RESULTS / f"native_runner{'-quick' if quick else ''}.json"
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    return [row for row in rows if row["fixture"] != fixture or row["part"] not in parts]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few samples and pairs: does it work?")
    parser.add_argument("--fixture", action="append", choices=FIXTURES, help="only these; may be repeated")
    parser.add_argument("--part", choices=PARTS, help="only this  [default: both]")
    parser.add_argument("--no-arm", action="store_true", help="x86-64 only")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of the Arm system; made where it is missing")
    parser.add_argument("--work", type=Path, help="folder that keeps the runs  [default: a temporary one]")
    arguments = parser.parse_args()
    console, parts = Console(width=150), (arguments.part,) if arguments.part else PARTS
    root = None if arguments.no_arm or "hashes" not in parts else arguments.root
    if root is not None:
        make_root(root)
    compiler = subprocess.run(["c++", "--version"], check=True, capture_output=True, text=True).stdout.splitlines()[0]
    emulator = "none" if arguments.no_arm else emulator_version()
    settings = {"compiler": compiler, "emulator": emulator, "expected": "Python, on the same core and library"}
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.fixture or FIXTURES:
            counts = (3, 1) if arguments.quick else FIXTURES[name]
            files = list(files_of(name, arguments.work or Path(temporary)))
            inputs = gather(load_example(name), sample_count=counts[0]).inputs
            rows = earlier_rows(name, parts, quick=arguments.quick)
            if "hashes" in parts:
                rows += compare(name, files, inputs, root=root, counts=counts)
            if "overhead" in parts:
                rows += audit(name, files, pairs=40 if arguments.quick else PAIRS)
            path = write_results("native_runner", rows, settings=settings, packages=PACKAGES, quick=arguments.quick)
    show(console, rows)
    console.print(f"written: {path}")


if __name__ == "__main__":
    main()
