"""Blocks of inferences of several models in alternating rounds, over several loads of the models, until enough is known.

Where a model's memory lies is worth a percent or more, and stays the same until it is loaded anew. A comparison of two loads says
nothing about two models, however many inferences it makes; so models are closed and loaded again, in changing order, and the
load is the unit that a ratio's interval rests on (Kalibera & Jones 2013, "Rigorous benchmarking in reasonable time", ISMM;
Mytkowicz et al. 2009, "Producing wrong data without doing anything obviously wrong!", ASPLOS).
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from edgekit.core.device_bench import Interference
from edgekit.core.quantiles import quantile_interval
from edgekit.device_tests.blocks import Block, choose_length, take_block
from edgekit.device_tests.interference import Watch, keep_undisturbed
from edgekit.device_tests.steady import steady_start

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["BLOCK_S", "FEWEST_LOADS", "LOAD_COUNT", "Goal", "Series", "sample_loads", "sample_rounds", "take_rounds"]

BLOCK_S = 0.02
"""How long a block should last."""
LOAD_COUNT = 16
"""How often models are loaded anew at most while they are timed."""
FEWEST_LOADS = 5
"""An interval over fewer loads would be too wide to say anything."""
_ROUNDS_OF_A_LOAD = 4
"""A load is worth its time only with some rounds, unless there would be too few loads."""
_LONGER = 1.5
"""So many times the time for samples may pass to have the fewest loads."""
_LOADING_SHARE = 0.25
"""Of the time for samples, at most so much again is spent on loading anew."""
_ROUNDS_TO_JUDGE = 25
_GROWTH_TO_JUDGE = 1.1

Taker = Callable[[], Block]


@dataclasses.dataclass(frozen=True)
class Goal:
    """When enough is known of every model.

    Args:
        quantile: Which one of the latency is to be known: the median, of rounds; any other, of samples.
        precision: Half of its 95 % interval, over itself.
        fewest_samples: Taken of each model even if the time is up.
        shortest_s: Sampled so long even if enough is known.
    """

    quantile: float = 0.5
    precision: float = 0.01
    fewest_samples: int = 0
    shortest_s: float = 0.0


@dataclasses.dataclass(frozen=True)
class Series:
    """Every counted inference of one model, in the order they were made.

    Args:
        wall_ns: ``[n]`` int64, monotonic clock.
        cpu_ns: ``[n]`` int64, CPU time of the whole process, all threads.
        rounds: ``[n]`` int64, the round each belongs to.
        preemption_count: How often the operating system took the processor away while the model ran.
        loads: ``[n]`` int64, which load of the model each belongs to; None: it was loaded once.
        disturbed: ``[n]`` bool, whether its round is left out (:mod:`.interference`); None: none is.
        interference: What else the device did; None where that was not watched.
    """

    wall_ns: Array
    cpu_ns: Array
    rounds: Array
    preemption_count: int
    loads: Array | None = None
    disturbed: Array | None = None
    interference: Interference | None = None

    @property
    def start(self) -> int:
        """Index of the first sample after the first load's warm-up (of the first sample at all but one, where there is none)."""
        part = self._parts()[0]
        return self._start(self.wall_ns[part])

    @functools.cached_property
    def counted(self) -> Array:
        """Which samples count, ``[n]`` bool: after the warm-up of their load, and in a round that was not disturbed.

        Never none at all: where every sample would go, disturbed rounds stay.
        """
        import numpy as np

        warm = np.zeros(self.wall_ns.size, bool)
        for part in self._parts():
            warm[part.start + self._start(self.wall_ns[part]) : part.stop] = True
        quiet = warm if self.disturbed is None else warm & ~self.disturbed
        return quiet if quiet.any() else warm

    def round_medians(self, clock: str) -> Array:
        """Median of each round in nanoseconds, ``[R]``; ``clock`` is ``"wall"`` or ``"cpu"``."""
        import numpy as np

        values = self.wall_ns if clock == "wall" else self.cpu_ns
        edges = np.flatnonzero(np.diff(self.rounds)) + 1
        return np.array([np.median(part) for part in np.split(values, edges)])

    def counted_rounds(self, clock: str) -> dict[int, dict[int, float]]:
        """Load -> round -> median of its counted samples, nanoseconds; a round whose samples are half warm-up does not count."""
        import numpy as np

        values, counted = (self.wall_ns if clock == "wall" else self.cpu_ns), self.counted
        loads = self.loads if self.loads is not None else np.zeros(values.size, np.int64)
        found: dict[int, dict[int, float]] = {}
        for part in np.split(np.arange(values.size), np.flatnonzero(np.diff(self.rounds)) + 1):
            chosen = part[counted[part]]
            if 2 * chosen.size > part.size:
                found.setdefault(int(loads[part[0]]), {})[int(self.rounds[part[0]])] = float(np.median(values[chosen]))
        return found

    def _parts(self) -> list[slice]:
        """The samples of each load."""
        import numpy as np

        if self.loads is None:
            return [slice(0, self.wall_ns.size)]
        edges = [0, *(np.flatnonzero(np.diff(self.loads)) + 1).tolist(), int(self.loads.size)]
        return [slice(first, last) for first, last in itertools.pairwise(edges)]

    @staticmethod
    def _start(wall_ns: Array) -> int:
        found = steady_start(wall_ns)
        return min(1, wall_ns.size - 1) if found is None else found


def sample_rounds(
    models: Mapping[str, Callable[[], object]], *, budget_s: float, fewest_rounds: int = 5, block_s: float = BLOCK_S
) -> dict[str, Series]:
    """Run the models, loaded once, in alternating blocks and time every inference.

    Args:
        models: Label -> a call that makes one inference.
        budget_s: Wall time after which no new round begins (once ``fewest_rounds`` are made).
        fewest_rounds: Rounds made in any case.
        block_s: How long one block should last.
    """
    with _without_collections():
        return take_rounds(_takers(models, block_s), budget_s=budget_s, fewest_rounds=fewest_rounds)


def sample_loads(
    opened: Callable[[int], AbstractContextManager[Mapping[str, Callable[[], object]]]],
    *,
    budget_s: float,
    fewest_rounds: int = 5,
    load_count: int = LOAD_COUNT,
    block_s: float = BLOCK_S,
    goal: Goal | None = None,
) -> dict[str, Series]:
    """The same, loading the models anew several times.

    Args:
        opened: Loads the models, in an order and to places that the load's number chooses: label -> a call that makes one
            inference.
        budget_s: Wall time for samples, all loads together; loading anew takes at most a quarter of that more.
        fewest_rounds: Rounds made in any case, all loads together.
        load_count: How often models are loaded at most.
        block_s: How long one block should last.
        goal: When enough is known; None: all medians to ±1 %.
    """
    rounds, count = _Rounds(goal or Goal()), _affordable_loads(opened, budget_s=budget_s, most=load_count, block_s=block_s)
    with _without_collections():
        for number in range(count):
            with opened(number) as models:
                rounds.begin_load(_takers(models, block_s))
                rounds.take(budget_s=budget_s / count, fewest=math.ceil(fewest_rounds / count), load_count=count)
    return rounds.series()


def _affordable_loads(
    opened: Callable[[int], AbstractContextManager[Mapping[str, Callable[[], object]]]],
    *,
    budget_s: float,
    most: int,
    block_s: float,
) -> int:
    """How many loads leave each of them some rounds, and loading its share of the time; finding out takes two loads."""
    if most == 1:
        return 1
    with opened(0):
        pass  # brings the runtime's libraries, which later loads find there
    start = time.perf_counter()
    with opened(1) as models:
        loading_s = max(time.perf_counter() - start, 1e-9)
        start = time.perf_counter()
        for take in _takers(models, block_s).values():
            take()
        round_s = max(time.perf_counter() - start, 1e-9)
    wanted = max(int(budget_s / round_s / _ROUNDS_OF_A_LOAD), min(FEWEST_LOADS, int(_LONGER * budget_s / round_s)))
    return max(min(most, 1 + int(_LOADING_SHARE * budget_s / loading_s), wanted), 1)


def take_rounds(
    takers: Mapping[str, Taker], *, budget_s: float, fewest_rounds: int = 5, tell: Callable[[float], None] | None = None
) -> dict[str, Series]:
    """Rounds of blocks, one of each model, the next round the other way round; wherever the models are.

    Args:
        takers: Label -> a call that times one block of inferences.
        budget_s: Wall time after which no new round begins (once ``fewest_rounds`` are made).
        fewest_rounds: Rounds made in any case.
        tell: Called after each round with the share of the budget that is used.
    """
    rounds = _Rounds(Goal())
    rounds.begin_load(takers)
    rounds.take(budget_s=budget_s, fewest=fewest_rounds, tell=tell)
    return rounds.series()


class _Rounds:
    """Rounds while they are made, over all loads."""

    def __init__(self, goal: Goal) -> None:
        self._goal = goal
        self._collectors: dict[str, _Collector] = {}
        self._waits: list[float | None] = []
        self._watch = Watch()
        self._load = -1
        self._judged_at, self._was_precise = 0, False

    def begin_load(self, takers: Mapping[str, Taker]) -> None:
        """From now on these blocks, of the same labels in any order."""
        self._load += 1
        for label, take in takers.items():
            self._collectors.setdefault(label, _Collector()).take = take

    def take(self, *, budget_s: float, fewest: int, load_count: int = 1, tell: Callable[[float], None] | None = None) -> None:
        """Rounds of this load, one of so many, until the time is up, or enough is known of all loads so far."""
        order = list(self._collectors.values())
        turned = self._load // 2 % len(order)
        order = [*order[turned:], *order[:turned]]  # so that none stands in the middle always
        samples = [len(collector.wall) + math.ceil(self._goal.fewest_samples / load_count) for collector in order]
        start, made, used = time.perf_counter(), 0, 0.0
        while (
            made < fewest
            or used < self._goal.shortest_s / load_count
            or any(len(one.wall) < wanted for one, wanted in zip(order, samples, strict=True))
            or (used < budget_s and not (made >= _ROUNDS_TO_JUDGE // load_count and self._is_precise(order)))
        ):
            self._round(order if (made + self._load) % 2 == 0 else order[::-1])
            made, used = made + 1, time.perf_counter() - start
            if tell is not None:
                tell(min(used / max(budget_s, 1e-9), 1.0))

    def series(self) -> dict[str, Series]:
        """What was found, by label."""
        quiet, is_flagged = keep_undisturbed(self._waits)
        known = [share for share in self._waits if share is not None]
        interference = self._watch.found(
            waiting_share=sum(known) / len(known) if known else None,
            preemption_count=sum(one.preemptions for one in self._collectors.values()),
            round_count=len(quiet),
            discarded_count=quiet.count(False),
            is_flagged=is_flagged,
        )
        return {label: one.series(quiet, interference) for label, one in self._collectors.items()}

    def _round(self, order: Sequence[_Collector]) -> None:
        shares = [collector.block(len(self._waits), self._load) for collector in order]
        self._waits.append(max((share for share in shares if share is not None), default=None))
        self._watch.look()

    def _is_precise(self, order: Sequence[_Collector]) -> bool:
        """Whether the quantile of every model is known as well as is asked, in undisturbed rounds."""
        if len(self._waits) < _ROUNDS_TO_JUDGE:
            return False
        if self._goal.quantile != 0.5 and len(order[0].wall) < self._judged_at * _GROWTH_TO_JUDGE:
            return self._was_precise  # the samples are sorted for it: not after every round
        quiet, _ = keep_undisturbed(self._waits)
        self._judged_at = len(order[0].wall)
        self._was_precise = all(collector.is_precise(self._goal, quiet) for collector in order)
        return self._was_precise


class _Collector:
    """Samples of one model while they are taken."""

    def __init__(self) -> None:
        self.take: Taker | None = None
        self.wall: list[int] = []
        self.cpu: list[int] = []
        self.rounds: list[int] = []
        self.loads: list[int] = []
        self.medians: list[float] = []
        self.preemptions = 0

    def block(self, number: int, load: int) -> float | None:
        """Take a block; the share of it that the model waited for a processor."""
        if self.take is None:
            return None
        taken = self.take()
        self.wall += taken.wall_ns
        self.cpu += taken.cpu_ns
        self.preemptions += taken.preemption_count
        self.rounds += [number] * len(taken.wall_ns)
        self.loads += [load] * len(taken.wall_ns)
        ordered = sorted(taken.wall_ns)
        self.medians.append(float(ordered[len(ordered) // 2]))
        return None if taken.waited_ns is None else taken.waited_ns / max(sum(taken.wall_ns), 1)

    def is_precise(self, goal: Goal, quiet: Sequence[bool]) -> bool:
        """Whether the goal's quantile is known as well as is asked, of the rounds that were quiet."""
        import numpy as np

        if goal.quantile == 0.5:
            values = np.array(self.medians)[np.array(quiet)]
        else:
            values = np.array(self.wall)[np.array(quiet)[np.array(self.rounds)]]
        found = quantile_interval(values, goal.quantile)
        return found is not None and (found[1] - found[0]) / 2 <= goal.precision * float(np.quantile(values, goal.quantile))

    def series(self, quiet: Sequence[bool], interference: Interference) -> Series:
        import numpy as np

        rounds, loads = np.array(self.rounds, np.int64), np.array(self.loads, np.int64)
        return Series(
            wall_ns=np.array(self.wall, np.int64),
            cpu_ns=np.array(self.cpu, np.int64),
            rounds=rounds,
            preemption_count=self.preemptions,
            loads=loads,
            disturbed=~np.array(quiet, bool)[rounds],
            interference=interference,
        )


def _takers(models: Mapping[str, Callable[[], object]], block_s: float) -> dict[str, Taker]:
    return {label: functools.partial(take_block, run, choose_length(run, block_s)) for label, run in models.items()}


@contextmanager
def _without_collections() -> Iterator[None]:
    """Python's garbage is collected before, not while inferences are timed."""
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
