"""Do Arm cores compute the same bits as x86 with ``int8-exact``? The runtimes' Arm kernels, emulated instruction by instruction.

::

    apt-get install qemu-user-static mmdebstrap
    python benchmarks/exactness_arm.py                              # a Cortex-A53, A72 and A76, all fixtures

The files are those that run on x86. Expected answers are those of the compressed program in torch on this machine. Emulation is a
hundred to two thousand times slower than a core: each cell answers as many samples as fit in its time, and says how many.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from lab.arm import CORES, WHEELS, emulator_version, make_root, run_on_arm
from lab.exactness import answers, differences, gather, load_example, make_run
from lab.results import RESULTS, write_results
from rich.console import Console
from rich.table import Table

from edgekit.core.errors import DeviceError

FIXTURES = {"smartwatch": 14_286, "residual": 10_000, "fashion": 10_000, "mobilenet": 4}
"""Fixture -> samples at most: 100,000 outputs of the small nets, four pictures for the large one."""

TARGETS = {"onnx": "ONNX Runtime", "tflite": "LiteRT XNNPACK"}
PACKAGES = ("edgekit", "torch", *WHEELS)
ROOT = Path(__file__).resolve().parents[1] / ".assets" / "arm64"
LIMIT_S = 1800.0

Row = dict[str, Any]


def measure(fixture: str, *, sample_count: int, limit_s: float, root: Path, work: Path) -> list[Row]:
    """Every core and runtime on one fixture: a row each."""
    task = load_example(fixture)
    run = make_run(task, "int8-exact", targets=tuple(TARGETS), work=work)
    files = {artifact.target: artifact.path for artifact in run.load_artifacts()}
    inputs = gather(task, sample_count=sample_count).inputs[:sample_count]
    expected = answers("torch", run.compressed / "program.pt2", inputs, limit_s=limit_s)
    rows = list[Row]()
    for core in CORES:
        for target, executor in TARGETS.items():
            row: Row = {"fixture": fixture, "recipe": "int8-exact", "core": core, "executor": executor, "limit_s": limit_s}
            try:
                given = inputs[: len(expected)]
                found = run_on_arm(root, core, target=target, model=files[target], inputs=given, limit_s=limit_s)
                rows.append({**row, **differences(found, expected)})
            except DeviceError as reason:
                rows.append({**row, "failed": str(reason)})
    return rows


def show(console: Console, rows: list[Row]) -> None:
    table = Table(
        "fixture", "core (emulated)", "executor", "samples", "outputs", "values differ", "bits differ", "predictions differ"
    )
    for row in rows:
        names = (row["fixture"], row["core"], row["executor"])
        if "failed" in row:
            table.add_row(*names, "failed", "", row["failed"], "", "")
            continue
        numbers = ("sample_count", "output_count", "differing_values", "differing_bits", "differing_predictions")
        table.add_row(*names, *(f"{row[number]:,}" for number in numbers))
    console.print(table)


def other_rows(fixture: str, *, quick: bool) -> list[Row]:
    """What earlier calls wrote of the other fixtures."""
    path = RESULTS / f"exactness_arm{'-quick' if quick else ''}.json"
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    return [row for row in rows if row["fixture"] != fixture]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two samples: does it work?")
    parser.add_argument("--fixture", action="append", choices=FIXTURES, help="only these; may be repeated")
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="seconds a cell may take; then fewer samples count")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of the Arm system; made where it is missing")
    parser.add_argument("--work", type=Path, help="folder that keeps the runs  [default: a temporary one]")
    arguments = parser.parse_args()
    console, emulator = Console(width=150), emulator_version()
    make_root(arguments.root)
    settings = {"emulator": emulator, "evidence": "emulated", "expected": "the compressed program in torch on x86"}
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.fixture or FIXTURES:
            count, work = 2 if arguments.quick else FIXTURES[name], arguments.work or Path(temporary)
            own = measure(name, sample_count=count, limit_s=arguments.limit_s, root=arguments.root, work=work)
            show(console, own)
            rows = [*other_rows(name, quick=arguments.quick), *own]
            path = write_results("exactness_arm", rows, settings=settings, packages=PACKAGES, quick=arguments.quick)
    console.print(f"written: {path}")


if __name__ == "__main__":
    main()
