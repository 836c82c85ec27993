from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.core.measurement import Evidence
from edgekit.core.sustained import Window
from edgekit.device_tests.jobs import SustainedPlan, SustainedTimes
from edgekit.device_tests.sensors import PowerMeter, Sensors
from edgekit.device_tests.sustained import take_windows
from edgekit.device_tests.throttling import find_drift, judge, theil_sen

COUNT = 60
PLAN = SustainedPlan(minutes=10.0)


def windows(
    level: Callable[[float], float], *, noise: float = 0.01, seed: int = 0, **fields: Callable[[float], Any]
) -> list[Window]:
    """Windows of ten seconds; ``level`` and ``fields`` are functions of the share of the run that has passed."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(COUNT):
        share = number / (COUNT - 1)
        wall = level(share) * float(np.exp(noise * rng.standard_normal()))
        more = {name: value(share) for name, value in fields.items()}
        cpu = more.pop("cpu_ms", wall)
        made.append(
            Window(start_s=10.0 * number, seconds=10.0, inference_count=500, p50_ms=wall, p90_ms=1.1 * wall, cpu_ms=cpu, **more)
        )
    return made


def judged(made: list[Window], **changes: Any) -> Any:
    times = SustainedTimes(runtime_version="1", windows=tuple(made), inference_count=30_000).replace(**changes)
    return judge(times, PLAN, threads=1, evidence=Evidence.MEASURED)


def test_a_steady_device_does_not_drift() -> None:
    alarms = 0
    for seed in range(100):
        drift = find_drift(windows(lambda _: 5.0, seed=seed), threads=1)
        assert drift is not None
        alarms += not drift.interval[0] <= 1 <= drift.interval[1]
    assert alarms <= 9


def test_neighbouring_windows_that_are_alike_make_the_interval_wider() -> None:
    rng = np.random.default_rng(0)
    at = np.arange(60.0)
    outside = 0
    for _ in range(60):
        values = np.zeros(60)
        for number in range(1, 60):
            values[number] = 0.7 * values[number - 1] + rng.standard_normal()
        _, low, high = theil_sen(at, values)
        outside += not low <= 0 <= high
    assert outside <= 12  # half of them without the correction


def test_a_hot_device_with_a_falling_clock_is_throttled() -> None:
    run = judged(
        windows(
            lambda share: 5.0 * (1 + 0.4 * share),
            clock_mhz=lambda share: 1500 / (1 + 0.4 * share),
            temperature_c=lambda share: 50 + 32 * share,
        ),
        governor="ondemand",
    )
    assert run.is_throttled is True
    assert run.drift.ratio == pytest.approx(1.4, rel=0.03)
    assert run.drift.interval[0] > 1.3
    assert run.hottest_c == 82
    assert any("MHz" in sign for sign in run.signs)
    assert "let the device cool to 50 °C" in run.advice
    assert "the governor 'ondemand' changes the clock" in run.advice
    assert run.measurements[0].value == pytest.approx(5.0 * 1.35, rel=0.05)


def test_a_step_that_comes_early_is_found_though_it_is_no_trend() -> None:
    run = judged(windows(lambda share: 5.0 if share < 0.1 else 7.0, clock_mhz=lambda share: 1500.0 if share < 0.1 else 1100.0))
    assert run.drift.ratio < 1.1
    assert run.drift.settled_ratio == pytest.approx(1.4, rel=0.03)
    assert run.is_throttled is True
    assert "only the first 1.0 minutes are faster" in run.advice


def test_latency_that_rises_without_a_sensor_has_no_known_cause() -> None:
    run = judged(windows(lambda share: 5.0 * (1 + 0.4 * share)))
    assert run.is_throttled is None
    assert "nothing here says why" in run.advice


def test_latency_that_rises_on_a_cool_device_at_full_clock_is_no_throttling() -> None:
    run = judged(windows(lambda share: 5.0 * (1 + 0.4 * share), clock_mhz=lambda _: 1500.0, temperature_c=lambda _: 40.0))
    assert run.is_throttled is False
    assert run.drift.ratio > 1.3


def test_windows_that_others_disturbed_are_left_out() -> None:
    made = windows(
        lambda share: 9.0 if 0.75 < share < 0.95 else 5.0, waiting_share=lambda share: 0.5 if 0.75 < share < 0.95 else 0.0
    )
    drift = find_drift(made, threads=1)
    assert drift is not None
    assert drift.settled_ratio == pytest.approx(1.0, abs=0.02)
    assert drift.clock == "wall"


def test_where_all_are_disturbed_cpu_time_tells() -> None:
    made = windows(lambda share: 5.0 + 5.0 * share, waiting_share=lambda _: 0.3, cpu_ms=lambda _: 4.0)
    drift = find_drift(made, threads=1)
    assert drift is not None
    assert (drift.clock, drift.ratio) == ("cpu", 1.0)


def test_few_windows_tell_no_trend() -> None:
    run = judged(windows(lambda _: 5.0)[:5])
    assert run.drift is None
    assert run.is_throttled is False
    assert "run longer" in run.signs[0]


def test_windows_are_taken_and_energy_is_counted(tmp_path: Path) -> None:
    """The meter is a file made up for this test: two watts, always."""
    (tmp_path / "power1_input").write_text("2000000\n")
    calls: list[int] = []
    plan = SustainedPlan(minutes=0.6 / 60, window_s=0.2)
    sensors = Sensors(root=tmp_path, processors=[0])
    taken = take_windows(lambda: calls.append(1), plan, sensors=sensors, meter=PowerMeter(tmp_path / "power1_input"))
    assert 2 <= len(taken.windows) <= 4
    assert taken.energy_mj == pytest.approx(2000 * 0.6, rel=0.5)
    assert sum(window.inference_count for window in taken.windows) <= taken.inference_count <= len(calls)
    assert taken.windows[0].power_mw == pytest.approx(2000, rel=0.1)
    assert taken.windows[0].temperature_c is None
    run = judge(taken, plan, threads=1, evidence=Evidence.MEASURED)
    assert [one.name for one in run.measurements] == ["sustained_latency", "energy"]
