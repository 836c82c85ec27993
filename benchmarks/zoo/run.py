"""Convert every architecture of the zoo to every target, float and int8, by edgekit and by the vendor's own call.

::

    python benchmarks/zoo/run.py                                       # all; goes on where it was interrupted
    python benchmarks/zoo/run.py --only swin --target tflite --again   # one net, anew
    python benchmarks/zoo/run.py --table                               # results/zoo.json and docs/zoo.md from what is there

A cell is one conversion, run on inputs that neither tracing nor calibration saw, in a process of its own.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from zoo.architecture import Architecture
from zoo.catalogue import FAMILIES, architectures
from zoo.isolation import Ended, call_forked
from zoo.roads import TARGETS, import_framework, ours, theirs
from zoo.table import write_tables

PRECISIONS = ("float", "int8")
ROADS = ("edgekit", "vendor")
CELLS = (("float", "edgekit"), ("int8", "edgekit"), ("float", "vendor"))
"""What is done of each net and target, in this order. No vendor has a call that lowers given integers."""
TIMEOUT_S = 120.0
MEMORY_BYTES = 6 * 2**30
DEFAULT_WORK = Path(tempfile.gettempdir()) / "edgekit-zoo"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--family", action="append", choices=FAMILIES, help="may be repeated; done in the order given")
    parser.add_argument("--only", action="append", metavar="NAME", help="one architecture; may be repeated")
    parser.add_argument("--target", action="append", choices=TARGETS)
    parser.add_argument("--precision", action="append", choices=PRECISIONS)
    parser.add_argument("--road", action="append", choices=ROADS)
    parser.add_argument("--again", action="store_true", help="do not keep what is there of the chosen cells")
    parser.add_argument("--jobs", type=int, default=2, help="targets at a time")
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="folder of programs, cells and logs")
    parser.add_argument("--table", action="store_true", help="only write the results and the table")
    parser.add_argument("--stage", choices=("programs", *TARGETS), help=argparse.SUPPRESS)
    return parser.parse_args()


def chosen(options: argparse.Namespace) -> list[Architecture]:
    known = architectures(*options.family or FAMILIES)
    unknown = [name for name in options.only or () if name not in known]
    if unknown:
        sys.exit(f"unknown architecture: {', '.join(unknown)}; known: {', '.join(known)}")
    return [made for name, made in known.items() if not options.only or name in options.only]


def read_cells(work: Path) -> dict[tuple[str, ...], dict[str, Any]]:
    """The last record of every cell, by its key."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for path in sorted(work.glob("cells-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            cell = json.loads(line)
            found[key_of(cell)] = cell
    return found


def key_of(cell: dict[str, Any]) -> tuple[str, ...]:
    return tuple(cell[part] for part in ("architecture", "target", "precision", "road"))


def run_stage(options: argparse.Namespace) -> None:
    """All chosen cells of one stage, one child process a cell."""
    stage, work = options.stage, options.work
    nets = chosen(options)
    done = {} if options.again else read_cells(work)
    jobs = [
        (net, precision, road)
        for precision, road in CELLS
        for net in nets
        if precision in (options.precision or PRECISIONS) and road in (options.road or ROADS)
        if (net.name, stage, precision, road) not in done and not (stage == "programs" and road == "vendor")
    ]
    if not jobs:
        return
    text = any(net.family in {"text", "audio"} for net in nets)
    if stage == "programs":
        import_compression(with_transformers=text)
    else:
        import_framework(stage, with_transformers=text)
    gc.freeze()  # what is imported stays: no child looks through it again
    with (work / f"cells-{stage}.jsonl").open("a", encoding="utf-8") as stream:
        for net, precision, road in jobs:
            cell = run_cell(net, stage, precision, road, work)
            stream.write(json.dumps(cell) + "\n")
            stream.flush()
            words = f"{stage:8} {net.name:28} {precision:5} {road:8} {cell['status']:8} {cell['seconds']:5.1f} s"
            print(f"{words}  {cell['error'][:150]}", flush=True)


def import_compression(*, with_transformers: bool) -> None:
    import numpy as np
    import torch

    import edgekit

    torch.set_num_threads(1)
    if with_transformers:
        import transformers  # noqa: F401
    example = np.ones((1, 4), np.float32)
    small = edgekit.Task(name="warm-up", model=torch.nn.Linear(4, 4), example_inputs=example, calibration=[example])
    edgekit.compress(small, recipe="int8")  # torch imports much more when it traces the first time


def run_cell(net: Architecture, stage: str, precision: str, road: str, work: Path) -> dict[str, Any]:
    place = work / "programs" / net.name
    log = work / "logs" / f"{net.name}-{stage}-{precision}-{road}.txt"
    cell = {"architecture": net.name, "family": net.family, "target": stage, "precision": precision, "road": road}
    if stage != "programs" and not (place / f"{precision}.npz").exists():
        reason = read_cells(work).get((net.name, "programs", precision, "edgekit"), {}).get("error", "no program")
        return {**cell, "status": "refused", "error": reason, "seconds": 0.0, "cpu_seconds": 0.0, "peak_mb": 0.0}

    def work_on_it() -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="zoo-") as scratch:
            if stage == "programs":
                from zoo.programs import make_program

                return make_program(net, place, precision)
            if road == "edgekit":
                return ours(place, target=stage, precision=precision, scratch=Path(scratch))
            return theirs(net, place, target=stage, scratch=Path(scratch))

    if stage == "programs":
        discard(place, precision)
    return {**cell, **describe(call_forked(work_on_it, timeout_s=TIMEOUT_S, memory_bytes=MEMORY_BYTES, log=log))}


def discard(place: Path, precision: str) -> None:
    """Forget an earlier program, so that no cell is judged by it."""
    place.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(place / precision, ignore_errors=True)
    (place / f"{precision}.npz").unlink(missing_ok=True)


def describe(ended: Ended) -> dict[str, Any]:
    """With ``status``: pass, refused (an error), broken (a file that does not run), wrong (no error), crashed, timeout."""
    cost = {name: round(ended[name], 3) for name in ("seconds", "cpu_seconds", "peak_mb")}
    if "value" not in ended:
        kind = "broken" if ended["error"].startswith("DoesNotRunError") else ended["kind"]
        return {"status": kind, "error": ended["error"], **cost}
    value = ended["value"]
    status = "pass" if value.get("is_same", True) else "wrong"
    found = {name: item for name, item in value.items() if name not in {"is_same", "problem"}}
    return {"status": status, "error": value.get("problem", ""), **cost, **found}


def run_all(options: argparse.Namespace) -> None:
    """First the programs, then the targets, some at a time; each stage is a process that imports one framework."""
    run_side_by_side(["programs"], jobs=1)
    run_side_by_side(options.target or list(TARGETS), jobs=options.jobs)


def run_side_by_side(stages: list[str], *, jobs: int) -> None:
    waiting, running = list(stages), []
    arguments = [word for word in sys.argv[1:] if word != "--table"]
    while waiting or running:
        while waiting and len(running) < jobs:
            running.append(subprocess.Popen([sys.executable, __file__, *arguments, "--stage", waiting.pop(0)]))
        time.sleep(0.2)
        running = [process for process in running if process.poll() is None]


def main() -> None:
    options = parse()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.stage:
        run_stage(options)
        return
    if not options.table:
        run_all(options)
        if options.family or options.only or options.target or options.precision or options.road:
            return  # a part of the zoo is for looking at
    print(f"written: {write_tables(list(read_cells(options.work).values()))}")


if __name__ == "__main__":
    main()
