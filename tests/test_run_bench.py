"""Several devices, one of them lost; nothing of it needs a model that runs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgekit import run_bench
from edgekit.core.device_bench import BenchedDevice
from edgekit.core.errors import DeviceError, UsageError
from edgekit.core.profile import DeviceProfile
from edgekit.core.run import RunFolder


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three devices of which the second is lost: doubles."""
    asked: list[str] = []

    def bench_device(profile: DeviceProfile, **_: Any) -> BenchedDevice:
        asked.append(profile.name)
        if profile.name == "second":
            raise DeviceError("Device 'second' was lost: the cable.")
        return BenchedDevice(created="2026-01-01T00:00:00+00:00", profile=profile, artifacts=())

    def read_profiles(names: Any) -> list[DeviceProfile]:
        return [DeviceProfile.parse({"name": name, "title": name, "runtimes": {}}, source="test") for name in names]

    artifact = SimpleNamespace(target="onnx")
    monkeypatch.setenv("EDGEKIT_HISTORY", "off")
    monkeypatch.setattr(run_bench, "bench_device", bench_device)
    monkeypatch.setattr(run_bench, "read_profiles", read_profiles)
    monkeypatch.setattr(run_bench, "load_golden", lambda _: SimpleNamespace(inputs={}, raw={}))
    monkeypatch.setattr(RunFolder, "manifest", lambda _: None)
    monkeypatch.setattr(RunFolder, "load_artifacts", lambda _: [artifact])
    return asked


def test_what_the_others_found_is_kept_when_one_is_lost(tmp_path: Path, devices: list[str]) -> None:
    with pytest.raises(DeviceError, match=r"the cable\. What first, third found is in"):
        run_bench.bench_run(tmp_path, devices=["first", "second", "third"])
    assert devices == ["first", "second", "third"]
    assert sorted(path.name for path in (tmp_path / "bench").iterdir()) == ["first.json", "third.json"]


def test_results_come_in_the_order_of_the_devices(tmp_path: Path, devices: list[str]) -> None:
    found = run_bench.bench_run(tmp_path, devices=["third", "first"])
    assert [one.profile.name for one in found.devices] == devices == ["third", "first"]
    assert (found.run, found.devices[0].is_audited) == (tmp_path.name, None)


def test_a_target_that_was_not_exported(tmp_path: Path, devices: list[str]) -> None:
    with pytest.raises(UsageError, match="no artifact for target 'tflite'; it has onnx"):
        run_bench.bench_run(tmp_path, targets=["tflite"])
    assert devices == []
