"""Model files of one runtime timed in turn, in several processes: what disturbs the machine disturbs all of them.

Within a process the models run in alternating blocks (``edgekit.device_tests.measurement``), and rounds before all of them have
warmed up are dropped. Each process loads them in another order: where a model's memory lies is worth a few percent.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import registry
from edgekit.core.measurement import Distribution
from edgekit.device_tests.measurement import sample_rounds
from edgekit.device_tests.paired import ratio_of_medians

__all__ = ["take_turns"]

CLOCKS = ("wall", "cpu")


def take_turns(
    models: Mapping[str, Path],
    *,
    baseline: str,
    runtime: str,
    work: Path,
    budget_s: float,
    process_count: int,
    fewest_rounds: int = 10,
    threads: int = 1,
) -> list[dict[str, Any]]:
    """A row for each model: medians, spread, and how many times faster than the baseline, by wall and by CPU time.

    Args:
        models: Label -> file.
        baseline: Label of the model that the others are compared with.
        runtime: Name in the ``edgekit.runtimes`` group.
        work: Folder for jobs and answers.
        budget_s: Seconds of measuring in all.
        process_count: In so many processes, one after the other.
        fewest_rounds: In each process.
        threads: The runtime may use.
    """
    found = []
    for number in range(process_count):
        turned = number % len(models)
        order = [*list(models)[turned:], *list(models)[:turned]]
        job, answer = work / "turns.json", work / "turns-answer.json"
        plan = {
            "runtime": runtime,
            "models": {label: str(models[label]) for label in order},
            "threads": threads,
            "budget_s": budget_s / process_count,
            "fewest_rounds": fewest_rounds,
            "answer": str(answer),
        }
        job.write_text(json.dumps(plan), encoding="utf-8")
        done = subprocess.run([sys.executable, __file__, str(job)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"timing {', '.join(models)} failed:\n{done.stderr[-2000:]}")
        found.append(json.loads(answer.read_text(encoding="utf-8")))
    return [_row(label, baseline, found) | {"size_bytes": path.stat().st_size} for label, path in models.items()]


def _measure(plan: Mapping[str, Any]) -> dict[str, Any]:
    runtime = registry.runtime(plan["runtime"])
    calls = {label: _Call(runtime.load(Path(path), threads=plan["threads"])) for label, path in plan["models"].items()}
    series = sample_rounds(calls, budget_s=plan["budget_s"], fewest_rounds=plan["fewest_rounds"])
    begin = max(int(one.rounds[one.start]) for one in series.values())
    return {
        label: {f"{clock}_ms": (one.round_medians(clock)[begin:] / 1e6).tolist() for clock in CLOCKS}
        | {"preemption_count": one.preemption_count}
        for label, one in series.items()
    }


class _Call:
    """One inference of the same random input, always."""

    def __init__(self, session: Any) -> None:
        self.session = session
        random = np.random.default_rng(0)
        self.inputs = {spec.name: random.standard_normal(spec.shape).astype(spec.dtype) for spec in session.inputs}

    def __call__(self) -> Any:
        return self.session.run(self.inputs)


def _row(label: str, baseline: str, processes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {"model": label, "process_count": len(processes)}
    for clock in CLOCKS:
        name = f"{clock}_ms"
        pairs = [(np.array(process[baseline][name]), np.array(process[label][name])) for process in processes]
        dense, own = (np.concatenate(side) for side in zip(*pairs, strict=True))
        spread, ratio = Distribution.of(own.tolist()), ratio_of_medians(dense, own)
        row |= {
            name: spread.p50,
            f"{clock}_p50_interval_ms": spread.p50_interval,
            f"{clock}_speedup": ratio.value,
            f"{clock}_speedup_interval": (ratio.low, ratio.high),
            f"{clock}_speedup_by_process": [float(np.median(before) / np.median(after)) for before, after in pairs],
        }
    row["round_count"] = sum(len(process[label]["wall_ms"]) for process in processes)
    row["preemption_count"] = sum(process[label]["preemption_count"] for process in processes)
    return row


if __name__ == "__main__":
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(job["answer"]).write_text(json.dumps(_measure(job)), encoding="utf-8")
