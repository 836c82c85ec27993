"""How long ``edgekit --help`` takes and how much memory it needs, and which frameworks ``import edgekit`` loads (none).

::

    python benchmarks/cold_start.py            # half a minute
    python benchmarks/cold_start.py --quick    # a few processes

Every sample is a fresh process, a plain ``python -c pass`` in turn with the others, so that the interpreter's own share is
seen. Peak memory is what a process of its own reports of itself as it ends: the sum the system hands to a waiting parent
would include the parent's memory, which a child shares until it starts its program.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FRAMEWORKS = (
    "torch", "torchao", "tensorflow", "keras", "onnx", "onnxruntime", "onnxscript", "coremltools", "litert_torch",
    "ai_edge_litert",
)  # fmt: skip
LIMIT_MS, LIMIT_MB = 150.0, 40.0
LOADED = "import json, sys, edgekit; print(json.dumps([name for name in sys.argv[1:] if name in sys.modules]))"


COMMANDS = {  # what is started, and what it runs
    "edgekit --help": "import sys; sys.argv = ['edgekit', '--help']; from edgekit.cli import main; main()",
    "import edgekit": "import edgekit",
    "python -c pass": "pass",
}
PEAK = """
import atexit, sys
def report():
    if sys.platform == "linux":
        line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
        peak = int(line.split()[1]) * 1024
    else:
        import resource
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    sys.stderr.write(f"peak {peak}")
atexit.register(report)
"""


def command(name: str) -> list[str]:
    """The process to start: the installed script for the command line, the interpreter for the rest."""
    if name == "edgekit --help":
        return [str(Path(sys.executable).with_name("edgekit")), "--help"]
    return [sys.executable, "-c", COMMANDS[name]]


def time_one(name: str) -> tuple[float, float]:
    """One process: wall and CPU milliseconds."""
    arguments = command(name)
    begin = time.perf_counter()
    process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall_ms = (time.perf_counter() - begin) * 1e3
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with code {process.returncode}; run it by hand to see why")
    return wall_ms, (usage.ru_utime + usage.ru_stime) * 1e3


def peak_mb(name: str) -> float:
    """Largest resident set of one process, in megabytes (10^6 bytes)."""
    code = f"{PEAK}\n{COMMANDS[name]}"
    done = subprocess.run([sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return int(done.stderr.rpartition("peak ")[2]) / 1e6


def sample(count: int) -> dict[str, list[tuple[float, float, float]]]:
    """``count`` times each command in turn, after two of each that fill the file caches: wall ms, CPU ms, peak MB."""
    samples: dict[str, list[tuple[float, float, float]]] = {name: [] for name in COMMANDS}
    for number in range(-2, count):
        for name, found in samples.items():
            taken = (*time_one(name), peak_mb(name))
            if number >= 0:
                found.append(taken)
    return samples


def loaded_frameworks() -> list[str]:
    """Those of :data:`FRAMEWORKS` that a fresh ``import edgekit`` leaves in ``sys.modules``."""
    done = subprocess.run([sys.executable, "-c", LOADED, *FRAMEWORKS], capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


def make_row(name: str, samples: list[tuple[float, float, float]]) -> dict[str, Any]:
    """Median, quartiles and extremes of each quantity."""
    row: dict[str, Any] = {"command": name, "sample_count": len(samples)}
    for quantity, values in zip(("wall_ms", "cpu_ms", "peak_mb"), zip(*samples, strict=True), strict=True):
        quartiles = statistics.quantiles(values, n=4)
        row[quantity] = statistics.median(values)
        row[f"{quantity}_quartiles"] = (quartiles[0], quartiles[2])
        row[f"{quantity}_range"] = (min(values), max(values))
    return row


def show(rows: list[dict[str, Any]], loaded: list[str]) -> None:
    """The table, and what it says about the limits."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(Console().width, 120))
    table = Table(title=f"Cold start, {rows[0]['sample_count']} fresh processes each: median (first to third quartile)")
    for column in ("command", "wall ms", "CPU ms", "peak memory MB"):
        table.add_column(column, justify="left" if column == "command" else "right")
    for row in rows:
        cells = [
            f"{row[key]:.1f} ({row[f'{key}_quartiles'][0]:.1f} to {row[f'{key}_quartiles'][1]:.1f})"
            for key in ("wall_ms", "cpu_ms", "peak_mb")
        ]
        table.add_row(row["command"], *cells)
    console.print(table)
    own = rows[0]
    kept = own["wall_ms"] <= LIMIT_MS and own["peak_mb"] <= LIMIT_MB
    console.print(f"edgekit --help {'keeps' if kept else 'BREAKS'} its limits of {LIMIT_MS:.0f} ms and {LIMIT_MB:.0f} MB")
    console.print(f"import edgekit loads {', '.join(loaded) if loaded else 'none'} of {', '.join(FRAMEWORKS)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="five processes of each instead of forty")
    options = parser.parse_args()
    count = 5 if options.quick else 40
    samples = sample(count)
    loaded = loaded_frameworks()

    from lab.results import write_results

    rows = [make_row(name, found) for name, found in samples.items()]
    show(rows, loaded)
    settings = {"sample_count": count, "limit_ms": LIMIT_MS, "limit_mb": LIMIT_MB, "loaded_frameworks": loaded}
    path = write_results(
        "cold_start", rows, settings=settings, packages=("edgekit", "click", "pydantic", "rich"), quick=options.quick
    )
    print(f"written: {path}")


if __name__ == "__main__":
    main()
