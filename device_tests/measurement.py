"""Latency: models in turn, wall time and CPU time of every inference, and what may be said of them.

The procedure, in order:

1. Models are run in rounds: a block of the first, a block of the second; the next round the other way round. What
   disturbs the machine disturbs both. Each block begins with one inference that is not counted, because the other
   model's data is in the caches. Models are loaded anew several times on the way (:mod:`.rounds`).
2. Sampling ends when the medians of the rounds agree to ±1 % (95 %), or when the time is up.
3. Rounds in which other work had the processor are left out, by the system's counters alone (:mod:`.interference`).
4. Warm-up is cut off, in each load, where the rest is steadiest (:func:`.steady.steady_start`), not after a fixed count.
5. A ratio is taken in each round, for both models met the same state in it; its interval rests on the loads
   (:func:`ratio_of_loads`), or where there are too few of them on the rounds.
6. Where too many rounds were disturbed, or a single thread's wall time and CPU time part and the processor was taken away
   from it, the measurement's note says so, and the ratio rests on CPU time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edgekit.core.measurement import Distribution, Evidence, Measurement
from edgekit.core.quantiles import quantile_interval
from edgekit.device_tests.paired import Ratio
from edgekit.device_tests.rounds import BLOCK_S, FEWEST_LOADS, LOAD_COUNT, Series, sample_loads, sample_rounds, take_rounds
from edgekit.device_tests.steady import FEWEST_FOR_DETECTION, steady_start

if TYPE_CHECKING:
    from edgekit.core.tensors import Array
    from edgekit.device_tests.jobs import Timing

__all__ = [
    "BLOCK_S",
    "LOAD_COUNT",
    "Series",
    "compare",
    "is_disturbed",
    "load_interval",
    "ratio_of_loads",
    "read_series",
    "sample_loads",
    "sample_rounds",
    "steady_start",
    "stored_arrays",
    "student_t",
    "summarise",
    "take_rounds",
]

_DISTURBED_SHARE = 0.9
_RATIO_CONFIDENCE = 0.975
"""Of each of the two ratios of a comparison, wall and CPU time: 95 % for both together (Bonferroni)."""
_TOGETHER = "95 % for wall and CPU time together"
_ARRAYS = ("wall_ns", "cpu_ns", "rounds", "loads", "disturbed")


def stored_arrays(series: Mapping[str, Series]) -> dict[str, Array]:
    """``"<label>/<array>"`` -> array, as a timing job's ``outputs.npz`` holds them."""
    found = {(label, name): getattr(one, name) for label, one in series.items() for name in _ARRAYS}
    return {f"{label}/{name}": array for (label, name), array in found.items() if array is not None}


def read_series(arrays: Mapping[str, Array], timing: Timing) -> dict[str, Series]:
    """What :func:`stored_arrays` stored; ``loads`` and ``disturbed`` may be missing."""
    return {
        label: Series(
            wall_ns=arrays[f"{label}/wall_ns"],
            cpu_ns=arrays[f"{label}/cpu_ns"],
            rounds=arrays[f"{label}/rounds"],
            preemption_count=count,
            loads=arrays.get(f"{label}/loads"),
            disturbed=arrays.get(f"{label}/disturbed"),
            interference=timing.interference,
        )
        for label, count in timing.preemption_counts.items()
    }


def is_disturbed(series: Series, *, threads: int) -> bool:
    """Whether other work had the processor in most rounds, or took it away from a single-threaded model for a tenth of the time.

    Wall time alone above CPU time is not enough: a model that waits for an accelerator looks the same, but nobody
    preempts it.
    """
    if series.interference is not None and series.interference.is_flagged:
        return True
    if threads != 1 or series.preemption_count == 0:
        return False
    return _processor_share(series) < _DISTURBED_SHARE


def summarise(series: Series, *, threads: int, evidence: Evidence) -> tuple[Measurement, Measurement]:
    """Latency (wall time) and CPU time of one inference, in milliseconds, after the warm-up."""
    counted = series.counted
    note = f"{threads} thread{'s' if threads > 1 else ''}; {_warm_up(series)}"
    share = _processor_share(series)
    if is_disturbed(series, threads=threads):
        note += f"; other work took the processor away ({share:.0%} of the wall time was the model's own): trust cpu_time"
    elif share < _DISTURBED_SHARE:
        note += f"; waits: only {share:.0%} of the wall time is CPU time"
    if series.interference is not None and series.interference.sentence:
        note += f"; {series.interference.sentence}"
    wall, cpu = (Distribution.of((clock[counted] / 1e6).tolist()) for clock in (series.wall_ns, series.cpu_ns))
    interval = load_interval(series)
    return (
        Measurement(
            name="latency", value=wall.p50, unit="ms", evidence=evidence, distribution=wall, interval=interval, note=note
        ),
        Measurement(
            name="cpu_time", value=cpu.p50, unit="ms", evidence=evidence, distribution=cpu, note="all threads of the process"
        ),
    )


def load_interval(series: Series) -> tuple[float, float] | None:
    """95 % interval of the median latency over loads of the model, ms; None where it was loaded fewer than five times.

    Student's interval of the mean logarithm of the loads' medians: loads are independent, the inferences of one load are not.
    """
    import numpy as np

    medians = [np.median(list(rounds.values())) / 1e6 for rounds in series.counted_rounds("wall").values()]
    if len(medians) < FEWEST_LOADS:
        return None
    found = _interval_of_means(np.log(medians), confidence=0.95)
    return found.low, found.high


def compare(series: Series, baseline: Series, *, threads: int, evidence: Evidence) -> tuple[Measurement, Measurement]:
    """How much slower (above 1) or faster (below 1) a model is than its baseline, measured in turn.

    The two intervals hold together with 95 %, each with 97.5 %: one that leaves out 1 in either clock is a difference.

    Returns:
        ``slowdown_ratio``, of wall times unless the samples were disturbed, and ``slowdown_ratio_cpu``.
    """
    disturbed = any(is_disturbed(one, threads=threads) for one in (series, baseline))
    found = []
    for name, clock in (("slowdown_ratio", "cpu" if disturbed and threads == 1 else "wall"), ("slowdown_ratio_cpu", "cpu")):
        ratio, how = _ratio(series, baseline, clock)
        why = " (wall time was disturbed)" if disturbed and name == "slowdown_ratio" else ""
        found.append(
            Measurement(
                name=name,
                value=ratio.value,
                unit="ratio",
                evidence=evidence,
                interval=(ratio.low, ratio.high),
                note=f"{how}, {clock} time{why}",
            )
        )
    return found[0], found[1]


def ratio_of_loads(loads: Sequence[Array]) -> Ratio:
    """A ratio with its interval from each load's logarithms of the ratios of its rounds.

    A load's own ratio is the median of its rounds'; loads are independent of each other, so their mean logarithm has Student's
    interval (Kalibera & Jones 2013, section 6, with one level).

    Args:
        loads: For each load ``[rounds]``.
    """
    import numpy as np

    return _interval_of_means(np.array([np.median(rounds) for rounds in loads]), confidence=_RATIO_CONFIDENCE)


def _ratio(series: Series, baseline: Series, clock: str) -> tuple[Ratio, str]:
    """The ratio by loads, or where there are too few of them by rounds, and which of these it was."""
    import numpy as np

    ours, theirs = series.counted_rounds(clock), baseline.counted_rounds(clock)
    loads = []
    for load in ours.keys() & theirs.keys():
        shared = sorted(ours[load].keys() & theirs[load].keys())
        if shared:
            loads.append(np.log([ours[load][number] / theirs[load][number] for number in shared]))
    count = sum(rounds.size for rounds in loads)
    if len(loads) >= FEWEST_LOADS:
        return ratio_of_loads(loads), f"{len(loads)} loads with {count} alternating rounds; interval over loads, {_TOGETHER}"
    if not count:  # nothing but warm-up in one of them: the plain medians, with nothing known of their spread
        plain = np.median(series.round_medians(clock)) / np.median(baseline.round_medians(clock))
        return Ratio(float(plain), 0.0, math.inf), "too few rounds after the warm-up to know its spread"
    return _ratio_of_rounds(
        np.concatenate(loads)
    ), f"median of {count} alternating rounds; interval over the rounds of these loads, {_TOGETHER}"


def _ratio_of_rounds(logarithms: Array) -> Ratio:
    """Median of the rounds' ratios, with its interval by order statistics; with fewer than six rounds all that was seen."""
    import numpy as np

    found = quantile_interval(logarithms, 0.5, confidence=_RATIO_CONFIDENCE) or (float(logarithms.min()), float(logarithms.max()))
    return Ratio(float(np.exp(np.median(logarithms))), math.exp(found[0]), math.exp(found[1]))


def _interval_of_means(logarithms: Array, *, confidence: float) -> Ratio:
    """Geometric mean and Student's interval."""
    import numpy as np

    mean, count = float(np.mean(logarithms)), logarithms.size
    half = student_t(count - 1, (1 + confidence) / 2) * float(np.std(logarithms, ddof=1)) / math.sqrt(count)
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def student_t(freedom: int, quantile: float) -> float:
    """Quantile of Student's distribution: ``t = sqrt(freedom) * tan(x)`` has the density ``cos(x) ** (freedom - 1)`` in ``x``.

    >>> round(student_t(7, 0.975), 3), round(student_t(1, 0.975), 2)
    (2.365, 12.71)
    """
    import numpy as np

    angles = np.linspace(-math.pi / 2, math.pi / 2, 20_001)
    density = np.cos(angles).clip(0) ** (freedom - 1)
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(freedom) * math.tan(float(np.interp(quantile, below / below[-1], angles)))


def _processor_share(series: Series) -> float:
    counted = series.counted
    wall = int(series.wall_ns[counted].sum())
    return int(series.cpu_ns[counted].sum()) / wall if wall else 1.0


def _warm_up(series: Series) -> str:
    count = series.wall_ns.size
    load_count = 1 if series.loads is None else len(set(series.loads.tolist()))
    if load_count > 1:
        lost = count - int(series.counted.sum())
        out = f"{lost:,} of {count:,} inferences are left out: warm-up, found in each load by MSER-5, or disturbed"
        return f"{load_count} loads; {out}"
    found = steady_start(series.wall_ns)
    if found == 0:
        return f"{count:,} inferences, none of them warm-up by MSER-5"
    if found is not None:
        return f"warm-up: the first {found:,} of {count:,} inferences, found by MSER-5"
    if count < FEWEST_FOR_DETECTION:
        return f"{count} inferences, too few to find the warm-up; the first is left out"
    return f"no steady state in {count:,} inferences (clock or load kept changing); all but the first are counted"
