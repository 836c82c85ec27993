"""``edgekit bench RUN``: what it keeps, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from edgekit.core.device_bench import BenchedDevice


def test_a_runs_artifacts_are_timed_and_kept(run: Path, command_line: Callable[..., Result]) -> None:
    shown = command_line(f"bench {run} --target tflite --seconds 0.05 --starts 1 --json")
    assert shown.exit_code == 0, shown.output
    document = json.loads(shown.stdout)["bench"]
    kept = BenchedDevice.read_json(run / "bench" / "host.json")
    assert document["run"] == run.name
    assert document["devices"] == [json.loads(kept.to_json())]
    assert [one.label for one in kept.artifacts] == ["tflite", "tflite-float32"]
    assert all(one.failure == "" and one.find("latency") is not None for one in kept.artifacts)
    assert [path.name for path in (run / "bench").iterdir()] == ["host.json"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("model.tflite --device host", "--device does not go with FILES"),
        ("model.tflite --audit", "--audit does not go with FILES"),
        ("RUN --threads 2", "--threads does not go with RUN"),
        ("RUN --input x.npz", "--input does not go with RUN"),
        ("RUN --scenario server", "'server' is not one of"),
        ("RUN --device nowhere", "nowhere"),
        ("RUN --target onx", "Did you mean 'onnx'?"),
    ],
)
def test_what_does_not_go_together(run: Path, command_line: Callable[..., Result], words: str, message: str) -> None:
    shown = command_line(f"bench {words.replace('RUN', str(run))}")
    assert shown.exit_code == 2, shown.output
    assert message in shown.output
    assert not list((run / "bench").glob("*.json")) if (run / "bench").exists() else True
