"""A model run for minutes without a pause, in windows, with the device's heat and clock beside its latency."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.core.sustained import Window
from edgekit.device_tests.blocks import Block, choose_length, take_block
from edgekit.device_tests.job_models import JobModels
from edgekit.device_tests.jobs import Job, SustainedPlan, SustainedTimes
from edgekit.device_tests.sensors import PowerMeter, Sensors

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["run_sustained", "take_windows"]

_BLOCK_S = 0.1
"""So often the meter is read; an inference that takes longer is a block of its own."""


def run_sustained(plan: Job, folder: Path) -> None:
    """Carry out a sustained job."""
    models, sustained = JobModels(plan, folder), plan.sustained or SustainedPlan()
    meter = PowerMeter(sustained.power_meter) if sustained.power_meter else None
    sample = models.calls(models.only)[0]
    with models.opened() as sessions:
        session = sessions[models.only.label]
        taken = take_windows(lambda: session.run(sample), sustained, sensors=Sensors(), meter=meter)
    taken.replace(runtime_version=models.runtime.version()).write_json(folder / "result.json")


def take_windows(
    run: Callable[[], object], plan: SustainedPlan, *, sensors: Sensors, meter: PowerMeter | None = None
) -> SustainedTimes:
    """Windows one after the other until the time is up.

    Args:
        run: One inference.
        plan: How long, and how long a window is.
        sensors: The device's.
        meter: The device's; None where none is named.
    """
    windows: list[Window] = []
    counter = _Counter(meter, run, choose_length(run, _BLOCK_S))
    start = time.perf_counter()
    while (passed_s := time.perf_counter() - start) < 60 * plan.minutes:
        window = _window(counter, passed_s, plan.window_s)
        windows.append(window.replace(temperature_c=sensors.temperature_c(), clock_mhz=sensors.clock_mhz()))
    return SustainedTimes(
        runtime_version="",
        windows=tuple(windows),
        inference_count=counter.inference_count,
        energy_mj=None if meter is None else meter.energy_mj,
        governor=sensors.governor(),
    )


@dataclasses.dataclass
class _Counter:
    """Blocks, with the meter read after each."""

    meter: PowerMeter | None
    run: Callable[[], object]
    length: int
    inference_count: int = 0

    def block(self) -> Block:
        taken = take_block(self.run, self.length)
        self.inference_count += self.length + (self.length > 1)  # the one before a block is not timed, but it costs energy
        if self.meter is not None:
            self.meter.advance()
        return taken


def _window(counter: _Counter, start_s: float, window_s: float) -> Window:
    import numpy as np

    energy_mj = counter.meter.energy_mj if counter.meter else 0.0
    begun, walls, cpus, waits = time.perf_counter(), list[int](), list[int](), list[int | None]()
    while not walls or time.perf_counter() - begun < window_s:
        taken = counter.block()
        walls += taken.wall_ns
        cpus += taken.cpu_ns
        waits.append(taken.waited_ns)
    seconds = time.perf_counter() - begun
    known = [wait for wait in waits if wait is not None]
    p50, p90 = np.percentile(walls, [50, 90]) / 1e6
    return Window(
        start_s=start_s,
        seconds=seconds,
        inference_count=len(walls),
        p50_ms=float(p50),
        p90_ms=float(p90),
        cpu_ms=float(np.median(cpus)) / 1e6,
        waiting_share=sum(known) / 1e9 / seconds if known else None,
        power_mw=(counter.meter.energy_mj - energy_mj) / seconds if counter.meter else None,
    )
