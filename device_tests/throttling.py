"""Did a device slow down while it worked without a pause? The trend of the windows, and what clock and heat say of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgekit.core.measurement import Evidence, Measurement
from edgekit.core.sustained import Drift, SustainedRun, Window
from edgekit.device_tests.jobs import SustainedPlan, SustainedTimes

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["find_drift", "judge", "theil_sen"]

_FEWEST_WINDOWS = 8
_RISE = 1.05
"""A rise that a user would notice; what is below is weather."""
_CLOCK_FALL = 0.95
_WARMER_C = 5.0
_HOT_C = 80.0
"""Where boards begin to slow down: Raspberry Pi documentation, "Frequency management and thermal control"."""
_DISTURBED_SHARE = 0.05
_MOST_DISTURBED = 0.3
_Z_95 = 1.959964
_RESAMPLES = 2000
_CHANGING_GOVERNORS = {"ondemand", "conservative", "schedutil", "interactive", "powersave"}


def judge(times: SustainedTimes, plan: SustainedPlan, *, threads: int, evidence: Evidence) -> SustainedRun:
    """What a sustained job's windows say.

    Args:
        times: What the agent brought.
        plan: What it was asked.
        threads: Threads the runtime might use.
        evidence: What the times rest on.
    """
    drift = find_drift(times.windows, threads=threads)
    rose = drift is not None and _rose(drift)
    clock, heat = _change(times.windows, "clock_mhz"), _change(times.windows, "temperature_c")
    signs = list(_signs(drift, clock, heat))
    if (busy := _waiting(times.windows)) > _DISTURBED_SHARE:
        signs.append(f"other work had the processor for {busy:.0%} of the time: run it again on a quiet device")
    throttled = rose and (_fell(clock) or _is_hot(heat))
    run = SustainedRun(
        minutes=plan.minutes,
        windows=times.windows,
        drift=drift,
        is_throttled=None if rose and clock is None and heat is None else throttled,
        signs=tuple(signs),
        governor=times.governor,
        measurements=tuple(_measurements(times, evidence)),
        evidence=evidence,
        note=f"{threads} thread{'s' if threads > 1 else ''}, {times.inference_count:,} inferences without a pause",
    )
    return run.replace(advice=_advice(run))


def find_drift(windows: Sequence[Window], *, threads: int) -> Drift | None:
    """How latency changed over the windows; None where there are fewer than eight.

    Windows in which other work had the processor are left out; where that were too many, a single thread's CPU time stands for
    its wall time: a slower clock shows in both.
    """
    import numpy as np

    quiet = [window for window in windows if (window.waiting_share or 0.0) <= _DISTURBED_SHARE]
    is_quiet = len(quiet) >= (1 - _MOST_DISTURBED) * len(windows)
    chosen = quiet if is_quiet else list(windows)
    clock = "wall" if is_quiet or threads > 1 else "cpu"
    if len(chosen) < _FEWEST_WINDOWS:
        return None
    at_s = np.array([window.start_s + window.seconds / 2 for window in chosen])
    logarithms = np.log([window.p50_ms if clock == "wall" else window.cpu_ms for window in chosen])
    slope, low, high = theil_sen(at_s, logarithms)
    span = float(at_s[-1] - at_s[0])
    first, last = _ends(len(chosen))
    settled = _ratio_of_parts(logarithms[last:], logarithms[:first])
    return Drift(
        ratio=math.exp(slope * span),
        interval=(math.exp(low * span), math.exp(high * span)),
        settled_ratio=settled[0],
        settled_interval=(settled[1], settled[2]),
        clock=clock,
    )


def theil_sen(times: Array, values: Array) -> tuple[float, float, float]:
    """A trend that a quarter of wild values cannot move, with its 95 % interval.

    The median slope of all pairs (Theil 1950; Sen 1968, JASA 63:1379), its interval by the variance of Kendall's statistic, made
    larger by the autocorrelation of the residuals' ranks (Hamed & Rao 1998, Journal of Hydrology 204:182).

    Args:
        times: ``[n]``, rising.
        values: ``[n]``.

    Returns:
        Slope, and the ends of its interval.

    >>> import numpy as np
    >>> at = np.arange(20.0)
    >>> slope, low, high = theil_sen(at, 3 * at + np.random.default_rng(0).standard_normal(20))
    >>> low < 3 < high, round(slope, 1)
    (True, 3.0)
    """
    import numpy as np

    rows, columns = np.triu_indices(values.size, 1)
    slopes = np.sort((values[columns] - values[rows]) / (times[columns] - times[rows]))
    slope = float(np.median(slopes))
    count = values.size
    variance = count * (count - 1) * (2 * count + 5) / 18 * _inflation(values - slope * times)
    half = _Z_95 * math.sqrt(variance)
    low = max(math.floor((slopes.size - half) / 2), 0)
    high = min(math.ceil((slopes.size + half) / 2), slopes.size - 1)
    return slope, float(slopes[low]), float(slopes[high])


def _inflation(residuals: Array) -> float:
    """By how much neighbours that are alike make Kendall's variance larger: Hamed & Rao's n / n*, at least 1."""
    import numpy as np

    count = residuals.size
    ranks = np.argsort(np.argsort(residuals, kind="stable"), kind="stable").astype(np.float64)
    centred = ranks - ranks.mean()
    power = float(centred @ centred)
    total = 0.0
    for lag in range(1, count - 2):
        correlation = float(centred[:-lag] @ centred[lag:]) / power
        if abs(correlation) > _Z_95 / math.sqrt(count):
            total += (count - lag) * (count - lag - 1) * (count - lag - 2) * correlation
    return max(1.0 + 2.0 / (count * (count - 1) * (count - 2)) * total, 1.0)


def _ratio_of_parts(last: Array, first: Array) -> tuple[float, float, float]:
    """Ratio of two parts' medians and its bootstrap interval, of logarithms."""
    import numpy as np

    rng = np.random.default_rng(0)
    drawn = [np.median(part[rng.integers(0, part.size, (_RESAMPLES, part.size))], axis=1) for part in (last, first)]
    low, high = np.percentile(drawn[0] - drawn[1], [2.5, 97.5])
    return math.exp(float(np.median(last) - np.median(first))), math.exp(float(low)), math.exp(float(high))


def _ends(count: int) -> tuple[int, int]:
    """Where the first windows end, and where the last quarter begins."""
    return max(count // 20, 3), count - max(count // 4, 3)


def _rose(drift: Drift) -> bool:
    pairs = ((drift.ratio, drift.interval), (drift.settled_ratio, drift.settled_interval))
    return any(value >= _RISE and interval[0] > 1 for value, interval in pairs)


def _change(windows: Sequence[Window], field: str) -> tuple[float, float] | None:
    """Median of the first windows and of the last quarter; None where the sensor was not always there."""
    import numpy as np

    found = [getattr(window, field) for window in windows]
    if not found or any(value is None for value in found):
        return None
    first, last = _ends(len(found)) if len(found) >= _FEWEST_WINDOWS else (1, len(found) - 1)
    return float(np.median(found[:first])), float(np.median(found[last:]))


def _waiting(windows: Sequence[Window]) -> float:
    """Share of the time in which other work had the processor."""
    known = [window.waiting_share for window in windows if window.waiting_share is not None]
    return sum(known) / len(known) if known else 0.0


def _fell(clock: tuple[float, float] | None) -> bool:
    return clock is not None and clock[1] < _CLOCK_FALL * clock[0]


def _is_hot(heat: tuple[float, float] | None) -> bool:
    return heat is not None and (heat[1] - heat[0] >= _WARMER_C or heat[1] >= _HOT_C)


def _signs(drift: Drift | None, clock: tuple[float, float] | None, heat: tuple[float, float] | None) -> Sequence[str]:
    found = []
    if drift is None:
        found.append("too few windows to tell a trend: run longer")
    else:
        low, high = drift.interval
        found.append(
            f"latency at the end is {drift.ratio:.3f} times that at the beginning by the trend ({low:.3f} to {high:.3f}), and"
            f" {drift.settled_ratio:.3f} times by the last quarter over the first windows ({drift.clock} time)"
        )
    if clock is None:
        found.append("the clock cannot be read here")
    else:
        found.append(f"the clock went from {clock[0]:.0f} to {clock[1]:.0f} MHz")
    if heat is None:
        found.append("no temperature can be read here")
    else:
        found.append(f"the temperature went from {heat[0]:.0f} to {heat[1]:.0f} °C")
    return found


def _advice(run: SustainedRun) -> str:
    parts = []
    if run.is_throttled:
        first_s = _first_slow(run)
        early = f"; only the first {first_s / 60:.1f} minutes are faster" if first_s else ""
        parts.append(f"Plan with the latency of the last quarter{early}")
        start = run.windows[0].temperature_c
        goal = " for as long as it ran" if start is None else f" to {start:.0f} °C"
        parts.append(f"let the device cool{goal} before anything else is timed on it")
    elif run.is_throttled is None:
        parts.append("Latency rose, and nothing here says why: let the device cool for as long as it ran, and run it again")
    if set(run.governor.split(", ")) & _CHANGING_GOVERNORS:
        parts.append(f"the governor '{run.governor}' changes the clock with the load: 'performance' makes short runs comparable")
    return "; ".join(parts) + "." if parts else ""


def _first_slow(run: SustainedRun) -> float:
    """When latency first rose by what counts as a rise, seconds; 0 where it never did."""
    import numpy as np

    first, _ = _ends(len(run.windows)) if len(run.windows) >= _FEWEST_WINDOWS else (1, 1)
    by_cpu = run.drift is not None and run.drift.clock == "cpu"
    times = [window.cpu_ms if by_cpu else window.p50_ms for window in run.windows]
    begin = float(np.median(times[:first]))
    return next((one.start_s for one, ms in zip(run.windows, times, strict=True) if ms > _RISE * begin), 0.0)


def _measurements(times: SustainedTimes, evidence: Evidence) -> Sequence[Measurement]:
    import numpy as np

    if not times.windows:
        return []
    _, last = _ends(len(times.windows)) if len(times.windows) >= _FEWEST_WINDOWS else (0, 0)
    values = [window.p50_ms for window in times.windows[last:]]
    note = f"median of the medians of the last {len(values)} of {len(times.windows)} windows"
    found = [Measurement(name="sustained_latency", value=float(np.median(values)), unit="ms", evidence=evidence, note=note)]
    if times.energy_mj is not None and times.inference_count:
        energy = times.energy_mj / times.inference_count
        note = "all that the meter counted, the device's idle power included, over all inferences"
        found.append(Measurement(name="energy", value=energy, unit="mJ", evidence=evidence, note=note))
    return found
