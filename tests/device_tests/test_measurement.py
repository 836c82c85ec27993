from __future__ import annotations

import gc
import time
from typing import Any

import numpy as np
import pytest

from edgekit.core.measurement import Evidence
from edgekit.device_tests import blocks, rounds
from edgekit.device_tests.measurement import Series, compare, is_disturbed, sample_rounds, steady_start, summarise

RNG = np.random.default_rng(0)


def series(wall_ms: Any, *, cpu_ms: Any = None, block: int = 10, preemption_count: int = 0) -> Series:
    wall = np.asarray(wall_ms, np.float64)
    cpu = wall if cpu_ms is None else np.asarray(cpu_ms, np.float64)
    return Series(
        wall_ns=(wall * 1e6).astype(np.int64),
        cpu_ns=(cpu * 1e6).astype(np.int64),
        rounds=np.arange(wall.size) // block,
        preemption_count=preemption_count,
    )


def noisy(level: float, count: int) -> Any:
    return level * (1 + 0.02 * RNG.standard_normal(count))


@pytest.mark.parametrize("warm_up", [25, 100, 300])
def test_steady_state_begins_where_a_slow_start_ends(warm_up: int) -> None:
    found = steady_start(np.concatenate([noisy(3.0, warm_up), noisy(1.0, 1000)]))
    assert found is not None
    assert warm_up <= found < warm_up + 150


def test_steady_state_begins_where_a_decay_has_flattened() -> None:
    count = np.arange(1000)
    found = steady_start((1 + 2 * np.exp(-count / 40)) * (1 + 0.01 * RNG.standard_normal(1000)))
    assert found is not None
    assert 100 < found < 350  # the decay is below the noise after about 40 * ln(200) = 212 inferences


def test_steady_series_keeps_nearly_everything() -> None:
    starts = [steady_start(noisy(1.0, 1000)) for _ in range(50)]
    assert np.mean([start is not None and start < 100 for start in starts]) > 0.9


def test_interrupted_inferences_are_no_change_of_state() -> None:
    values = noisy(1.0, 1000)
    values[601:603] = 40.0
    found = steady_start(values)
    assert found is not None
    assert found < 200


def test_a_series_that_keeps_changing_has_no_steady_state() -> None:
    assert steady_start(np.concatenate([noisy(1.0, 700), noisy(2.0, 300)])) is None


def test_few_samples_have_no_steady_state() -> None:
    assert steady_start(noisy(1.0, 39)) is None


def test_constant_clock_is_steady_from_the_start() -> None:
    assert steady_start(np.full(500, 1234567)) == 0


def test_summary_leaves_the_warm_up_out_and_says_so() -> None:
    latency, cpu = summarise(series(np.concatenate([noisy(5.0, 50), noisy(1.0, 500)])), threads=1, evidence=Evidence.MEASURED)
    assert latency.value == pytest.approx(1.0, rel=0.01)
    assert latency.distribution is not None
    assert latency.distribution.maximum < 2.0
    assert "MSER-5" in latency.note
    assert "1 thread;" in latency.note
    assert (latency.unit, cpu.name) == ("ms", "cpu_time")


def test_summary_of_few_samples_leaves_the_first_out() -> None:
    latency, _ = summarise(series([9.0, 1.0, 1.1, 0.9]), threads=2, evidence=Evidence.REFERENCE)
    assert latency.value == 1.0
    assert "too few" in latency.note
    assert latency.evidence is Evidence.REFERENCE


def test_summary_of_one_sample_is_that_sample() -> None:
    latency, _ = summarise(series([9.0]), threads=1, evidence=Evidence.REFERENCE)
    assert latency.value == 9.0


def test_interference_is_flagged_and_the_ratio_rests_on_cpu_time() -> None:
    cpu = noisy(1.0, 400)
    busy = series(cpu * 2.0, cpu_ms=cpu, preemption_count=300)
    quiet = series(noisy(2.0, 400))
    assert is_disturbed(busy, threads=1)
    assert "trust cpu_time" in summarise(busy, threads=1, evidence=Evidence.MEASURED)[0].note
    ratio, cpu_ratio = compare(busy, quiet, threads=1, evidence=Evidence.MEASURED)
    assert ratio.value == cpu_ratio.value == pytest.approx(0.5, rel=0.02)
    assert "disturbed" in ratio.note


def test_waiting_for_an_accelerator_is_no_interference() -> None:
    waiting = series(noisy(1.0, 400), cpu_ms=noisy(0.1, 400))
    assert not is_disturbed(waiting, threads=1)
    note = summarise(waiting, threads=1, evidence=Evidence.MEASURED)[0].note
    assert "waits: only 10%" in note
    ratio, _ = compare(waiting, waiting, threads=1, evidence=Evidence.MEASURED)
    assert "wall time" in ratio.note


def test_two_threads_may_use_more_cpu_than_wall_time() -> None:
    assert not is_disturbed(series(noisy(1.0, 400), cpu_ms=noisy(0.5, 400), preemption_count=50), threads=2)


def test_ratio_has_an_interval_around_the_truth() -> None:
    ratio, _ = compare(series(noisy(0.5, 500)), series(noisy(1.0, 500)), threads=1, evidence=Evidence.MEASURED)
    assert ratio.interval is not None
    assert ratio.interval[0] <= 0.5 <= ratio.interval[1]
    assert ratio.unit == "ratio"


class Clock:
    """Replaces the time module: time passes only where a model says so."""

    def __init__(self) -> None:
        self.wall_ns = 0
        self.cpu_ns = 0

    def pass_ms(self, wall: float, *, cpu: float | None = None) -> None:
        self.wall_ns += round(wall * 1e6)
        self.cpu_ns += round((wall if cpu is None else cpu) * 1e6)

    def perf_counter(self) -> float:
        return self.wall_ns / 1e9

    def perf_counter_ns(self) -> int:
        return self.wall_ns

    def process_time_ns(self) -> int:
        return self.cpu_ns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(rounds, "time", made)
    monkeypatch.setattr(blocks, "time", made)
    return made


def test_rounds_alternate_and_every_inference_is_timed(clock: Clock) -> None:
    calls: list[str] = []

    def slow() -> None:
        calls.append("slow")
        clock.pass_ms(40.0, cpu=30.0)

    def fast() -> None:
        calls.append("fast")
        clock.pass_ms(20.0)

    found = sample_rounds({"slow": slow, "fast": fast}, budget_s=0.0, fewest_rounds=4, block_s=0.01)
    assert calls == ["slow", "fast", "slow", "fast", "fast", "slow", "slow", "fast", "fast", "slow"]
    assert list(found["slow"].rounds) == [0, 1, 2, 3]
    assert set(found["slow"].wall_ns) == {40_000_000}
    assert set(found["slow"].cpu_ns) == {30_000_000}
    assert set(found["fast"].wall_ns) == {20_000_000}
    assert gc.isenabled()


def test_blocks_last_as_long_as_asked_and_begin_uncounted(clock: Clock) -> None:
    calls: list[int] = []

    def run() -> None:
        calls.append(1)
        clock.pass_ms(50.0 if len(calls) == 1 else 1.0)  # a slow first inference must not make the blocks short

    found = sample_rounds({"one": run}, budget_s=0.0, fewest_rounds=3, block_s=0.1)["one"]
    assert list(np.bincount(found.rounds)) == [100, 100, 100]
    assert len(calls) == 300 + 3 + 4  # an uncounted inference a block, and four to learn the block length


def test_sampling_stops_when_the_medians_agree_or_the_time_is_up(clock: Clock) -> None:
    steady = sample_rounds({"one": lambda: clock.pass_ms(5.0)}, budget_s=30.0)["one"]
    assert steady.rounds[-1] + 1 == 25
    restless = sample_rounds({"one": lambda: clock.pass_ms(RNG.uniform(1, 60))}, budget_s=3.0)["one"]
    assert restless.rounds[-1] + 1 > 50
    assert restless.wall_ns.sum() / 1e9 == pytest.approx(3.0, rel=0.1)


def test_a_failing_model_does_not_leave_garbage_collection_off() -> None:
    def fail() -> None:
        if not gc.isenabled():
            raise RuntimeError("model fails while it is timed")

    with pytest.raises(RuntimeError):
        sample_rounds({"bad": fail}, budget_s=0.1)
    assert gc.isenabled()


def test_real_clocks_see_waiting_as_wall_time_only() -> None:
    found = sample_rounds({"waits": lambda: time.sleep(0.005)}, budget_s=0.0, fewest_rounds=3)["waits"]
    assert found.wall_ns.min() >= 5_000_000
    assert np.median(found.cpu_ns) < 2_500_000
