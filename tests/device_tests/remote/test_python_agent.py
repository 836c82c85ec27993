"""Jobs by the Python of a device: what it lacks is said with what to do."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import edgekit
from edgekit.core.errors import EdgekitError, IntegrityError, ProfileError
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.arrays import write_arrays
from edgekit.device_tests.jobs import Answers, Job
from edgekit.device_tests.remote.carrier import RemoteTransport
from edgekit.device_tests.remote.python_agent import PythonAgent
from edgekit.device_tests.testing import FakeModel, ShellLink
from tests.device_tests.remote.ssh_server import FAKE


def job(folder: Path, runtime: str = FAKE) -> Path:
    folder.mkdir()
    artifact = FakeModel(weight=((1.0, 2.0),), bias=(0.0, 1.0)).export(folder)
    write_arrays(folder / "golden.npz", {"x": np.ones((2, 1, 1), np.float32)})
    shipped = artifact.replace(path=Path(artifact.path.name))
    Job(kind="answers", what="trying", runtime=runtime, threads=1, artifacts=(shipped,)).write_json(folder / "job.json")
    return folder


def run(tmp_path: Path, python: str, *, runtime: str = FAKE) -> Path:
    profile = DeviceProfile(name="board", title="Board", connection={"python": python}, runtimes={})
    transport = RemoteTransport(profile, link=ShellLink(tmp_path / "device"), agent=PythonAgent(profile))
    folder = job(tmp_path / "job", runtime)
    try:
        transport.run_agent(folder, timeout_s=60, log=tmp_path / "log.txt")
    finally:
        transport.close()
    return folder


def test_the_agent_there_is_the_agent_here(tmp_path: Path) -> None:
    folder = run(tmp_path, sys.executable)
    assert Answers.read_json(folder / "result.json").runtime_version == "test double"
    assert np.array_equal(np.load(folder / "outputs.npz")["golden/output"], np.full((2, 1, 2), [1.0, 3.0], np.float32))
    assert not (folder / "agent.txt").exists()


def stand_in(tmp_path: Path, text: str) -> str:
    """A "Python" that answers as one would that is another."""
    path = tmp_path / "other python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"'board' has no '.*/other python'\. Name the interpreter there as connection\.python"),
        ("echo 3.8; exit 3", r"has Python 3\.8 as .*needs 3\.11 or later"),
        ("echo 3.11; exit 1", r"no edgekit in it\. Run there: .*/other python -m pip install 'edgekit==VERSION'"),
        ("echo 3.12; echo 0.0.1", r"has edgekit 0\.0\.1, and VERSION runs here\. Run there: .*pip install 'edgekit==VERSION'"),
    ],
)
def test_what_a_device_lacks_is_said(tmp_path: Path, text: str | None, message: str) -> None:
    python = stand_in(tmp_path, text) if text else str(tmp_path / "other python")
    with pytest.raises(ProfileError, match=message.replace("VERSION", edgekit.__version__.replace(".", r"\."))):
        run(tmp_path, python)
    assert not (tmp_path / "job" / "result.json").exists()
    assert not (tmp_path / "job" / "outputs.npz").exists()


def reported(tmp_path: Path, text: str) -> EdgekitError:
    """What a report of the agent leads to."""
    folder = job(tmp_path / "job", "onnxruntime")
    (folder / "agent.txt").write_text(text)
    with pytest.raises(EdgekitError) as caught:
        PythonAgent(DeviceProfile(name="board", title="Board", runtimes={})).collect(folder)
    return caught.value


def test_a_runtime_that_is_not_there(tmp_path: Path) -> None:
    answer = {"error": "MissingExtraError", "message": "x", "extra": "onnx", "module": "onnxruntime"}
    found = reported(tmp_path, f"error\n{json.dumps(answer)}\n")
    assert isinstance(found, ProfileError)
    assert "'board' cannot run 'onnxruntime': the Python there (python3) lacks 'onnxruntime'" in str(found)
    assert f"python3 -m pip install 'edgekit[onnx]=={edgekit.__version__}'" in str(found)


@pytest.mark.parametrize("text", ["", "what\n", "error\nno json", "error\n[1]\n", 'error\n{"error": 5}\n', "error\n{}\n"])
def test_a_report_that_makes_no_sense_is_an_error(tmp_path: Path, text: str) -> None:
    assert isinstance(reported(tmp_path, text), IntegrityError | EdgekitError)


def test_the_missing_edgekit_is_asked_for_with_the_runtimes_extra(tmp_path: Path) -> None:
    assert f"'edgekit[onnx]=={edgekit.__version__}'" in str(reported(tmp_path, "no-edgekit\n"))
