"""What else a device does while a model is timed, by counters of the system that know nothing of latencies.

========================= ============================================ =======================================
sign                      where it is read                             what it says
========================= ============================================ =======================================
time spent waiting        ``/proc/self/task/*/schedstat``, field 2     the model was ready, another process ran
preemptions               ``getrusage(2)``, ``ru_nivcsw``              the processor was taken away
other processes' CPU time ``/proc/stat`` less this process's own       the machine had other work
steal                     ``/proc/stat``, field 8                      so had the machine below this one
pressure                  ``/proc/pressure/cpu``, ``some total``       some task waited for a processor
clock                     :mod:`edgekit.device_tests.sensors`          the processor changed its speed
========================= ============================================ =======================================

A round in which any model waited for more than :data:`DISTURBED_SHARE` of its block is left out, with all its blocks: the rule
looks at no latency, so it cannot prefer fast rounds, and both models of a comparison lose the same rounds. Where over half of
the rounds would go, none does, and the measurement is flagged.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path

from edgekit.core.device_bench import Interference
from edgekit.device_tests.sensors import Sensors

__all__ = ["DISTURBED_SHARE", "MOST_DISCARDED", "Watch", "describe", "keep_undisturbed"]

DISTURBED_SHARE = 0.02
"""Share of a block spent waiting for a processor from which on its round counts as disturbed."""
MOST_DISCARDED = 0.5
"""Where more rounds than this share are disturbed, what is left is hardly quiet either."""
_STAT = Path("/proc/stat")
_PRESSURE = Path("/proc/pressure/cpu")
_IDLE_FIELDS = (3, 4)  # idle, iowait: proc_stat(5)
_STEAL_FIELD = 7
_COUNTED_FIELDS = 8  # guest time is in user time already
_NOTED_OTHERS = 0.05
_NOTED_CLOCK = 0.05
_NOTED_STEAL = 0.01


@dataclasses.dataclass(frozen=True)
class _Counters:
    at_s: float
    own_s: float
    busy_s: float | None
    steal_s: float
    pressure_s: float | None


class Watch:
    """The system's counters from now on.

    Args:
        sensors: Whose clock is read at each round; None: the device's own.
    """

    def __init__(self, *, sensors: Sensors | None = None) -> None:
        self._sensors = sensors or Sensors()
        self._clocks: list[float] = []
        self._start = _read()

    def look(self) -> None:
        """Note the clock; called between rounds."""
        clock = self._sensors.clock_mhz()
        if clock is not None:
            self._clocks.append(clock)

    def found(
        self, *, waiting_share: float | None, preemption_count: int, round_count: int, discarded_count: int, is_flagged: bool
    ) -> Interference:
        """What happened since, with what the timed blocks themselves say."""
        now, start = _read(), self._start
        wall_s, processors = max(now.at_s - start.at_s, 1e-9), os.cpu_count() or 1
        other = steal = pressure = None
        if now.busy_s is not None and start.busy_s is not None:
            other = max(now.busy_s - start.busy_s - (now.own_s - start.own_s), 0.0) / wall_s / processors
            steal = max(now.steal_s - start.steal_s, 0.0) / wall_s / processors
        if now.pressure_s is not None and start.pressure_s is not None:
            pressure = min(max(now.pressure_s - start.pressure_s, 0.0) / wall_s, 1.0)
        change = (max(self._clocks) - min(self._clocks)) / max(self._clocks) if self._clocks else None
        found = Interference(
            waiting_share=waiting_share,
            preemption_count=preemption_count,
            other_cpu_share=other,
            steal_share=steal,
            pressure_share=pressure,
            clock_change=change,
            round_count=round_count,
            discarded_count=discarded_count,
            is_flagged=is_flagged,
        )
        return found.replace(sentence=describe(found))


def describe(found: Interference) -> str:
    """Interference in words; empty where there is nothing to say.

    >>> describe(Interference(waiting_share=0.3, round_count=40, is_flagged=True))
    'disturbed: other processes had the processor for 30 % of the time the model was timed; wall times are not its own'
    """
    parts = []
    if found.is_flagged:
        share = found.waiting_share or 0.0
        parts.append(
            f"disturbed: other processes had the processor for {100 * share:.0f} % of the time the model was timed;"
            " wall times are not its own"
        )
    elif found.discarded_count:
        parts.append(
            f"{found.discarded_count} of {found.round_count} rounds left out, because other processes had the processor in them"
        )
    if found.other_cpu_share is not None and found.other_cpu_share > _NOTED_OTHERS:
        parts.append(f"other processes used {100 * found.other_cpu_share:.0f} % of the processors meanwhile")
    if found.steal_share is not None and found.steal_share > _NOTED_STEAL:
        parts.append(f"the hypervisor gave {100 * found.steal_share:.0f} % of the processors to others")
    if found.clock_change is not None and found.clock_change > _NOTED_CLOCK:
        parts.append(f"the clock changed by {100 * found.clock_change:.0f} %")
    return "; ".join(parts)


def keep_undisturbed(shares: Sequence[float | None]) -> tuple[list[bool], bool]:
    """Which rounds count, by the largest waiting share of each round's blocks, and whether too many were disturbed to choose.

    >>> keep_undisturbed([0.0, 0.5, 0.001]), keep_undisturbed([0.4, 0.5, 0.001])
    (([True, False, True], False), ([True, True, True], True))
    """
    quiet = [share is None or share <= DISTURBED_SHARE for share in shares]
    if quiet.count(False) > MOST_DISCARDED * len(quiet):
        return [True] * len(quiet), True
    return quiet, False


def _read() -> _Counters:
    busy, steal = _machine_times()
    return _Counters(time.perf_counter(), time.process_time(), busy, steal, _pressure())


def _machine_times() -> tuple[float | None, float]:
    """Busy and stolen time of all processors, seconds since the start of the system."""
    try:
        fields = [int(value) for value in _STAT.read_text(encoding="ascii").split("\n", 1)[0].split()[1 : 1 + _COUNTED_FIELDS]]
        ticks = os.sysconf("SC_CLK_TCK")
        busy = sum(value for at, value in enumerate(fields) if at not in (*_IDLE_FIELDS, _STEAL_FIELD))
        return busy / ticks, fields[_STEAL_FIELD] / ticks
    except (OSError, IndexError, ValueError):
        return None, 0.0


def _pressure() -> float | None:
    try:
        return int(_PRESSURE.read_text(encoding="ascii").partition("total=")[2].split()[0]) / 1e6
    except (OSError, IndexError, ValueError):
        return None
