"""Three targets on every device of examples/lab.toml, in one command: what it says, and how long it takes.

::

    apt-get install cmake g++ g++-aarch64-linux-gnu qemu-user-static
    pip install '.[demo,micro]'
    python benchmarks/matrix.py

Each fixture is compressed to int8, exported to ONNX, TFLite and Core ML, and validated by one ``edgekit validate --device
examples/lab.toml``. Kept are each device's verdict and, for each cell, accuracy, flips, parity, numbers and their evidence.
Emulated cores answer a sample of the evaluation set: emulation gives a core's numbers, not its speed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lab.results import write_results
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
LAB = ROOT / "examples" / "lab.toml"
FIXTURES = {"smartwatch": 100, "mobilenet": 8}
"""Fixture -> evaluation samples on every device."""
TARGETS = ("onnx", "tflite", "coreml")
SHOWN = ("latency", "peak_memory", "size", "arena", "flash", "npu_cycles", "sram")
PACKAGES = ("edgekit", "onnxruntime", "ai-edge-litert", "coremltools", "ethos-u-vela", "tflite-micro")

Row = dict[str, Any]


def edgekit(*words: str) -> int:
    """One command of the command line, with its progress; its exit code."""
    command = [str(Path(sys.executable).parent / "edgekit"), *words]
    return subprocess.run(command, check=False).returncode


def validated(fixture: str, run: Path, *, samples: int) -> tuple[dict[str, Any], float]:
    """The report of a fixture on the whole lab, and what the one command took in seconds."""
    task = ROOT / "examples" / fixture / "task.py"
    targets = [word for target in TARGETS for word in ("--target", target)]
    for words in (("compress", str(task), "--recipe", "int8", "-o", str(run)), ("export", str(run), *targets)):
        if edgekit(*words):
            sys.exit(f"edgekit {' '.join(words)} failed")
    start = time.monotonic()
    code = edgekit("validate", str(run), "--device", str(LAB), "--samples", str(samples))
    seconds = time.monotonic() - start
    if code not in {0, 1}:
        sys.exit(f"validating {fixture} ended with {code}")
    return json.loads((run / "report.json").read_text(encoding="utf-8")), seconds


def cells(fixture: str, report: dict[str, Any]) -> list[Row]:
    """A row for each artifact on each device, of those that ran and those that did not."""
    found: list[Row] = []
    for device in report["devices"]:
        common = {"fixture": fixture, "device": device["profile"]["name"], "verdict": device["verdict"]["decision"]}
        found += [{**common, "artifact": one["label"], "skipped": one["reason"]} for one in device["skipped"]]
        for one in device["results"]:
            metric, layers = one["metric"], one["layers"]
            artifact = one["artifact"]
            variant = f"-{artifact['precision']}" if artifact["precision"] == "float32" else ""
            found.append(
                {
                    **common,
                    "artifact": f"{artifact['target']}{variant}",
                    "runtime": one["runtime"],
                    "evidence": one["evidence"],
                    "failure": one["failure"],
                    "samples": metric and metric["sample_count"],
                    "score": metric and metric["value"],
                    "drop_points": metric and metric["drop_points"],
                    "flips": metric and metric["flip_count"],
                    "identical_end_to_end": bool(one["outputs"]) and all(output["exact_share"] == 1 for output in one["outputs"]),
                    "layers": len(layers),
                    "largest_steps": max((layer["largest_steps"] for layer in layers), default=None),
                    "numbers": {
                        number["name"]: {key: number[key] for key in ("value", "unit", "evidence")}
                        for number in one["measurements"]
                        if number["name"] in SHOWN
                    },
                }
            )
    return found


def show(rows: list[Row], seconds: dict[str, float]) -> None:
    """A table for people."""
    table = Table("fixture", "device", "artifact", "evidence", "drop pts", "flips", "end to end", "latency", "verdict", box=None)
    for row in rows:
        if "skipped" in row:
            table.add_row(row["fixture"], row["device"], row["artifact"], f"– {row['skipped']}")
            continue
        latency = row["numbers"].get("latency")
        table.add_row(
            row["fixture"], row["device"], row["artifact"], row["evidence"], str(row["drop_points"]), str(row["flips"]),
            "identical" if row["identical_end_to_end"] else "differs",
            f"{latency['value']:.3f} {latency['unit']} ({latency['evidence']})" if latency else "–", row["verdict"],
        )  # fmt: skip
    console = Console()
    console.print(table)
    console.print(", ".join(f"{fixture}: one command, {took:.0f} s" for fixture, took in seconds.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fixture", action="append", choices=FIXTURES, help="Only this one; may be repeated.")
    chosen = parser.parse_args().fixture or list(FIXTURES)
    rows: list[Row] = []
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for fixture in chosen:
            report, seconds[fixture] = validated(fixture, Path(folder, fixture), samples=FIXTURES[fixture])
            rows += cells(fixture, report)
    show(rows, seconds)
    if len(chosen) == len(FIXTURES):
        settings = {"samples": FIXTURES, "validate_seconds": seconds}
        write_results("matrix", rows, settings=settings, packages=PACKAGES, quick=False)


if __name__ == "__main__":
    main()
