"""Can edgekit's times be believed: false alarms, sensitivity, precision, busy neighbours, and what measuring itself costs.

::

    python benchmarks/measurement.py            # a quarter of an hour on a quiet machine
    python benchmarks/measurement.py --quick    # does it work?

Two nets are made of equal convolutions, one with 10 % more of them; the true ratio is that of their CPU times over a long run.
Every comparison is a timing job of its own, in an agent of its own, as ``edgekit bench RUN`` and ``edgekit validate`` make it.

* comparisons: the net, the same file again, and the slower one, in turn. A false alarm is an interval of (same file / net)
  that leaves out 1. The slowdown is found where the interval of (slower / net) lies above 1.
* precision: half of the 95 % interval of the median after at most 30 seconds, over the median.
* neighbours: the same comparison while four processes spin. The ratio must be within 5 % of the true one, or the result flagged.
* overhead: blocks of inferences in a bare loop and in the loop that samples, in turn in one process, by wall and by CPU time
  (the latter is judged: nobody else's work is in it); and what the samples say beside the bare loop.
"""

from __future__ import annotations

import argparse
import functools
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from lab.results import write_results
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from edgekit import registry
from edgekit.core.artifact import Artifact
from edgekit.core.files import sha256
from edgekit.core.measurement import Evidence, Measurement
from edgekit.core.tensors import TensorSpec
from edgekit.device_tests.bench_jobs import BenchJobs
from edgekit.device_tests.blocks import Block, choose_length, take_block
from edgekit.device_tests.measurement import Series, compare, is_disturbed, summarise
from edgekit.device_tests.profiles import load_profile
from edgekit.device_tests.rounds import BLOCK_S, sample_rounds
from edgekit.device_tests.workbench import connect

LAYERS = 20
MORE_LAYERS = 22
CHANNELS, SIDE = 32, 20
TINY_LAYERS, TINY_SIDE = 2, 4
SPINNING = "while True: pass"
NEIGHBOURS = 4
FALSE_ALARMS, FOUND, HALF_WIDTH, WITHIN, OVERHEAD = 5, 95, 0.02, 0.05, 0.01
PACKAGES = ("edgekit", "onnxruntime", "onnx", "numpy")

Row = dict[str, Any]


def convolutions(path: Path, *, layers: int, side: int) -> Path:
    """A net of equal convolutions, each with a bias and a ReLU."""
    rng = np.random.default_rng(0)
    shape = (1, CHANNELS, side, side)
    nodes, weights = [], []
    for number in range(layers):
        weight = rng.normal(0, 0.05, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{number}"))
        source = f"x{number}" if number else "input"
        nodes.append(helper.make_node("Conv", [source, f"w{number}"], [f"c{number}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"x{number + 1}" if number + 1 < layers else "output"]))
    edges = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("input", "output")]
    graph = helper.make_graph(nodes, "convolutions", edges[:1], edges[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def artifact(path: Path, variant: str, *, side: int = SIDE) -> Artifact:
    specs = [TensorSpec(name=name, shape=(1, CHANNELS, side, side), dtype="float32") for name in ("input", "output")]
    return Artifact(
        target="onnx", path=path, sha256=sha256(path), size_bytes=path.stat().st_size, precision="float32", variant=variant,
        inputs=(specs[0],), outputs=(specs[1],),
    )  # fmt: skip


def golden(side: int = SIDE) -> dict[str, Any]:
    return {"input": np.random.default_rng(1).standard_normal((4, 1, CHANNELS, side, side)).astype(np.float32)}


@contextmanager
def jobs(work: Path, *, side: int = SIDE) -> Iterator[BenchJobs]:
    profile = load_profile("host")
    transport = connect(profile)
    try:
        yield BenchJobs(profile, transport, golden=golden(side), folder=work, log=work / "log.txt")
    finally:
        transport.close()


def ratio_row(series: Mapping[str, Series], label: str) -> Row:
    """The ratios of a model over the net, of wall (CPU where that was disturbed) and of CPU time."""
    wall, cpu = compare(series[f"onnx-{label}"], series["onnx-net"], threads=1, evidence=Evidence.MEASURED)
    return {"ratio": wall.value, "interval": wall.interval, "cpu_ratio": cpu.value, "cpu_interval": cpu.interval}


def comparisons(net: Path, slower: Path, work: Path, *, count: int, budget_s: float) -> list[Row]:
    """The net, itself and the slower one in turn, each time in a new agent."""
    models = [artifact(net, "net"), artifact(net, "same"), artifact(slower, "slower")]
    rows: list[Row] = []
    with jobs(work) as bench:
        for number in range(count):
            turned = number % len(models)
            timing, series = bench.timing([*models[turned:], *models[:turned]], budget_s=budget_s)
            about = {"part": "comparison", "number": number} | signs(series["onnx-net"])
            about["other_cpu_share"] = timing.interference.other_cpu_share if timing.interference else None
            rows += [{**about, "models": label, **ratio_row(series, label)} for label in ("same", "slower")]
    return rows


def signs(series: Series) -> Row:
    found = series.interference
    return {
        "rounds": int(series.rounds[-1]) + 1,
        "inferences": int(series.wall_ns.size),
        "loads": 1 if series.loads is None else int(series.loads[-1]) + 1,
        "discarded_rounds": found.discarded_count if found else 0,
        "waiting_share": found.waiting_share if found else None,
        "is_flagged": is_disturbed(series, threads=1),
    }


def true_ratio(net: Path, slower: Path, *, budget_s: float) -> Row:
    """Ratio of the CPU times of all inferences of a long run, in turn in this process."""
    runtime = registry.runtime("onnxruntime")
    sample = {name: array[0] for name, array in golden().items()}
    sessions = {"net": runtime.load(net), "slower": runtime.load(slower)}
    calls = {label: functools.partial(session.run, sample) for label, session in sessions.items()}
    series = sample_rounds(calls, budget_s=budget_s, fewest_rounds=max(int(budget_s / BLOCK_S / 2), 10))
    mean = {label: float(one.cpu_ns[one.counted].mean()) for label, one in series.items()}
    row = {"ratio": mean["slower"] / mean["net"], "net_cpu_ms": mean["net"] / 1e6, "inferences": int(series["net"].wall_ns.size)}
    return {"part": "true ratio", "by_layers": MORE_LAYERS / LAYERS, **row}


def precision(paths: Mapping[str, tuple[Path, int]], work: Path, *, budget_s: float) -> list[Row]:
    """How well the median is known after at most so many seconds."""
    rows: list[Row] = []
    for name, (path, side) in paths.items():
        with jobs(work, side=side) as bench:
            start = time.perf_counter()
            _, series = bench.timing([artifact(path, name, side=side)], budget_s=budget_s)
            seconds = time.perf_counter() - start
        one = series[f"onnx-{name}"]
        latency, _ = summarise(one, threads=1, evidence=Evidence.MEASURED)
        rows.append(
            {"part": "precision", "net": name, "seconds": seconds, "median_ms": latency.value, "interval_ms": latency.interval,
             "half_width": half_width(latency), **signs(one)}
        )  # fmt: skip
    return rows


def half_width(latency: Measurement) -> float | None:
    return None if latency.interval is None else (latency.interval[1] - latency.interval[0]) / 2 / latency.value


@contextmanager
def busy_neighbours(count: int) -> Iterator[None]:
    """Processes that do nothing but take processors."""
    started = [subprocess.Popen([sys.executable, "-c", SPINNING]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


def neighbours(net: Path, slower: Path, work: Path, *, count: int, budget_s: float) -> list[Row]:
    models = [artifact(net, "net"), artifact(slower, "slower")]
    rows: list[Row] = []
    with busy_neighbours(NEIGHBOURS), jobs(work) as bench:
        for number in range(count):
            _, series = bench.timing(models if number % 2 else models[::-1], budget_s=budget_s)
            flagged = any(is_disturbed(one, threads=1) for one in series.values())
            about = signs(series["onnx-net"]) | {"is_flagged": flagged}
            rows.append({"part": "neighbours", "number": number, **about, **ratio_row(series, "slower")})
    return rows


def overhead(name: str, path: Path, *, side: int, pairs: int) -> Row:
    """What sampling costs: a block with it over the same inferences without it, less one; and what the samples say."""
    sample = {key: array[0] for key, array in golden(side).items()}
    session = registry.runtime("onnxruntime").load(path)
    run = functools.partial(session.run, sample)
    length = max(choose_length(run, BLOCK_S), 2)
    found: dict[str, list[float]] = {"cost": [], "cost_cpu": [], "reported": [], "reported_cpu": [], "bare_ms": []}
    for number in range(pairs):
        clocks: dict[str, float] = {}
        block = Block([], [], 0)
        for kind in ("bare", "sampled") if number % 2 else ("sampled", "bare"):
            cpu, wall = time.process_time_ns(), time.perf_counter_ns()
            if kind == "bare":
                for _ in range(length + 1):  # as many as a block makes, with the one that it does not count
                    run()
            else:
                block = take_block(run, length)
            clocks[f"{kind}_wall"], clocks[f"{kind}_cpu"] = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
        found["cost"].append(clocks["sampled_wall"] / clocks["bare_wall"] - 1)
        found["cost_cpu"].append(clocks["sampled_cpu"] / clocks["bare_cpu"] - 1)
        found["reported"].append(float(np.mean(block.wall_ns)) * (length + 1) / clocks["bare_wall"] - 1)
        found["reported_cpu"].append(float(np.mean(block.cpu_ns)) * (length + 1) / clocks["bare_cpu"] - 1)
        found["bare_ms"].append(clocks["bare_wall"] / (length + 1) / 1e6)
    session.close()
    row = {"part": "overhead", "net": name, "pairs": pairs, "inferences_in_block": length}
    medians = {key: float(np.median(values)) for key, values in found.items()}
    return row | medians | {f"{key}_interval": median_interval(values) for key, values in found.items()}


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    ordered, half = np.sort(values), 0.98 * math.sqrt(len(values))
    low, high = max(int(len(ordered) / 2 - half), 0), min(math.ceil(len(ordered) / 2 + half), len(ordered) - 1)
    return float(ordered[low]), float(ordered[high])


def answers(rows: Sequence[Row]) -> list[Row]:
    """The questions, with what was found and whether that is enough."""
    same = [row for row in rows if row["part"] == "comparison" and row["models"] == "same"]
    slower = [row for row in rows if row["part"] == "comparison" and row["models"] == "slower"]
    truth = next(row["ratio"] for row in rows if row["part"] == "true ratio")
    alarms = sum(not row["interval"][0] <= 1 <= row["interval"][1] for row in same)
    found = sum(row["interval"][0] > 1 for row in slower)
    covered = sum(row["interval"][0] <= truth <= row["interval"][1] for row in slower)
    widths = [row["half_width"] for row in rows if row["part"] == "precision"]
    busy = [row for row in rows if row["part"] == "neighbours"]
    off = [abs(row["ratio"] / truth - 1) for row in busy]
    bad = [at for at, row in enumerate(busy) if off[at] > WITHIN and not row["is_flagged"]]
    costs = [row for row in rows if row["part"] == "overhead"]
    enough = max(round(FOUND / 100 * len(slower)), 1)
    widest = math.inf if None in widths else max(widths)
    return [
        answer(f"false alarms of {len(same)} comparisons with itself", alarms, alarms <= max(FALSE_ALARMS * len(same) // 100, 0)),
        answer(f"found of {len(slower)} slowdowns by {100 * (truth - 1):.1f} %", found, found >= enough),
        answer(f"intervals of {len(slower)} slowdowns that hold the true ratio", covered, None),
        answer("widest 95 % interval of the median, half, share", widest, widest <= HALF_WIDTH),
        answer(f"of {len(busy)} comparisons with busy neighbours: off by over 5 % and not flagged", len(bad), not bad),
        answer("largest error of a ratio with busy neighbours, share", max(off), None),
        answer("of these flagged", sum(row["is_flagged"] for row in busy), None),
        answer("overhead of sampling, 20-layer net, CPU time", costs[0]["cost_cpu"], costs[0]["cost_cpu"] <= OVERHEAD),
        answer("the same by wall time", costs[0]["cost"], None),
        answer("overhead of sampling, 2-layer net, CPU time", costs[1]["cost_cpu"], None),
        answer("reported wall time over a bare loop, 20-layer net", costs[0]["reported"], abs(costs[0]["reported"]) <= OVERHEAD),
        answer("reported wall time over a bare loop, 2-layer net", costs[1]["reported"], None),
    ]  # fmt: skip


def answer(question: str, value: float, passed: bool | None) -> Row:
    return {"part": "answer", "question": question, "value": value, "passed": passed}


def show(console: Console, found: Sequence[Row]) -> None:
    table = Table("question", "found", "enough")
    for row in found:
        value = f"{row['value']:.4f}" if isinstance(row["value"], float) else str(row["value"])
        table.add_row(row["question"], value, "" if row["passed"] is None else "yes" if row["passed"] else "NO")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few comparisons: does it work?")
    quick = parser.parse_args().quick
    count, busy, pairs = (4, 2, 20) if quick else (100, 10, 400)
    budget_s, long_s, precise_s = (1.0, 2.0, 3.0) if quick else (3.0, 30.0, 30.0)
    console = Console(width=150)
    with tempfile.TemporaryDirectory(prefix="edgekit-measurement-") as temporary:
        work = Path(temporary)
        net = convolutions(work / "net.onnx", layers=LAYERS, side=SIDE)
        slower = convolutions(work / "slower.onnx", layers=MORE_LAYERS, side=SIDE)
        tiny = convolutions(work / "tiny.onnx", layers=TINY_LAYERS, side=TINY_SIDE)
        rows = [true_ratio(net, slower, budget_s=long_s)]
        rows += [overhead("20 layers", net, side=SIDE, pairs=pairs), overhead("2 layers", tiny, side=TINY_SIDE, pairs=pairs)]
        rows += precision({"net": (net, SIDE), "tiny": (tiny, TINY_SIDE)}, work, budget_s=precise_s)
        rows += neighbours(net, slower, work, count=busy, budget_s=budget_s)
        rows += comparisons(net, slower, work, count=count, budget_s=budget_s)
    found = answers(rows)
    show(console, found)
    settings = {
        "comparisons": count, "budget_s": budget_s, "precision_budget_s": precise_s, "neighbours": NEIGHBOURS, "threads": 1,
        "layers": LAYERS, "more_layers": MORE_LAYERS, "limits": {"false alarms": FALSE_ALARMS, "found": FOUND,
        "half width": HALF_WIDTH, "ratio within": WITHIN, "overhead": OVERHEAD},
    }  # fmt: skip
    path = write_results("measurement", [*found, *rows], settings=settings, packages=PACKAGES, quick=quick)
    console.print(f"written: {path}")


if __name__ == "__main__":
    main()
