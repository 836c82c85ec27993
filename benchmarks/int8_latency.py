"""Latency of int8 MobileNetV2 from edgekit against the float model and against other tools' int8, runtime by runtime.

::

    python benchmarks/int8_latency.py            # 20 to 30 minutes; only a quiet machine gives a result worth keeping
    python benchmarks/int8_latency.py --quick    # a few minutes: does it work? Its numbers mean little

All models of a runtime run in one process, in alternating blocks (see ``edgekit.device_tests.measurement``), and then again
in other processes in another order; once with one thread and once with two. A ratio is another model's round medians over
edgekit's: above 1, edgekit is faster. Its interval comes from resampling rounds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lab.results import write_results
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import edgekit
from edgekit import pipeline, registry
from edgekit.core.errors import DataError
from edgekit.core.measurement import Distribution
from edgekit.core.task import load_task
from edgekit.core.tensors import quantize
from edgekit.device_tests.measurement import Series, sample_rounds
from edgekit.device_tests.paired import ratio_of_medians

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parent / "examples" / "mobilenet"
OURS, FLOAT = "edgekit int8", "float32"
CLOCKS = ("wall", "cpu")
PEERS = {
    "onnxruntime": {"quantize_static S8, per channel": "onnxruntime-s8", "quantize_static U8, per channel": "onnxruntime-u8"},
    "litert": {"ai-edge-quantizer static int8": "ai-edge-quantizer"},
}
TARGETS = {"onnxruntime": "onnx", "litert": "tflite"}
PACKAGES = ("edgekit", "torch", "onnxruntime", "ai-edge-litert", "ai-edge-quantizer", "litert-torch", "numpy")
Images = NDArray[np.float32]


def mobilenet() -> tuple[edgekit.Task, str]:
    """The example's task, or the same net with random weights where the data was not fetched."""
    try:
        task = load_task(EXAMPLE / "task.py")
        next(iter(task.calibration_batches()))
        task.build_model()
    except DataError as reason:
        return _random_mobilenet(), f"random weights, calibrated on noise ({reason})"
    return task, "published ImageNet weights, calibrated on 64 photographs"


def _random_mobilenet() -> edgekit.Task:
    sys.path.insert(0, str(EXAMPLE))
    from model import MobileNetV2

    noise = np.random.default_rng(0).standard_normal((16, 3, 224, 224)).astype(np.float32)
    return edgekit.Task(name="mobilenet", model=MobileNetV2, example_inputs=noise[:1], calibration=[noise])


def prepare(task: edgekit.Task, runtimes: Sequence[str], work: Path, *, calibration_count: int) -> dict[str, dict[str, Path]]:
    """Files of every model, by runtime and label; made by each tool from the same float program and the same pictures."""
    run = work / "run"
    pipeline.compress(task, recipe="int8", output=run)
    images: Images = np.concatenate([next(iter(batch.values())) for batch in task.calibration_batches()])[:calibration_count]
    np.save(work / "calibration.npy", images)
    models: dict[str, dict[str, Path]] = {}
    for runtime in runtimes:
        # ai-edge-quantizer's file takes and returns integers, and so does ours beside it.
        edges = edgekit.ExportOptions(integer_io=runtime == "litert")
        artifacts = {made.label: made for made in pipeline.export(run, targets=[TARGETS[runtime]], options=edges)}
        baseline = artifacts[f"{TARGETS[runtime]}-float32"].path
        models[runtime] = {OURS: artifacts[TARGETS[runtime]].path, FLOAT: baseline}
        for label, peer in PEERS[runtime].items():
            target = work / f"{peer}{baseline.suffix}"
            command = [
                sys.executable,
                str(HERE / "lab" / "peers.py"),
                peer,
                str(baseline),
                str(work / "calibration.npy"),
                str(target),
            ]
            _quietly(command, work / "log.txt")
            models[runtime][label] = target
    return models


def _quietly(command: Sequence[str], log: Path) -> None:
    """Run a process whose chatter belongs in a log."""
    with log.open("ab") as output:
        done = subprocess.run(command, stdout=output, stderr=output, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:3])} failed:\n{log.read_text(encoding='utf-8', errors='replace')[-2000:]}")


def measure(
    runtime: str, models: Mapping[str, Path], work: Path, *, threads: int, budget_s: float, fewest_rounds: int, process_count: int
) -> list[dict[str, Any]]:
    """Rows of one runtime: measured in several processes, because where the memory of a model lies differs between them."""
    job, answer = work / "job.json", work / "answer.json"
    found: list[dict[str, Any]] = []
    for number in range(process_count):
        order = [*list(models)[number % len(models) :], *list(models)[: number % len(models)]]
        plan = {
            "runtime": runtime,
            "models": {label: str(models[label]) for label in order},
            "images": str(work / "calibration.npy"),
            "threads": threads,
            "budget_s": budget_s / process_count,
            "fewest_rounds": fewest_rounds,
            "answer": str(answer),
        }
        job.write_text(json.dumps(plan), encoding="utf-8")
        _quietly([sys.executable, __file__, "--measure", str(job)], work / "log.txt")
        found.append(json.loads(answer.read_text(encoding="utf-8")))
    frame = {"runtime": runtime, "threads": threads, "process_count": process_count}
    return [frame | _row(label, found) | {"size_bytes": models[label].stat().st_size} for label in models]


def measure_here(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Load all models of one runtime, run them in alternating blocks, and drop the rounds before all have warmed up."""
    runtime = registry.runtime(plan["runtime"])
    sessions = {label: runtime.load(Path(path), threads=plan["threads"]) for label, path in plan["models"].items()}
    images = np.load(plan["images"])
    answers = {label: _predictions(session, images) for label, session in sessions.items()}
    calls = {label: _Call(session, images[:1]) for label, session in sessions.items()}
    series = sample_rounds(calls, budget_s=plan["budget_s"], fewest_rounds=plan["fewest_rounds"])
    begin = max(int(one.rounds[one.start]) for one in series.values())
    return {
        label: {
            "agreement_with_float": float(np.mean(answers[label] == answers[FLOAT])),
            "sample_count": int(one.wall_ns.size),
            **{f"{clock}_rounds_ms": (one.round_medians(clock)[begin:] / 1e6).tolist() for clock in CLOCKS},
            **{f"{clock}_samples_ms": (values[one.rounds >= begin] / 1e6).tolist() for clock, values in _clocks(one)},
        }
        for label, one in series.items()
    }


def _clocks(series: Series) -> list[tuple[str, Any]]:
    return list(zip(CLOCKS, (series.wall_ns, series.cpu_ns), strict=True))


class _Call:
    """One inference of one picture, always the same."""

    def __init__(self, session: Any, image: Images) -> None:
        self.session = session
        (spec,) = session.inputs
        laid_out = image if spec.shape == image.shape else np.ascontiguousarray(image.transpose(0, 2, 3, 1))
        if spec.scale is not None:
            ends = np.iinfo(spec.dtype)
            laid_out = quantize(
                laid_out, scale=spec.scale, zero_point=spec.zero_point, minimum=ends.min, maximum=ends.max, dtype=spec.dtype
            )
        self.inputs = {spec.name: laid_out}

    def __call__(self) -> Any:
        return self.session.run(self.inputs)


def _predictions(session: Any, images: Images) -> Any:
    return np.array([np.argmax(next(iter(_Call(session, image[None])().values()))) for image in images])


def _row(label: str, processes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Medians and spread of one model over all processes, and its ratios to edgekit's, round by round."""
    row: dict[str, Any] = {
        "model": label,
        "agreement_with_float": processes[0][label]["agreement_with_float"],
        "sample_count": sum(process[label]["sample_count"] for process in processes),
        "round_count": sum(len(process[label]["wall_rounds_ms"]) for process in processes),
    }
    for clock in CLOCKS:
        spread = Distribution.of([value for process in processes for value in process[label][f"{clock}_samples_ms"]])
        pairs = [tuple(np.array(process[model][f"{clock}_rounds_ms"]) for model in (label, OURS)) for process in processes]
        ratio = ratio_of_medians(*(np.concatenate(side) for side in zip(*pairs, strict=True)))
        row |= {
            f"{clock}_ms": spread.p50,
            f"{clock}_p50_interval_ms": spread.p50_interval,
            f"{clock}_p90_ms": spread.p90,
            f"{clock}_ratio": ratio.value,
            f"{clock}_ratio_interval": (ratio.low, ratio.high),
            f"{clock}_ratio_by_process": [float(np.median(own) / np.median(ours)) for own, ours in pairs],
        }
    return row


def show(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """A table a runtime, then what the numbers say."""
    table = Table(
        title="MobileNetV2, 1 picture of 224 × 224 (ratio: time of the model over time of edgekit's int8, 95 % interval)"
    )
    for name in (
        "runtime",
        "threads",
        "model",
        "size MB",
        "agrees with float",
        "wall ms",
        "p90",
        "CPU ms",
        "ratio wall",
        "ratio CPU",
    ):
        table.add_column(name, justify="left" if name in {"runtime", "model"} else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["runtime"],
            str(row["threads"]),
            row["model"],
            f"{row['size_bytes'] / 1e6:.2f}",
            f"{row['agreement_with_float']:.0%}",
            f"{row['wall_ms']:.2f}",
            f"{row['wall_p90_ms']:.2f}",
            f"{row['cpu_ms']:.2f}",
            _ratio(row, "wall"),
            _ratio(row, "cpu"),
            end_section=row is rows[-1] or rows[rows.index(row) + 1]["threads"] != row["threads"],
        )
    console.print(table)
    for sentence in findings(rows):
        console.print(sentence)


def _ratio(row: Mapping[str, Any], clock: str) -> str:
    low, high = row[f"{clock}_ratio_interval"]
    return "1" if row["model"] == OURS else f"{row[f'{clock}_ratio']:.2f} ({low:.2f} to {high:.2f})"


def findings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Is edgekit at least as fast as every other model? By CPU time, which a busy machine disturbs least."""
    said = []
    for row in rows:
        if row["model"] == OURS:
            continue
        low, high = row["cpu_ratio_interval"]
        verdict = "faster than" if low > 1 else "SLOWER than" if high < 1 else "as fast as"
        threads = "1 thread" if row["threads"] == 1 else f"{row['threads']} threads"
        said.append(f"{row['runtime']}, {threads}: edgekit is {verdict} {row['model']} ({_ratio(row, 'cpu')} by CPU time)")
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds, one thread, few calibration pictures")
    parser.add_argument("--runtime", action="append", choices=sorted(PEERS), help="only this runtime (may be repeated)")
    parser.add_argument("--threads", action="append", type=int, help="only with so many threads (may be repeated)")
    parser.add_argument("--budget-s", type=float, help="most seconds of measuring per runtime and thread count")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        plan = json.loads(options.measure.read_text(encoding="utf-8"))
        Path(plan["answer"]).write_text(json.dumps(measure_here(plan)), encoding="utf-8")
        return
    console = Console(width=max(Console().width, 190))
    runtimes = options.runtime or sorted(PEERS, reverse=True)
    threads = options.threads or ([1] if options.quick else [1, 2])
    budget_s = options.budget_s or (5.0 if options.quick else 180.0)
    fewest_rounds, calibration_count, process_count = (5, 8, 1) if options.quick else (20, 64, 5)
    task, weights = mobilenet()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="edgekit-benchmark-") as folder:
        models = prepare(task, runtimes, Path(folder), calibration_count=calibration_count)
        for runtime in runtimes:
            for count in threads:
                console.print(f"measuring {runtime} with {count} thread(s) …", style="dim")
                rows += measure(
                    runtime,
                    models[runtime],
                    Path(folder),
                    threads=count,
                    budget_s=budget_s,
                    fewest_rounds=fewest_rounds,
                    process_count=process_count,
                )
    show(rows, console)
    settings = {
        "model": f"MobileNetV2, {weights}",
        "budget_s": budget_s,
        "fewest_rounds": fewest_rounds,
        "process_count": process_count,
        "calibration_count": calibration_count,
    }
    name = "int8_latency" if len(runtimes) == len(PEERS) else f"int8_latency-{'-'.join(runtimes)}"
    path = write_results(name, rows, settings=settings, packages=PACKAGES, quick=options.quick)
    console.print(f"written: {path}")


if __name__ == "__main__":
    main()
