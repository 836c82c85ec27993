"""MLPerf Inference's scenarios on the device itself.

=============== ============================================== ===================== =====================
scenario        a query                                        the next one          what is reported
=============== ============================================== ===================== =====================
single stream   one sample (one inference of the file's batch) after the one before  90th percentile
multi stream    n samples (8)                                  after the one before  99th percentile
offline         all samples at once                            again, for the spread samples a second
=============== ============================================== ===================== =====================

After "MLPerf Inference Rules", section 3.1 (MLCommons, inference_policies), and Reddi et al. 2020 (ISCA). What differs:
the rules ask for 600 seconds; here sampling ends when the percentile's 95 % interval is as narrow as was asked, or the time is
up, and the result says which. Models of one target run their queries in turn, so that they can be compared. Samples are drawn
with replacement by a seed. A query's samples run one inference after the other, in the file's own batch size, in one session.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.core.device_bench import Interference, ScenarioResult
from edgekit.core.measurement import Distribution, Evidence, Measurement
from edgekit.core.quantiles import fewest_samples, quantile_interval
from edgekit.device_tests.arrays import write_arrays
from edgekit.device_tests.job_models import JobModels, batch_of
from edgekit.device_tests.jobs import Job, ScenarioPlan, ScenarioTimes
from edgekit.device_tests.measurement import compare, is_disturbed, stored_arrays
from edgekit.device_tests.rounds import Goal, Series, sample_loads

if TYPE_CHECKING:
    from edgekit.core.plugins import Session
    from edgekit.core.tensors import Array

__all__ = ["Queries", "run_scenario", "scenario_plan", "scenario_result"]

MULTI_STREAM_SAMPLES = 8
_DRAWN_QUERIES = 4096
_FEWEST_QUERIES = {"single-stream": 64, "multi-stream": 64, "offline": 5}
_PERCENTILES = {"single-stream": 90, "multi-stream": 99, "offline": 50}


def scenario_plan(name: str, *, query_size: int = MULTI_STREAM_SAMPLES, seed: int = 0, shortest_s: float = 0.0) -> ScenarioPlan:
    """A scenario with what MLPerf gives it; ``query_size`` is that of multi stream.

    The fewest queries are those without which the percentile has no 95 % interval at all.

    >>> scenario_plan("multi-stream").fewest_queries, scenario_plan("single-stream").percentile
    (368, 90)
    """
    percentile = _PERCENTILES[name]
    fewest = max(_FEWEST_QUERIES[name], fewest_samples(percentile / 100))
    size = query_size if name == "multi-stream" else 1
    return ScenarioPlan.model_validate(
        {
            "name": name, "query_size": size, "percentile": percentile, "fewest_queries": fewest, "seed": seed,
            "shortest_s": shortest_s,
        }
    )  # fmt: skip


class Queries:
    """One model's queries, one with each call.

    Args:
        session: The loaded model.
        calls: Inputs of one inference each, as the file takes them.
        orders: Indices of the inferences of each query; begun anew at the end.
    """

    def __init__(self, session: Session, calls: Sequence[Mapping[str, Array]], orders: Sequence[Sequence[int]]) -> None:
        self._run = session.run
        self._calls = calls
        self._orders = itertools.cycle(orders)

    def __call__(self) -> None:
        """One query."""
        for at in next(self._orders):
            self._run(self._calls[at])


def draw(call_count: int, *, inferences: int, plan: ScenarioPlan) -> list[list[int]]:
    """Which inputs each query is made of, by the plan's seed; offline: all of them, in another order each time."""
    import numpy as np

    rng = np.random.default_rng(plan.seed)
    if plan.name == "offline":
        return [(rng.permutation(inferences) % call_count).tolist() for _ in range(64)]
    drawn: list[list[int]] = rng.integers(0, call_count, (_DRAWN_QUERIES, inferences)).tolist()
    return drawn


def run_scenario(plan: Job, folder: Path) -> None:
    """Carry out a scenario job."""
    models, scenario = JobModels(plan, folder), plan.scenario or ScenarioPlan(name="single-stream")
    calls = {artifact.label: models.calls(artifact) for artifact in plan.artifacts}
    batches = {artifact.label: batch_of(artifact) for artifact in plan.artifacts}
    call_count = min(len(rows) for rows in calls.values())
    query_size = (
        max(scenario.query_size, call_count * max(batches.values())) if scenario.name == "offline" else scenario.query_size
    )
    orders = {label: draw(call_count, inferences=math.ceil(query_size / size), plan=scenario) for label, size in batches.items()}

    @contextmanager
    def opened(number: int) -> Iterator[dict[str, Queries]]:
        with models.opened(number) as sessions:
            yield {label: Queries(session, calls[label], orders[label]) for label, session in sessions.items()}

    goal = Goal(
        quantile=scenario.percentile / 100,
        precision=scenario.precision,
        fewest_samples=scenario.fewest_queries,
        shortest_s=scenario.shortest_s,
    )
    series = sample_loads(opened, budget_s=plan.budget_s, fewest_rounds=plan.fewest_rounds, load_count=plan.loads, goal=goal)
    write_arrays(folder / "outputs.npz", stored_arrays(series))
    halves = [relative_half_width(one, scenario.percentile) for one in series.values()]
    known = all(half is not None and half <= scenario.precision for half in halves)
    first = next(iter(series.values()))
    ScenarioTimes(
        preemption_counts={label: one.preemption_count for label, one in series.items()},
        runtime_version=models.runtime.version(),
        interference=first.interference,
        batch_sizes=batches,
        query_size=query_size if scenario.name != "single-stream" else max(batches.values()),
        different_samples=call_count * max(batches.values()),
        ended_by="precision" if known else "time",
    ).write_json(folder / "result.json")


def relative_half_width(series: Series, percentile: int) -> float | None:
    """Half of the 95 % interval of a percentile of the wall time, over it; None where there are too few queries."""
    import numpy as np

    values = series.wall_ns[series.counted]
    found = quantile_interval(values, percentile / 100)
    return None if found is None else (found[1] - found[0]) / 2 / float(np.percentile(values, percentile))


def scenario_result(
    series: Series,
    baseline: Series | None,
    *,
    label: str,
    times: ScenarioTimes,
    plan: ScenarioPlan,
    threads: int,
    evidence: Evidence,
) -> ScenarioResult:
    """One model's result from the samples of a scenario job.

    Args:
        series: Its queries.
        baseline: Those of the float model beside it; None where there is none, or this is it.
        label: Its label in the job.
        times: What the job said.
        plan: The scenario.
        threads: Threads the runtime might use.
        evidence: What the times rest on.
    """
    import numpy as np

    walls_ms = series.wall_ns[series.counted] / 1e6
    size = max(times.query_size, times.batch_sizes[label]) if plan.name != "single-stream" else times.batch_sizes[label]
    distribution = Distribution.of(walls_ms.tolist())
    batch = times.batch_sizes[label]
    note = f"batch {batch}, one session, {threads} thread{'s' if threads > 1 else ''}; one inference after the other"
    if is_disturbed(series, threads=threads):
        note += "; disturbed: other work took the processor away"
    latency = Measurement(
        name=f"latency_p{plan.percentile}",
        value=float(np.percentile(walls_ms, plan.percentile)),
        unit="ms",
        evidence=evidence,
        distribution=distribution,
        interval=quantile_interval(walls_ms, plan.percentile / 100),
        note=note,
    )
    return ScenarioResult(
        scenario=plan.name,
        query_size=size,
        query_count=int(walls_ms.size),
        sample_count=int(walls_ms.size) * size,
        different_samples=times.different_samples,
        percentile=plan.percentile,
        latency=latency,
        throughput=_throughput(series, size, evidence),
        slowdown=None if baseline is None else compare(series, baseline, threads=threads, evidence=evidence)[0],
        ended_by=times.ended_by,
        relative_half_width=relative_half_width(series, plan.percentile),
        interference=times.interference or Interference(),
        note=note,
    )


def _throughput(series: Series, query_size: int, evidence: Evidence) -> Measurement:
    """Samples a second, of the rounds' medians, with the interval of their median."""
    import numpy as np

    rounds = [value for load in series.counted_rounds("wall").values() for value in load.values()]
    if not rounds:
        rounds = series.round_medians("wall").tolist()
    rates = query_size * 1e9 / np.array(rounds)
    return Measurement(
        name="throughput", value=float(np.median(rates)), unit="samples/s", evidence=evidence,
        interval=quantile_interval(rates, 0.5), note="median of the rounds",
    )  # fmt: skip
