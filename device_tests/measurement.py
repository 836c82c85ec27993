"""Latency: two models in turn, wall time and CPU time of every inference, and where the warm-up ends.

The procedure, in order:

1. Models are run in rounds: a block of the first, a block of the second; the next round the other way round. What
   disturbs the machine disturbs both. Each block begins with one inference that is not counted, because the other
   model's data is in the caches.
2. Sampling ends when the medians of the rounds agree to ±1 % (95 %), or when the time is up.
3. Warm-up is cut off where the rest is steadiest (:func:`steady_start`), not after a fixed count.
4. A ratio is taken between round medians, its interval by resampling rounds (:func:`.paired.ratio_of_medians`).
5. Where a single thread's wall time and CPU time part and the processor was taken away from it, the samples were
   disturbed: the measurement's note says so, and the ratio rests on CPU time.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from edgekit.core.measurement import Distribution, Evidence, Measurement
from edgekit.device_tests.blocks import Block, choose_length, take_block
from edgekit.device_tests.paired import quantile_interval, ratio_of_medians

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["BLOCK_S", "Series", "compare", "is_disturbed", "sample_rounds", "steady_start", "summarise", "take_rounds"]

BLOCK_S = 0.02
"""How long a block should last."""
_BATCH = 5
_MOST_BATCHES = 200
_TAIL_BATCHES = 5
_FEWEST_FOR_DETECTION = 40
_ROUNDING = 1e-12
_ROUNDS_TO_JUDGE = 25
_PRECISION = 0.01
_DISTURBED_SHARE = 0.9


@dataclasses.dataclass(frozen=True)
class Series:
    """Every counted inference of one model, in the order they were made.

    Args:
        wall_ns: ``[n]`` int64, monotonic clock.
        cpu_ns: ``[n]`` int64, CPU time of the whole process, all threads.
        rounds: ``[n]`` int64, the round each belongs to.
        preemption_count: How often the operating system took the processor away while the model ran.
    """

    wall_ns: Array
    cpu_ns: Array
    rounds: Array
    preemption_count: int

    @property
    def start(self) -> int:
        """Index of the first sample after the warm-up (of the first sample at all but one, where there is none)."""
        found = steady_start(self.wall_ns)
        return min(1, self.wall_ns.size - 1) if found is None else found

    def round_medians(self, clock: str) -> Array:
        """Median of each round in nanoseconds, ``[R]``; ``clock`` is ``"wall"`` or ``"cpu"``."""
        import numpy as np

        values = self.wall_ns if clock == "wall" else self.cpu_ns
        edges = np.flatnonzero(np.diff(self.rounds)) + 1
        return np.array([np.median(part) for part in np.split(values, edges)])


def sample_rounds(
    models: Mapping[str, Callable[[], object]], *, budget_s: float, fewest_rounds: int = 5, block_s: float = BLOCK_S
) -> dict[str, Series]:
    """Run the models in alternating blocks and time every inference.

    Args:
        models: Label -> a call that makes one inference.
        budget_s: Wall time after which no new round begins (once ``fewest_rounds`` are made).
        fewest_rounds: Rounds made in any case.
        block_s: How long one block should last.
    """
    lengths = {label: choose_length(run, block_s) for label, run in models.items()}
    takers = {label: functools.partial(take_block, run, lengths[label]) for label, run in models.items()}
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return take_rounds(takers, budget_s=budget_s, fewest_rounds=fewest_rounds)
    finally:
        if was_enabled:
            gc.enable()


def take_rounds(
    takers: Mapping[str, Callable[[], Block]],
    *,
    budget_s: float,
    fewest_rounds: int = 5,
    tell: Callable[[float], None] | None = None,
) -> dict[str, Series]:
    """Rounds of blocks, one of each model, the next round the other way round; wherever the models are.

    Args:
        takers: Label -> a call that times one block of inferences.
        budget_s: Wall time after which no new round begins (once ``fewest_rounds`` are made).
        fewest_rounds: Rounds made in any case.
        tell: Called after each round with the share of the budget that is used.
    """
    collectors = {label: _Collector(take) for label, take in takers.items()}
    order = list(collectors.values())
    start = time.perf_counter()
    made = 0
    while made < fewest_rounds or (time.perf_counter() - start < budget_s and not _is_precise(order, made)):
        for collector in order if made % 2 == 0 else reversed(order):
            collector.block(made)
        made += 1
        if tell is not None:
            tell(min((time.perf_counter() - start) / max(budget_s, 1e-9), 1.0))
    return {label: collector.series() for label, collector in collectors.items()}


class _Collector:
    """Samples of one model while they are taken."""

    def __init__(self, take: Callable[[], Block]) -> None:
        self.take = take
        self.wall: list[int] = []
        self.cpu: list[int] = []
        self.rounds: list[int] = []
        self.medians: list[float] = []
        self.preemptions = 0

    def block(self, number: int) -> None:
        taken = self.take()
        self.wall += taken.wall_ns
        self.cpu += taken.cpu_ns
        self.preemptions += taken.preemption_count
        self.rounds += [number] * len(taken.wall_ns)
        ordered = sorted(taken.wall_ns)
        self.medians.append(float(ordered[len(ordered) // 2]))

    def series(self) -> Series:
        import numpy as np

        return Series(
            wall_ns=np.array(self.wall, np.int64),
            cpu_ns=np.array(self.cpu, np.int64),
            rounds=np.array(self.rounds, np.int64),
            preemption_count=self.preemptions,
        )


def _is_precise(collectors: Sequence[_Collector], made: int) -> bool:
    """Whether every model's median is known to ±1 %, by the round medians of the second half."""
    import numpy as np

    if made < _ROUNDS_TO_JUDGE:
        return False
    for collector in collectors:
        recent = np.array(collector.medians[made // 3 :])
        low, high = quantile_interval(recent, 0.5)
        if high - low > 2 * _PRECISION * float(np.median(recent)):
            return False
    return True


def steady_start(values: Array) -> int | None:
    """Index where the steady state begins, by the marginal standard error rule MSER-5.

    The series is cut into batches of five; of all places to cut off the beginning, the one is taken that leaves the
    rest with the smallest standard error of its mean (White 1997, "An effective truncation heuristic for bias reduction
    in simulation output"; batches of five: White, Cobb & Spratt 2000; larger ones in a series of over a thousand). Batches
    are represented by their medians, so that a few interrupted inferences are no change of state. The last five batches
    are not tried: too few to judge by.

    Args:
        values: ``[n]`` latencies in the order they were taken.

    Returns:
        The index, or None where no steady state was found: fewer than 40 samples, or the rule would cut off more than
        half (a clock or load that kept changing).

    >>> import numpy as np
    >>> steady_start(np.concatenate([np.linspace(9, 1, 50), np.tile([1.0, 1.1, 0.9], 200)])) in range(35, 60)
    True
    """
    import numpy as np

    if values.size < _FEWEST_FOR_DETECTION:
        return None
    size = max(_BATCH, values.size // _MOST_BATCHES)
    count = values.size // size
    batches = np.median(np.asarray(values[: count * size], np.float64).reshape(count, size), axis=1)
    left = np.arange(count, 0, -1, dtype=np.float64)
    centred = batches - batches.mean()  # sums of squares of small numbers lose no digits
    sums = np.cumsum(centred[::-1])[::-1]
    squares = np.cumsum((centred**2)[::-1])[::-1]
    errors = np.maximum(squares - sums**2 / left, 0.0) / left**2
    tried = errors[: count - _TAIL_BATCHES]
    best = int(np.argmax(tried <= tried.min() + _ROUNDING * errors[0]))  # the first of those that only rounding tells apart
    return best * size if best <= count // 2 else None


def is_disturbed(series: Series, *, threads: int) -> bool:
    """Whether other work took the processor away from a single-threaded model for over a tenth of the time.

    Wall time alone above CPU time is not enough: a model that waits for an accelerator looks the same, but nobody
    preempts it.
    """
    if threads != 1 or series.preemption_count == 0:
        return False
    return _processor_share(series) < _DISTURBED_SHARE


def summarise(series: Series, *, threads: int, evidence: Evidence) -> tuple[Measurement, Measurement]:
    """Latency (wall time) and CPU time of one inference, in milliseconds, after the warm-up."""
    start = series.start
    note = f"{threads} thread{'s' if threads > 1 else ''}; {_warm_up(series)}"
    share = _processor_share(series)
    if is_disturbed(series, threads=threads):
        note += f"; other work took the processor away ({share:.0%} of the wall time was the model's own): trust cpu_time"
    elif share < _DISTURBED_SHARE:
        note += f"; waits: only {share:.0%} of the wall time is CPU time"
    wall, cpu = (Distribution.of((clock[start:] / 1e6).tolist()) for clock in (series.wall_ns, series.cpu_ns))
    return (
        Measurement(name="latency", value=wall.p50, unit="ms", evidence=evidence, distribution=wall, note=note),
        Measurement(
            name="cpu_time", value=cpu.p50, unit="ms", evidence=evidence, distribution=cpu, note="all threads of the process"
        ),
    )


def compare(series: Series, baseline: Series, *, threads: int, evidence: Evidence) -> tuple[Measurement, Measurement]:
    """How much slower (above 1) or faster (below 1) a model is than its baseline, measured in turn.

    Returns:
        ``slowdown_ratio``, of wall times unless the samples were disturbed, and ``slowdown_ratio_cpu``.
    """
    begin = max(int(one.rounds[one.start]) for one in (series, baseline))
    disturbed = any(is_disturbed(one, threads=threads) for one in (series, baseline))
    found = []
    for name, clock in (("slowdown_ratio", "cpu" if disturbed else "wall"), ("slowdown_ratio_cpu", "cpu")):
        pair = [one.round_medians(clock)[begin:] for one in (series, baseline)]
        ratio = ratio_of_medians(pair[0], pair[1])
        why = " (wall time was disturbed)" if disturbed and name == "slowdown_ratio" else ""
        found.append(
            Measurement(
                name=name,
                value=ratio.value,
                unit="ratio",
                evidence=evidence,
                interval=(ratio.low, ratio.high),
                note=f"medians of {pair[0].size} alternating rounds, {clock} time{why}; 95 % interval by resampling rounds",
            )
        )
    return found[0], found[1]


def _processor_share(series: Series) -> float:
    wall = int(series.wall_ns[series.start :].sum())
    return int(series.cpu_ns[series.start :].sum()) / wall if wall else 1.0


def _warm_up(series: Series) -> str:
    count = series.wall_ns.size
    found = steady_start(series.wall_ns)
    if found == 0:
        return f"{count:,} inferences, none of them warm-up by MSER-5"
    if found is not None:
        return f"warm-up: the first {found:,} of {count:,} inferences, found by MSER-5"
    if count < _FEWEST_FOR_DETECTION:
        return f"{count} inferences, too few to find the warm-up; the first is left out"
    return f"no steady state in {count:,} inferences (clock or load kept changing); all but the first are counted"
