from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgekit.core.measurement import Evidence
from edgekit.device_tests.jobs import Start
from edgekit.device_tests.starts import cached_share, drop_from_cache, start_measurements


def start(load_ms: float, *, cold: bool = False) -> Start:
    return Start(
        runtime_version="1", is_cold=cold, cached_share=0.0 if cold else 1.0, load_ms=load_ms, load_cpu_ms=load_ms,
        first_inference_ms=1.0, base_bytes=2**20, peak_bytes=3 * 2**20,
    )  # fmt: skip


def test_a_files_pages_are_dropped_and_come_back(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(os.urandom(2**20))
    if cached_share(file) is None:
        pytest.skip("the system has no mincore: runs on Linux")
    assert cached_share(file) == 1.0
    drop_from_cache(file)
    share = cached_share(file)
    if share:
        pytest.skip("the temporary folder's file system keeps files in memory: name one on a disk with TMPDIR")
    assert share == 0.0
    file.read_bytes()
    assert cached_share(file) == 1.0


def test_a_package_folder_is_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "weights.bin").write_bytes(b"x" * 10_000)
    (tmp_path / "empty").write_bytes(b"")
    assert cached_share(tmp_path) in {1.0, None}


def test_starts_have_distributions_and_say_what_was_cold() -> None:
    found = {one.name: one for one in start_measurements([start(9.0, cold=True)] * 3, [start(4.0), start(5.0), start(6.0)],
                                                         evidence=Evidence.MEASURED)}  # fmt: skip
    assert found["cold_load_time"].value == 9.0
    assert found["warm_load_time"].value == 5.0
    assert found["warm_load_time"].distribution is not None
    assert found["warm_load_time"].distribution.sample_count == 3
    assert "dropped from the system's cache" in found["cold_load_time"].note
    assert "2.0 MiB more" in found["peak_memory"].note


def test_a_file_that_stayed_in_memory_was_no_cold_start() -> None:
    found = start_measurements([start(4.0)], [start(4.0)], evidence=Evidence.MEASURED)
    assert "not a cold start" in found[0].note
