from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekit.core.errors import MissingExtraError, UsageError, WorkerError
from edgekit.device_tests.host import host_facts
from edgekit.device_tests.jobs import Job, bring, find_runtime
from edgekit.device_tests.memory import peak_bytes
from edgekit.device_tests.testing import FAKE_RUNTIME, FakeRuntime
from edgekit.device_tests.transports.local import LocalTransport, thread_limits


class Uninstalled(FakeRuntime):
    """A runtime whose framework nobody has."""

    extra = "coreml"
    modules = ("a_framework_nobody_has",)


UNINSTALLED = Uninstalled()


def test_a_runtime_that_is_not_installed_names_its_command(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.device_tests.testing.FAKE_RUNTIME", UNINSTALLED)
    Job(kind="answers", what="testing", runtime=bench.runtime, threads=1, artifacts=()).write_json(tmp_path / "job.json")
    with pytest.raises(MissingExtraError, match=r"pip install 'edgekit\[coreml\]'"):
        LocalTransport(bench.profile).run_agent(tmp_path, timeout_s=10)


def test_an_agent_that_uses_too_much_memory_is_stopped(bench: Any, tmp_path: Path) -> None:
    job = Job(kind="answers", what="testing", runtime=bench.runtime, threads=1, artifacts=(), memory_bytes=2_000_000)
    job.write_json(tmp_path / "job.json")
    with pytest.raises(WorkerError, match="more than its limit"):
        LocalTransport(bench.profile).run_agent(tmp_path, timeout_s=30)


def test_runtimes_are_found_by_name_or_by_module() -> None:
    assert find_runtime("edgekit.device_tests.testing:FAKE_RUNTIME") is FAKE_RUNTIME
    assert find_runtime("onnxruntime").target == "onnx"
    for name in ("edgekit.device_tests.testing:NOTHING", "no.such.module:X"):
        with pytest.raises(UsageError, match="cannot be imported"):
            find_runtime(name)


def test_thread_limits_reach_every_numeric_library() -> None:
    assert thread_limits(2)["OMP_NUM_THREADS"] == "2"
    assert set(thread_limits(1).values()) == {"1"}


def test_files_and_packages_are_brought_into_a_job(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"model")
    (tmp_path / "package/inner").mkdir(parents=True)
    (tmp_path / "package/inner/weights").write_bytes(b"weights")
    job = tmp_path / "job"
    job.mkdir()
    assert bring(tmp_path / "model.bin", job).read_bytes() == b"model"
    assert (bring(tmp_path / "package", job) / "inner/weights").read_bytes() == b"weights"


def test_host_facts_say_what_the_machine_is() -> None:
    facts = host_facts()
    assert all(facts.values())
    assert facts["memory"].endswith("GiB")
    assert facts["cores"].split()[0].isdigit()


def test_peak_memory_never_falls() -> None:
    before = peak_bytes()
    block = bytearray(64 * 2**20)
    block[:: 2**12] = b"x" * len(block[:: 2**12])
    grown = peak_bytes()
    assert grown > before - 1
    del block
    assert peak_bytes() == pytest.approx(grown, rel=0.05)
    assert 10 * 2**20 < grown < 2**40
