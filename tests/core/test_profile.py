"""Impossible devices are refused, and the field that is to be changed is named."""

from __future__ import annotations

from typing import Any

import pytest

from edgekit.core.errors import ProfileError
from edgekit.core.profile import DeviceProfile, processors


def profile(**fields: Any) -> DeviceProfile:
    return DeviceProfile.parse({"name": "x", "title": "X", "runtimes": {"onnx": {"runtime": "r"}}} | fields, source="x.toml")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"affinity": "0-"}, "'0-' is no processor number"),
        ({"affinity": "3-1"}, "no rising range"),
        ({"affinity": "0,,1"}, "'' is no processor number"),
        ({"affinity": "big"}, "'big' is no processor number"),
        ({"affinity": "0-99999999999"}, "beyond the last one any system counts, 8191"),
        ({"affinity": "0-4", "hardware": {"core_count": 4}}, "names processor 4, and hardware.core_count is 4"),
        ({"affinity": "0,1", "threads": 3}, "'threads' is 3, and affinity '0,1' leaves 2"),
        ({"threads": 5, "hardware": {"core_count": 4}}, "'threads' is 5, and the device has 4 processors"),
        (
            {"memory_limit_bytes": 2000, "hardware": {"memory_bytes": 1000}},
            "'memory_limit_bytes' is 2000, and the device has 1000",
        ),
        ({"budgets": {"peak_memory_bytes": 2000}, "hardware": {"memory_bytes": 1000}}, "more than hardware.memory_bytes = 1000"),
        ({"budgets": {"peak_memory_bytes": 2000}, "memory_limit_bytes": 1000}, "more than memory_limit_bytes = 1000"),
        ({"budgets": {"energy_mj": 3.0}}, "'budgets.energy_mj' is set without a meter"),
        ({"budgets": {"energy_mj": 3.0, "energy_meter": " "}}, "'budgets.energy_mj' is set without a meter"),
        ({"budgets": {"latency_p90_ms": 2e6}}, "longer than a whole job may take (timeout_s = 600)"),
        ({"budgets": {"latency_p90_ms": float("inf")}}, "budgets.latency_p90_ms"),
        ({"budgets": {"size_bytes": 0}}, "budgets.size_bytes"),
        ({"hardware": {"core_count": 0}}, "hardware.core_count"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"device_class": "toaster"}, "device_class"),
        ({"evaluation_samples": -1}, "evaluation_samples"),
    ],
)
def test_impossible_values(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ProfileError) as caught:
        profile(**fields)
    assert words in str(caught.value)


def test_what_is_possible_at_the_edge() -> None:
    edge = profile(
        affinity="0-1,3",
        threads=3,
        memory_limit_bytes=1000,
        hardware={"core_count": 4, "memory_bytes": 1000},
        budgets={"peak_memory_bytes": 1000, "energy_mj": 0.1, "energy_meter": "INA226 in the 5 V supply", "latency_p90_ms": 6e5},
    )
    assert processors(edge.affinity) == (0, 1, 3)
    assert edge.replace(threads=1).threads == 1


def test_profiles_of_earlier_results_still_load() -> None:
    """What the first release wrote into report.json."""
    old = {
        "schema_version": 1, "name": "host", "title": "This machine", "transport": "local",
        "hardware": {"processor": None, "architecture": None, "core_count": None, "memory_bytes": None, "instructions": [],
                     "accelerators": []},
        "runtimes": {"onnx": {"runtime": "onnxruntime", "evidence": "measured", "options": {}}}, "systems": {}, "threads": 1,
        "timeout_s": 900.0, "budgets": {"slowdown_ratio": 1.0}, "tolerances": {"metric_drop_points": 1.0},
    }  # fmt: skip
    assert DeviceProfile.parse(old, source="report.json").name == "host"
