"""Sensors and meters of a made-up device: a tree of files laid out as Linux lays out its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.core.errors import ProfileError
from edgekit.device_tests import sensors
from edgekit.device_tests.sensors import PowerMeter, Sensors


def put(root: Path, name: str, text: str | float) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")
    return path


@pytest.fixture
def board(tmp_path: Path) -> Path:
    put(tmp_path, "sys/class/thermal/thermal_zone0/temp", 45_200)
    put(tmp_path, "sys/class/thermal/thermal_zone1/temp", -274_000)  # not connected
    put(tmp_path, "sys/class/hwmon/hwmon0/temp1_input", 61_000)
    for number, clock in ((0, 1_500_000), (1, 1_200_000), (2, 600_000)):
        put(tmp_path, f"sys/devices/system/cpu/cpu{number}/cpufreq/scaling_cur_freq", clock)
        put(tmp_path, f"sys/devices/system/cpu/cpu{number}/cpufreq/scaling_governor", "ondemand")
    return tmp_path


def test_the_hottest_sensor_and_the_clocks_that_count(board: Path) -> None:
    found = Sensors(root=board, processors=[0, 1])
    assert found.temperature_c() == 61.0
    assert found.clock_mhz() == 1350.0
    assert found.governor() == "ondemand"
    put(board, "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", 600_000)
    assert found.clock_mhz() == 900.0


def test_a_device_that_shows_nothing_claims_nothing(tmp_path: Path) -> None:
    found = Sensors(root=tmp_path, processors=[0])
    assert (found.temperature_c(), found.clock_mhz(), found.governor()) == (None, None, "")


@pytest.mark.parametrize(("flags", "clock"), [("fpu sse", 2100.0), ("fpu hypervisor sse", None)])
def test_a_hypervisors_constant_is_no_clock(tmp_path: Path, flags: str, clock: float | None) -> None:
    lines = [f"processor : {at}\ncpu MHz : {mhz}\nflags : {flags}\n" for at, mhz in enumerate((2000.0, 2200.0, 800.0))]
    put(tmp_path, "proc/cpuinfo", "\n".join(lines))
    assert Sensors(root=tmp_path, processors=[0, 1]).clock_mhz() == clock


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(sensors, "time", made)
    return made


def test_power_is_integrated_over_time(tmp_path: Path, time: Time) -> None:
    file = put(tmp_path, "hwmon2/power1_input", 2_000_000)  # 2 W
    meter = PowerMeter(file)
    time.now = 10.0
    put(tmp_path, "hwmon2/power1_input", 4_000_000)
    meter.advance()
    assert meter.energy_mj == pytest.approx(30_000)  # 3 W on average for 10 s


@pytest.mark.parametrize(
    ("files", "milliwatts"),
    [
        ({"power_now": 2_500_000}, 2500),
        ({"voltage_now": 5_000_000, "current_now": -500_000}, 2500),
        ({"in1_input": 5000, "curr1_input": 500}, 2500),
        ({"power1_input": 2_500_000, "in1_input": 1, "curr1_input": 1}, 2500),
    ],
)
def test_every_kind_of_meter(tmp_path: Path, time: Time, files: dict[str, int], milliwatts: float) -> None:
    for name, value in files.items():
        put(tmp_path, f"meter/{name}", value)
    meter = PowerMeter(tmp_path / "meter")
    time.now = 1.0
    meter.advance()
    assert meter.energy_mj == pytest.approx(milliwatts)


def test_a_counter_may_begin_anew(tmp_path: Path, time: Time) -> None:
    put(tmp_path, "rapl/max_energy_range_uj", 10_000_000)
    put(tmp_path, "rapl/energy_uj", 9_000_000)
    meter = PowerMeter(tmp_path / "rapl")
    time.now = 1.0
    put(tmp_path, "rapl/energy_uj", 500_000)
    meter.advance()
    assert meter.energy_mj == pytest.approx(1500)


def test_what_is_no_meter_is_named(tmp_path: Path) -> None:
    put(tmp_path, "odd/name", "ina219")
    with pytest.raises(ProfileError, match="is no power meter: expected a file such as"):
        PowerMeter(tmp_path / "odd")
    with pytest.raises(ProfileError, match="cannot be read"):
        PowerMeter(tmp_path / "gone" / "power1_input")
