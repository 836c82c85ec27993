"""Models loaded anew, disturbed rounds, and when enough is known; the clock only moves where a model says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from edgekit.core.measurement import Evidence
from edgekit.device_tests import blocks, rounds
from edgekit.device_tests.blocks import Block
from edgekit.device_tests.measurement import compare, is_disturbed, read_series, stored_arrays, summarise
from edgekit.device_tests.rounds import Goal, Series, sample_loads, take_rounds


class Clock:
    def __init__(self) -> None:
        self.now_ns = 0

    def pass_ms(self, value: float) -> None:
        self.now_ns += round(value * 1e6)

    def perf_counter(self) -> float:
        return self.now_ns / 1e9

    def perf_counter_ns(self) -> int:
        return self.now_ns

    process_time_ns = perf_counter_ns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(rounds, "time", made)
    monkeypatch.setattr(blocks, "time", made)
    return made


def taker(level_ms: Callable[[], float], *, waits: Callable[[], float] = lambda: 0.0) -> Callable[[], Block]:
    def take() -> Block:
        wall = [round(level_ms() * 1e6) for _ in range(10)]
        return Block(wall, wall, 0, round(waits() * sum(wall)))

    return take


def test_models_are_loaded_anew(clock: Clock) -> None:
    numbers: list[int] = []

    @contextmanager
    def opened(number: int) -> Iterator[dict[str, Callable[[], object]]]:
        numbers.append(number)
        yield {"a": lambda: clock.pass_ms(5), "b": lambda: clock.pass_ms(10)}

    found = sample_loads(opened, budget_s=2.0, fewest_rounds=8, load_count=4)
    assert numbers == [0, 1, 0, 1, 2, 3]  # two to learn what loading takes
    assert found["a"].loads is not None
    assert sorted(set(found["a"].loads.tolist())) == [0, 1, 2, 3]
    assert (np.diff(found["a"].rounds) >= 0).all()
    assert found["b"].wall_ns[0] == 10_000_000


def test_a_model_that_loads_slowly_is_loaded_once(clock: Clock) -> None:
    count = []

    @contextmanager
    def opened(_: int) -> Iterator[dict[str, Callable[[], object]]]:
        count.append(1)
        clock.pass_ms(3000)
        yield {"a": lambda: clock.pass_ms(5)}

    found = sample_loads(opened, budget_s=1.0)
    assert len(count) == 3
    assert found["a"].loads is not None
    assert set(found["a"].loads.tolist()) == {0}


def test_sampling_goes_on_until_there_are_the_fewest_samples(clock: Clock) -> None:
    @contextmanager
    def opened(_: int) -> Iterator[dict[str, Callable[[], object]]]:
        yield {"a": lambda: clock.pass_ms(50)}

    found = sample_loads(opened, budget_s=0.1, fewest_rounds=1, load_count=2, goal=Goal(quantile=0.99, fewest_samples=40))
    assert found["a"].wall_ns.size >= 40


def test_sampling_ends_when_the_percentile_is_known(clock: Clock) -> None:
    rng = np.random.default_rng(0)

    @contextmanager
    def opened(_: int) -> Iterator[dict[str, Callable[[], object]]]:
        yield {"a": lambda: clock.pass_ms(rng.uniform(0.9, 1.1))}

    found = sample_loads(opened, budget_s=600.0, goal=Goal(quantile=0.9, precision=0.02))
    assert found["a"].wall_ns.sum() / 1e9 < 20


def test_rounds_in_which_others_had_the_processor_are_left_out_of_both_models() -> None:
    rng = np.random.default_rng(0)
    busy = iter(rng.random(1000) < 0.3)
    state = {"busy": False}

    def level() -> float:
        return rng.uniform(0.99, 1.01) * (3.0 if state["busy"] else 1.0)

    def waits() -> float:
        return 0.6 if state["busy"] else 0.0

    def first() -> Block:
        state["busy"] = bool(next(busy))
        return taker(level, waits=waits)()

    def second() -> Block:
        return taker(level)()  # says nothing of it: its block goes with the round's

    found = take_rounds({"first": first, "second": second}, budget_s=0.0, fewest_rounds=60)
    interference = found["first"].interference
    assert interference is not None
    assert 10 <= interference.discarded_count <= 30
    assert not interference.is_flagged
    assert f"{interference.discarded_count} of 60 rounds left out" in interference.sentence
    for one in found.values():
        assert one.disturbed is not None
        assert one.disturbed.sum() == 10 * interference.discarded_count
    assert found["first"].wall_ns[found["first"].counted].max() < 1.1e6
    assert summarise(found["first"], threads=1, evidence=Evidence.MEASURED)[0].value == pytest.approx(1.0, rel=0.01)


def test_no_latency_however_long_is_a_reason_to_leave_a_round_out() -> None:
    rng = np.random.default_rng(0)
    found = take_rounds({"a": taker(lambda: float(rng.pareto(1.0) + 1))}, budget_s=0.0, fewest_rounds=30)["a"]
    assert found.disturbed is not None
    assert not found.disturbed.any()


def test_where_most_rounds_are_disturbed_none_is_left_out_and_the_result_is_flagged() -> None:
    found = take_rounds({"a": taker(lambda: 1.0, waits=lambda: 0.4)}, budget_s=0.0, fewest_rounds=30)["a"]
    assert found.interference is not None
    assert found.interference.is_flagged
    assert found.interference.discarded_count == 0
    assert is_disturbed(found, threads=4)
    assert "disturbed" in summarise(found, threads=1, evidence=Evidence.MEASURED)[0].note


def of_loads(rng: np.random.Generator, *, ratio: float = 1.0, loads: int = 8, placed: float = 0.01) -> tuple[Series, Series]:
    """Two models in the same drifting rounds; each load is worth a percent of its own."""
    count = 6
    state = np.cumsum(rng.standard_normal(loads * count)) * 0.02
    made = []
    for level in (ratio, 1.0):
        own = np.repeat(rng.standard_normal(loads) * placed, count) + rng.standard_normal(loads * count) * 0.005
        wall = np.repeat(level * np.exp(state + own), 10) * np.exp(np.abs(rng.standard_normal(loads * count * 10)) * 0.02)
        times = (wall * 1e6).astype(np.int64)
        numbers = np.repeat(np.arange(loads * count), 10)
        made.append(Series(wall_ns=times, cpu_ns=times, rounds=numbers, preemption_count=0, loads=numbers // count))
    return made[0], made[1]


def test_two_loads_of_one_model_are_rarely_called_different() -> None:
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(100):
        ratio, _ = compare(*of_loads(rng), threads=1, evidence=Evidence.MEASURED)
        assert ratio.interval is not None
        alarms += not ratio.interval[0] <= 1 <= ratio.interval[1]
    assert alarms <= 5


def test_a_tenth_more_work_is_found() -> None:
    rng = np.random.default_rng(2)
    found = [compare(*of_loads(rng, ratio=1.1), threads=1, evidence=Evidence.MEASURED)[0] for _ in range(50)]
    assert sum(one.interval is not None and one.interval[0] > 1 for one in found) >= 48
    assert np.median([one.value for one in found]) == pytest.approx(1.1, rel=0.01)
    assert "8 loads" in found[0].note


def test_rounds_of_one_load_would_call_them_different() -> None:
    """Why models are loaded anew: inferences of one load say nothing of the next."""
    rng = np.random.default_rng(3)
    alarms = 0
    for _ in range(50):
        pair = [one.__class__(one.wall_ns, one.cpu_ns, one.rounds, 0) for one in of_loads(rng, loads=1, placed=0.02)]
        ratio, _ = compare(pair[0], pair[1], threads=1, evidence=Evidence.MEASURED)
        assert ratio.interval is not None
        alarms += not ratio.interval[0] <= 1 <= ratio.interval[1]
    assert alarms > 10


def test_the_latency_of_several_loads_has_an_interval_over_them() -> None:
    series, _ = of_loads(np.random.default_rng(4))
    latency, _ = summarise(series, threads=1, evidence=Evidence.MEASURED)
    assert latency.interval is not None
    assert latency.interval[0] < latency.value < latency.interval[1]
    assert latency.note.startswith("1 thread; 8 loads")


def test_series_are_stored_and_read_back() -> None:
    from edgekit.device_tests.jobs import Timing

    series, _ = of_loads(np.random.default_rng(5))
    arrays = stored_arrays({"x": series})
    again = read_series(arrays, Timing(preemption_counts={"x": 3}))["x"]
    assert again.preemption_count == 3
    assert np.array_equal(again.loads, series.loads) if series.loads is not None and again.loads is not None else False
    bare = {key: value for key, value in arrays.items() if key.rsplit("/")[-1] in {"wall_ns", "cpu_ns", "rounds"}}
    assert read_series(bare, Timing(preemption_counts={"x": 0}))["x"].loads is None  # as the native runner writes them
