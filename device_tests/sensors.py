"""Temperature, clock, governor and power, as far as the device's system shows them to everybody.

Paths are those of Linux: ``Documentation/ABI/testing/sysfs-class-thermal``, ``sysfs-class-hwmon``, ``sysfs-class-power``,
``sysfs-class-powercap`` and ``sysfs-devices-system-cpu`` of the kernel. Elsewhere nothing is found, and nothing is claimed.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from pathlib import Path

from edgekit.core.errors import ProfileError
from edgekit.device_tests.affinity import allowed_processors

__all__ = ["PowerMeter", "Sensors"]

_ROOT = Path("/")
_SANE_C = (1.0, 150.0)
"""A sensor that says less or more is not connected."""


class Sensors:
    """What the device can tell of its heat and its clocks.

    Args:
        root: Where ``sys`` and ``proc`` lie; another folder for tests.
        processors: Whose clocks count; None: those this process may run on.
    """

    def __init__(self, *, root: Path = _ROOT, processors: Iterable[int] | None = None) -> None:
        self._heat = [*root.glob("sys/class/thermal/thermal_zone*/temp"), *root.glob("sys/class/hwmon/hwmon*/temp*_input")]
        chosen = sorted(allowed_processors() if processors is None else processors)
        clocks = (root / "sys/devices/system/cpu" / f"cpu{number}" / "cpufreq" / "scaling_cur_freq" for number in chosen)
        self._clocks = [clock for clock in clocks if _number(clock) is not None]
        self._cpuinfo = root / "proc/cpuinfo"
        self._listed_clocks = frozenset(chosen) if not self._clocks and _shows_clocks(self._cpuinfo) else frozenset()
        self._governors = sorted(root.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"))

    def temperature_c(self) -> float | None:
        """Of the hottest sensor, °C; None where there is none."""
        low, high = _SANE_C
        found = [value / 1000 for value in map(_number, self._heat) if value is not None and low < value / 1000 < high]
        return max(found, default=None)

    def clock_mhz(self) -> float | None:
        """Mean clock of the processors, MHz; None where the system does not tell, as in a virtual machine."""
        if self._clocks:
            found = [value / 1000 for value in map(_number, self._clocks) if value is not None]
        else:
            found = _listed(self._cpuinfo, self._listed_clocks) if self._listed_clocks else []
        return sum(found) / len(found) if found else None

    def governor(self) -> str:
        """What chooses the clocks, each governor once; empty where the system does not tell."""
        return ", ".join(sorted({_text(path) for path in self._governors} - {""}))


class PowerMeter:
    """Power or energy by a meter of the kernel's: hwmon (INA219 and its kin), a battery, powercap.

    ======================================= ========= ===============
    file                                    unit      what it is
    ======================================= ========= ===============
    ``energy_uj``, ``energy*_input``        µJ        a counter
    ``power*_input``, ``power_now``         µW        power
    ``voltage_now`` and ``current_now``     µV, µA    battery
    ``in*_input`` and ``curr*_input``       mV, mA    hwmon
    ======================================= ========= ===============

    Args:
        path: One of the files, or the folder they lie in.

    Raises:
        ProfileError: There is no such meter, or it cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self._counter, self._parts, self._scale_mw = _meter(Path(path))
        if any(_number(part) is None for part in (*self._parts, *([self._counter] if self._counter else []))):
            raise ProfileError(f"The power meter {path} cannot be read. Name one that this user may read, or leave it out.")
        self._range_uj = _number(self._counter.with_name("max_energy_range_uj")) if self._counter else None
        self._last = self._read()
        self._energy_mj = 0.0

    def advance(self) -> None:
        """Read the meter and add the energy since the last reading: what a counter counted, or power by the trapezoidal rule."""
        before, now = self._last, self._read()
        self._last = now
        if self._counter is not None:
            grown = now.value - before.value
            self._energy_mj += (grown if grown >= 0 else grown + (self._range_uj or -grown)) / 1000  # a counter begins anew
        else:
            self._energy_mj += (now.value + before.value) / 2 * (now.at_s - before.at_s)

    @property
    def energy_mj(self) -> float:
        """Energy since the meter was made, millijoules, up to the last :meth:`advance`."""
        return self._energy_mj

    def _read(self) -> _Reading:
        if self._counter is not None:
            return _Reading(time.perf_counter(), _number(self._counter) or 0.0)
        power_mw = self._scale_mw
        for part in self._parts:
            power_mw *= abs(_number(part) or 0.0)  # a battery that is being emptied may count down
        return _Reading(time.perf_counter(), power_mw)


@dataclasses.dataclass(frozen=True)
class _Reading:
    at_s: float
    value: float


def _meter(path: Path) -> tuple[Path | None, tuple[Path, ...], float]:
    """Counter of µJ, or the files whose product is power, and what makes it milliwatts."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    named = {file.name: file for file in files}
    for name, file in named.items():
        if name == "energy_uj" or (name.startswith("energy") and name.endswith("_input")):
            return file, (), 1.0
    for name, file in named.items():
        if name == "power_now" or (name.startswith("power") and name.endswith("_input")):
            return None, (file,), 1e-3
    if {"voltage_now", "current_now"} <= named.keys():
        return None, (named["voltage_now"], named["current_now"]), 1e-9
    volts = next((file for name, file in named.items() if name.startswith("in") and name.endswith("_input")), None)
    amperes = next((file for name, file in named.items() if name.startswith("curr") and name.endswith("_input")), None)
    if volts is not None and amperes is not None:
        return None, (volts, amperes), 1e-3
    raise ProfileError(
        f"{path} is no power meter: expected a file such as /sys/class/hwmon/hwmon2/power1_input, or the folder it lies in"
        " (energy_uj, power_now, voltage_now with current_now, in1_input with curr1_input). Leave it out where there is none."
    )


def _shows_clocks(cpuinfo: Path) -> bool:
    """Whether the clocks listed there are real: a hypervisor shows a constant."""
    text = _text(cpuinfo)
    return "cpu MHz" in text and " hypervisor" not in text


def _listed(cpuinfo: Path, processors: frozenset[int]) -> list[float]:
    found, number = [], -1
    for line in _text(cpuinfo).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "processor":
            number = int(value)
        elif key.strip() == "cpu MHz" and (not processors or number in processors):
            found.append(float(value))
    return found


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
