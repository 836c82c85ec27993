"""Reports written by hand: which rounds count, what disturbed them, what a window was like."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgekit.core.artifact import Artifact
from edgekit.core.errors import IntegrityError
from edgekit.device_tests.native_agent.timings import read_start, read_sustained, read_timing

NETS = tuple(
    Artifact(
        target="onnx", path="m.onnx", sha256=digest, size_bytes=1, precision=precision, inputs=(), outputs=(),  # type: ignore[arg-type]
    )
    for digest, precision in (("a" * 64, "int8"), ("b" * 64, "float32"))
)  # fmt: skip


def moment(busy_s: float, **changes: float) -> dict[str, Any]:
    return {"temperatures": [], "clocks": [], "busy_s": busy_s, "steal_s": 0.0, "pressure_s": -1, **changes}


def model(digest: str, waited_ns: list[int], *, lengths: tuple[int, ...] = (2, 1, 3, 2)) -> dict[str, Any]:
    count = sum(lengths)
    return {
        "sha256": digest, "preemptions": 3, "lengths": list(lengths), "waited_ns": waited_ns,
        "wall_ns": [1000 + index for index in range(count)], "cpu_ns": [900] * count,
    }  # fmt: skip


def report(**changes: Any) -> dict[str, Any]:
    rounds = {
        "loads": [0, 0, 1, 1], "clocks_khz": [1_000_000, 1_500_000, -1, 1_500_000],
        "models": [model("a" * 64, [0, 500, 10, 0]), model("b" * 64, [0, 0, 0, 0])],
    }  # fmt: skip
    conditions = {
        "processors": 4, "wall_ns": 2_000_000_000, "cpu_ns": 1_900_000_000,
        "before": moment(100.0), "after": moment(103.9, steal_s=0.4),
    }  # fmt: skip
    return {"runtime": {"version": "1.2"}, "rounds": rounds, "conditions": conditions, **changes}


def test_rounds_and_loads_of_every_sample() -> None:
    timing, arrays = read_timing(report(), NETS, version="")
    assert arrays["onnx/rounds"].tolist() == [0, 0, 1, 2, 2, 2, 3, 3]
    assert arrays["onnx/loads"].tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert timing.preemption_counts == {"onnx": 3, "onnx-float32": 3}
    assert timing.runtime_version == "1.2"


def test_a_round_in_which_one_model_waited_is_left_out_for_all() -> None:
    timing, arrays = read_timing(report(), NETS, version="")
    for label in ("onnx", "onnx-float32"):
        assert arrays[f"{label}/disturbed"].tolist() == [False, False, True, False, False, False, False, False]
    found = timing.interference
    assert found is not None
    assert (found.round_count, found.discarded_count, found.is_flagged) == (4, 1, False)
    assert found.preemption_count == 6
    assert found.other_cpu_share == pytest.approx((3.9 - 1.9) / 2 / 4)
    assert found.steal_share == pytest.approx(0.4 / 2 / 4)
    assert found.pressure_share is None
    assert found.clock_change == pytest.approx(1 / 3)
    assert "1 of 4 rounds left out" in found.sentence
    assert "the clock changed by 33 %" in found.sentence


def test_mostly_disturbed_rounds_are_kept_and_flagged() -> None:
    given = report()
    given["rounds"]["models"][1]["waited_ns"] = [900, 900, 900, 0]
    timing, arrays = read_timing(given, NETS, version="")
    assert not arrays["onnx/disturbed"].any()
    assert timing.interference is not None
    assert timing.interference.is_flagged


def test_a_system_that_tells_nothing_claims_nothing() -> None:
    given = report()
    for one in given["rounds"]["models"]:
        one["waited_ns"] = [-1] * 4
    given["rounds"]["clocks_khz"] = [-1] * 4
    for side in ("before", "after"):
        given["conditions"][side] |= {"busy_s": -1, "steal_s": -1}
    found = read_timing(given, NETS, version="")[0].interference
    assert found is not None
    assert (found.waiting_share, found.other_cpu_share, found.steal_share, found.clock_change) == (None, None, None, None)
    assert found.sentence == ""


def test_samples_that_do_not_fit_their_blocks_are_refused() -> None:
    for change in ({"lengths": [2, 1, 3, 9]}, {"cpu_ns": [1]}, {"waited_ns": [0]}, {"lengths": []}):
        given = report()
        given["rounds"]["models"][0] |= change
        with pytest.raises(IntegrityError, match="is not whole"):
            read_timing(given, NETS, version="")


def test_a_window_has_its_heat_and_clock() -> None:
    row = {
        "start_ns": 0, "wall_ns": 10_000_000_000, "inferences": 5000, "p50_ns": 1.5e6, "p90_ns": 2e6, "cpu_ns": 1.4e6,
        "waited_ns": 500_000_000, "busy_s": 1.0, "steal_s": 0.0, "pressure_s": -1,
        "temperatures": [{"zone": "cpu", "celsius": 61.5}, {"zone": "broken", "celsius": -274.0}],
        "clocks": [{"processors": "0", "governor": "schedutil", "mhz": 1e3}, {"processors": "4", "governor": "", "mhz": 2e3}],
    }  # fmt: skip
    conditions = {"before": moment(0, clocks=row["clocks"])}  # type: ignore[arg-type]
    given = {"runtime": {"version": ""}, "sustained": {"inferences": 5100, "windows": [row]}, "conditions": conditions}
    found = read_sustained(given, version="2.3.0")
    (window,) = found.windows
    assert (window.temperature_c, window.clock_mhz, window.waiting_share) == (61.5, 1500.0, 0.05)
    assert (window.seconds, window.p50_ms, window.cpu_ms) == (10.0, 1.5, 1.4)
    assert (found.runtime_version, found.governor, found.inference_count) == ("2.3.0", "schedutil", 5100)


@pytest.mark.parametrize(
    ("share", "asked", "is_cold"), [(0.0, True, True), (0.5, True, False), (-1, True, False), (None, False, False)]
)
def test_a_start_is_cold_only_where_the_file_was_gone(share: float | None, asked: bool, is_cold: bool) -> None:
    given: dict[str, Any] = {"runtime": {"version": "1"}, "load_ns": 2e6, "load_cpu_ns": 1e6, "first_inference_ns": 5e5}
    given |= {"memory": {"before_load_bytes": 10, "peak_bytes": 20}}
    found = read_start(given if share is None else given | {"cached_share": share}, version="", is_cold=asked)
    assert found.is_cold is is_cold
    assert (found.cached_share is None) == (share is None or share < 0)
    assert np.isclose(found.load_ms, 2.0)
