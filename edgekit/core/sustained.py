"""A model that runs for minutes without a pause: what becomes of its latency as the device warms up."""

from __future__ import annotations

from edgekit.core.measurement import Evidence, Measurement
from edgekit.core.model import Record

__all__ = ["Drift", "SustainedRun", "Window"]


class Window(Record):
    """Some seconds of a sustained run.

    Args:
        start_s: When it began, seconds after the first window did.
        seconds: How long it was.
        inference_count: Inferences in it.
        p50_ms: Median wall time of one.
        p90_ms: 90th percentile of the wall time.
        cpu_ms: Median CPU time of one, all threads.
        waiting_share: Share of the window in which the model was ready to run and another process had the processor; None where
            the system does not tell.
        temperature_c: Hottest sensor at the window's end, °C; None where none can be read.
        clock_mhz: Mean clock of the processors that may be used, at the window's end, MHz; None where it cannot be read.
        power_mw: Mean power at the meter, milliwatts; None where no meter is named.
    """

    start_s: float
    seconds: float
    inference_count: int
    p50_ms: float
    p90_ms: float
    cpu_ms: float
    waiting_share: float | None = None
    temperature_c: float | None = None
    clock_mhz: float | None = None
    power_mw: float | None = None


class Drift(Record):
    """How latency changed from the beginning of a sustained run to its end.

    Args:
        ratio: By the trend over all windows (Theil-Sen): fitted latency at the end over that at the beginning.
        interval: 95 % interval of it, made wider where neighbouring windows are alike (Sen 1968; Hamed & Rao 1998).
        settled_ratio: Latency of the last quarter over that of the first windows: a step that comes early is no trend.
        settled_interval: 95 % interval of it, by resampling windows.
        clock: ``"wall"``, or ``"cpu"`` where other work disturbed the wall clock.
    """

    ratio: float
    interval: tuple[float, float]
    settled_ratio: float
    settled_interval: tuple[float, float]
    clock: str = "wall"


class SustainedRun(Record):
    """One model, run without a pause.

    Args:
        minutes: How long.
        windows: In order.
        drift: None where there were too few windows to tell.
        is_throttled: Latency rose, and the clock fell or the device grew hot; None: latency rose, and neither clock nor
            temperature can be read here.
        signs: What that rests on, a sentence each.
        governor: What chooses the clock, in the system's word; empty where it does not tell.
        measurements: ``sustained_latency`` (the last quarter's) and, where a meter is named, ``energy`` (mJ an inference).
        evidence: What the numbers rest on.
        advice: What to do about it; empty where there is nothing to do.
        note: Anything a reader must know.
    """

    minutes: float
    windows: tuple[Window, ...]
    drift: Drift | None = None
    is_throttled: bool | None = False
    signs: tuple[str, ...] = ()
    governor: str = ""
    measurements: tuple[Measurement, ...] = ()
    evidence: Evidence
    advice: str = ""
    note: str = ""

    @property
    def hottest_c(self) -> float | None:
        """Highest temperature of all windows, °C.

        >>> SustainedRun(minutes=1, windows=(), evidence="measured").hottest_c is None
        True
        """
        return max((window.temperature_c for window in self.windows if window.temperature_c is not None), default=None)
